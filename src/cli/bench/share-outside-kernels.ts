import { request } from 'node:http';
import { PotluckError } from '../../errors/errors.ts';
import { fetchStatus } from '../api-client.ts';
import type { Emulation } from '../emulate/emulation.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { measurement, samples } from './alternate.ts';
import type { KernelRow } from './bench-kernels.ts';

/** Beginnings of texts, so that no run can use what another one left behind. */
const PROMPTS = ['The old house', 'In the morning', 'My friend said', 'A long time ago', 'When the rain'];
const TOKENS = 128;
/** Until V8 has compiled what a token runs through: a daemon answers for longer than that. */
const WARM_UP_RUNS = 20;

/**
 * What a token takes beside native kernels: a daemon alone with one thread streams answers to a client, as ever. The
 * row has microseconds outside kernels over microseconds in all.
 */
export async function shareOutsideKernels(
  model: string,
  runs: number,
  signal: AbortSignal,
): Promise<KernelRow> {
  return withEmulation({ devices: 1, threads: 1, model, drafts: false }, signal, async emulation => {
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

/**
 * Streams a continuation of `prompt` to its end; resolves to how many tokens it has. Events are looked at when all are
 * there: on a small machine a client that parses each would take from the daemon what is measured.
 */
function streamCompletion(url: string, prompt: string, maxTokens: number): Promise<number> {
  const body = { model: 'default', prompt, max_tokens: maxTokens, stream: true };
  const headers = { 'content-type': 'application/json' };
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/v1/completions`, { method: 'POST', headers }, response => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        const tokens = Number(/"completion_tokens":(\d+)/.exec(text)?.[1]);
        if (tokens >= 1) resolve(tokens);
        else reject(new PotluckError('PROTOCOL', `The daemon sent no usage: ${text.slice(0, 200)}`));
      });
    });
    sent.on('error', reject);
    sent.end(JSON.stringify({ ...body, stream_options: { include_usage: true } }));
  });
}
