import {
  type GenerateEvent,
  type GenerateRequest,
  type Generator,
  GREEDY,
} from '../../src/engine/generate.ts';
import { Sampler } from '../../src/engine/sampler.ts';
import { TokenHistory } from '../../src/engine/token-history.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { modelLogits, VOCABULARY } from './fake-runner.ts';

/** A request with a prompt of `length` tokens that differs by `seed`. */
export function request(seed: number, length: number, more: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    prompt: Array.from({ length }, (_, i) => (seed * 7 + i * i + i * seed) % VOCABULARY),
    generated: [],
    maxTokens: 20,
    stopTokens: [],
    sampling: { ...GREEDY, temperature: 1, seed },
    ...more,
  };
}

/** The answer by the definition: one request, no pages, no passes. */
export function expectedEvents(r: GenerateRequest, context = 512, repeats = false): GenerateEvent[] {
  const sampler = new Sampler(SCRIPT_LOGIT_MATH);
  const history = new TokenHistory();
  for (const id of r.prompt) history.addPrompt(id);
  for (const id of r.generated) history.addOutput(id);
  const tokens = [...r.prompt, ...r.generated];
  const events: GenerateEvent[] = [];
  const limit = Math.min(r.maxTokens, context - r.prompt.length);
  for (let n = r.generated.length; n < limit; n++) {
    const id = sampler.sample(modelLogits(tokens, repeats), r.sampling, history, n);
    if (r.stopTokens.includes(id)) return [...events, { type: 'finish', reason: 'stop' }];
    tokens.push(id);
    history.addOutput(id);
    events.push({ type: 'token', id });
  }
  return [...events, { type: 'finish', reason: 'length' }];
}

export async function collect(
  engine: Generator,
  r: GenerateRequest,
  signal: AbortSignal = new AbortController().signal,
): Promise<GenerateEvent[]> {
  const events: GenerateEvent[] = [];
  for await (const event of engine.generate(r, signal)) events.push(event);
  return events;
}

/** Lets pending callbacks run `turns` times. */
export async function turns(n: number): Promise<void> {
  for (let i = 0; i < n; i++) await new Promise(resolve => setImmediate(resolve));
}
