/** Sums over the predictions of a text. */
export class Divergence {
  #loss = 0;
  #divergence = 0;
  #count = 0;

  /** Adds one prediction. reference: logits of the model that is divided from, or null; expected: the token that follows. */
  add(logits: Float32Array, expected: number, reference: Float32Array | null): void {
    const norm = logSumExp(logits);
    this.#loss += norm - logits[expected]!;
    this.#count++;
    if (!reference) return;
    const referenceNorm = logSumExp(reference);
    let sum = 0;
    for (let i = 0; i < logits.length; i++) {
      const log = reference[i]! - referenceNorm;
      sum += Math.exp(log) * (log - (logits[i]! - norm));
    }
    this.#divergence += sum;
  }

  /** exp of the mean loss. */
  get perplexity(): number {
    return Math.exp(this.#loss / this.#count);
  }

  /** The mean of KL(reference || this), in nats. */
  get divergence(): number {
    return this.#divergence / this.#count;
  }
}

function logSumExp(logits: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}
