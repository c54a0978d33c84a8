import { describe, expect, it } from 'vitest';
import { GREEDY, type Sampling } from '../../src/engine/generate.ts';
import { uniform } from '../../src/engine/random.ts';
import { Sampler } from '../../src/engine/sampler.ts';
import { TokenHistory } from '../../src/engine/token-history.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';

/** Logits about normal with deviation 3, with ties where `steps` is not 0. */
function randomRow(seed: number, length: number, steps = 0): Float32Array {
  return Float32Array.from({ length }, (_, i) => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform(seed, 2 * i)));
    const x = 3 * radius * Math.cos(2 * Math.PI * uniform(seed, 2 * i + 1));
    return steps === 0 ? x : Math.round(x * steps) / steps;
  });
}

function history(prompt: readonly number[], output: readonly number[]): TokenHistory {
  const h = new TokenHistory();
  for (const id of prompt) h.addPrompt(id);
  for (const id of output) h.addOutput(id);
  return h;
}

/** Bias and penalties, straight from their definitions. */
function referenceLogits(
  row: Float32Array,
  s: Sampling,
  prompt: readonly number[],
  output: readonly number[],
): number[] {
  return [...row].map((value, id) => {
    let x = value;
    if (s.logitBias.has(id)) x = Math.fround(x + s.logitBias.get(id)!);
    const count = output.filter(o => o === id).length;
    if (prompt.includes(id) || count > 0) {
      x = x > 0 ? x / s.repetitionPenalty : x * s.repetitionPenalty;
      x -= (count > 0 ? s.presencePenalty : 0) + count * s.frequencyPenalty;
    }
    return Math.fround(x);
  });
}

/** The token by sorting everything: probabilities, then top_k, top_p, min_p, then a draw in id order. */
function referenceToken(logits: readonly number[], s: Sampling, counter: number): number {
  const sorted = logits.map((logit, id) => ({ logit, id })).sort((a, b) => b.logit - a.logit || a.id - b.id);
  if (s.temperature === 0) return sorted[0]!.id;
  let kept = sorted
    .slice(0, s.topK > 0 ? s.topK : sorted.length)
    .map(({ logit, id }) => ({ id, weight: Math.exp((logit - sorted[0]!.logit) / s.temperature) }));
  const total = kept.reduce((sum, c) => sum + c.weight, 0);
  if (s.topP < 1) {
    let sum = 0;
    const last = kept.findIndex(c => {
      sum += c.weight;
      return sum >= s.topP * total;
    });
    kept = kept.slice(0, last < 0 ? kept.length : last + 1);
  }
  kept = kept.filter(c => c.weight >= s.minP).sort((a, b) => a.id - b.id);
  const goal = uniform(s.seed, counter) * kept.reduce((sum, c) => sum + c.weight, 0);
  let sum = 0;
  for (const c of kept) {
    sum += c.weight;
    if (sum > goal) return c.id;
  }
  return kept.at(-1)!.id;
}

describe('Sampler', () => {
  it('agrees with sorting everything, for many settings, and leaves the row as it was', () => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    let cases = 0;
    for (const length of [1, 7, 300]) {
      for (const steps of [0, 2]) {
        for (const temperature of [0, 0.3, 1, 30]) {
          for (const topK of [0, 1, 5, 40, 1000]) {
            for (const topP of [1, 0.95, 0.5, 0]) {
              for (const minP of [0, 0.05, 1]) {
                const seed = cases++;
                const row = randomRow(seed, length, steps);
                const before = row.slice();
                const prompt = [seed % length, (seed * 3) % length];
                const output = [(seed * 5) % length, (seed * 5) % length, (seed * 3) % length];
                const penalties = seed % 2 === 1;
                const s: Sampling = {
                  ...GREEDY,
                  ...{ temperature, topK, topP, minP, seed },
                  repetitionPenalty: penalties ? 1.3 : 1,
                  presencePenalty: penalties ? 0.7 : 0,
                  frequencyPenalty: penalties ? -0.4 : 0,
                  logitBias: seed % 3 === 1 ? new Map([[seed % length, 2.5]]) : new Map(),
                };
                const expected = referenceToken(referenceLogits(row, s, prompt, output), s, 3);
                expect(sampler.sample(row, s, history(prompt, output), 3), JSON.stringify(s)).toBe(expected);
                expect(row).toEqual(before);
              }
            }
          }
        }
      }
    }
  });

  it('draws with the probabilities of the softmax', () => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    const row = Float32Array.from([1, 0, -1, 2, 0.5]);
    const s: Sampling = { ...GREEDY, temperature: 0.8, seed: 77 };
    const weights = [...row].map(x => Math.exp(x / 0.8));
    const total = weights.reduce((a, b) => a + b);
    const n = 50_000;
    const counts = new Array<number>(5).fill(0);
    for (let i = 0; i < n; i++) {
      const id = sampler.sample(row, s, null, i);
      counts[id] = counts[id]! + 1;
    }
    const chi = counts.reduce((c, k, id) => {
      const wanted = (n * weights[id]!) / total;
      return c + (k - wanted) ** 2 / wanted;
    }, 0);
    expect(chi).toBeLessThan(4 + 5 * Math.sqrt(8));
  });

  it('draws only what the filters leave, and all of it', () => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    // Probabilities 0.4, 0.3, 0.2, 0.1.
    const row = Float32Array.from([0.1, 0.4, 0.2, 0.3].map(Math.log));
    const drawn = (more: Partial<Sampling>): number[] => {
      const s = { ...GREEDY, temperature: 1, seed: 3, ...more };
      return [...new Set(Array.from({ length: 500 }, (_, i) => sampler.sample(row, s, null, i)))].sort();
    };
    expect(drawn({})).toEqual([0, 1, 2, 3]);
    expect(drawn({ topK: 2 })).toEqual([1, 3]);
    expect(drawn({ topP: 0.39 })).toEqual([1]);
    expect(drawn({ topP: 0.41 })).toEqual([1, 3]);
    expect(drawn({ topP: 0.71 })).toEqual([1, 2, 3]);
    expect(drawn({ minP: 0.45 })).toEqual([1, 2, 3]);
    // top_p counts shares of what top_k left: 0.4 of 0.7.
    expect(drawn({ topK: 2, topP: 0.55 })).toEqual([1]);
  });

  it('takes the lowest id of equal logits', () => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    const row = new Float32Array(1000).fill(-3);
    row[17] = 2;
    row[400] = 2;
    expect(sampler.sample(row, GREEDY, null, 0)).toBe(17);
    const flat = new Float32Array(1000);
    const top = Array.from({ length: 300 }, (_, i) =>
      sampler.sample(flat, { ...GREEDY, temperature: 1, topK: 3 }, null, i),
    );
    expect(new Set(top)).toEqual(new Set([0, 1, 2]));
    const share = Array.from({ length: 300 }, (_, i) =>
      sampler.sample(flat, { ...GREEDY, temperature: 1, topP: 0.005 }, null, i),
    );
    expect(new Set(share)).toEqual(new Set([0, 1, 2, 3, 4]));
  });

  it('divides the penalties as defined: repetition over the prompt too, presence and frequency over the output', () => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    const row = Float32Array.from([3, 2.9, 2.8, 0]);
    const pick = (more: Partial<Sampling>, prompt: number[], output: number[]): number =>
      sampler.sample(row, { ...GREEDY, ...more }, history(prompt, output), 0);
    expect(pick({ repetitionPenalty: 1.1 }, [0], [])).toBe(1);
    expect(pick({ presencePenalty: 0.15, frequencyPenalty: 0 }, [0], [])).toBe(0);
    expect(pick({ presencePenalty: 0.15 }, [], [0])).toBe(1);
    expect(pick({ frequencyPenalty: 0.06 }, [], [0])).toBe(0);
    expect(pick({ frequencyPenalty: 0.06 }, [], [0, 0])).toBe(1);
    expect(pick({ logitBias: new Map([[3, 3.5]]) }, [], [])).toBe(3);
    expect(pick({ logitBias: new Map([[0, -100]]) }, [], [])).toBe(1);
  });

  it('serves rows of other lengths in turn', () => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    const s: Sampling = { ...GREEDY, temperature: 1, topP: 0.9, logitBias: new Map([[0, 1]]) };
    for (const length of [10, 500, 20]) {
      const row = randomRow(length, length);
      expect(sampler.sample(row, s, null, 1)).toBe(referenceToken(referenceLogits(row, s, [], []), s, 1));
    }
  });

  it.each([0, 1])('refuses rows that are not numbers, at temperature %d', temperature => {
    const sampler = new Sampler(SCRIPT_LOGIT_MATH);
    const s = { ...GREEDY, temperature };
    const failure = expect.objectContaining({ code: 'KERNEL_FAILED' });
    for (const at of [0, 5, 9]) {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const row = randomRow(1, 10);
        row[at] = value;
        expect(() => sampler.sample(row, s, null, 0)).toThrow(failure);
      }
    }
    expect(() => sampler.sample(new Float32Array(4).fill(Number.NEGATIVE_INFINITY), s, null, 0)).toThrow(
      failure,
    );
    expect(() => sampler.sample(new Float32Array(0), s, null, 0)).toThrow(failure);
    const masked = Float32Array.from([Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY]);
    expect(sampler.sample(masked, s, null, 0)).toBe(1);
  });
});
