import { fetchStatus, streamCompletion } from '../api-client.ts';
import type { Emulation } from '../emulate/emulation.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { measurement, samples } from './alternate.ts';
import type { KernelRow } from './bench-kernels.ts';

/** Beginnings of texts, so that no run can use what another one left behind. */
const PROMPTS = ['The old house', 'In the morning', 'My friend said', 'A long time ago', 'When the rain'];
const TOKENS = 128;
const WARM_UP_RUNS = 3;

/**
 * What a token takes beside native kernels: a daemon alone with one thread streams answers to a client, as ever. The
 * row has microseconds outside kernels over microseconds in all.
 */
export async function shareOutsideKernels(
  model: string,
  runs: number,
  signal: AbortSignal,
): Promise<KernelRow> {
  return withEmulation({ devices: 1, threads: 1, model }, signal, async emulation => {
    const outside: number[] = [];
    const whole: number[] = [];
    for (let run = 0; run < runs + WARM_UP_RUNS; run++) {
      const prompt = `${PROMPTS[run % PROMPTS.length]!} ${run}`;
      // The same prompt twice: their difference is the time of the further tokens alone.
      const one = await timeAnswer(emulation, prompt, 1);
      const many = await timeAnswer(emulation, prompt, 1 + TOKENS);
      if (run < WARM_UP_RUNS || many.tokens < TOKENS / 2) continue;
      const each = (many.microseconds - one.microseconds) / (many.tokens - one.tokens);
      whole.push(each);
      outside.push(each - (many.inKernels - one.inKernels) / (many.tokens - one.tokens));
    }
    const what = 'a token outside native kernels, embedded model, 1 device, 1 thread, streamed';
    return { what, ...measurement(samples(outside), samples(whole), 'us') };
  });
}

/** One streamed answer: its tokens, and microseconds in all and in kernels. */
async function timeAnswer({ apiUrl }: Emulation, prompt: string, maxTokens: number) {
  const inKernels = async () => (await fetchStatus(apiUrl)).devices[0]!.computeMicroseconds;
  const before = await inKernels();
  const started = performance.now();
  const tokens = await streamCompletion(apiUrl, prompt, maxTokens);
  const microseconds = (performance.now() - started) * 1000;
  return { tokens, microseconds, inKernels: (await inKernels()) - before };
}
