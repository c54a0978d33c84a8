import type { DaemonStatus } from '../../daemon/status.ts';
import { generate } from '../api-client.ts';
import type { Emulation, EmulationOptions } from '../emulate/emulation.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { formatBytes, formatMicroseconds, textTable } from '../text-table.ts';
import { median } from './alternate.ts';
import { promptOf } from './passes.ts';

export interface ClusterBench {
  readonly devices: number;
  readonly model: string;
  readonly weights: string;
  readonly kernels: readonly string[];
  readonly threads: number;
  /** From the first process started to all devices in one plan. */
  readonly joinMilliseconds: number;
  /** First request after that: a prompt of 16 tokens. */
  readonly firstTokenMilliseconds: number;
  /** Median over the runs, and each of them. */
  readonly tokensPerSecond: number;
  readonly tokensPerSecondRuns: readonly number[];
  readonly promptTokensPerSecond: number;
  readonly promptTokensPerSecondRuns: readonly number[];
  readonly allreduce: DaemonStatus['allreduce'];
  /** Resident memory of each device at its highest, in bytes; null where it is not known. */
  readonly highWaterBytes: readonly (number | null)[];
  /** Bytes that the devices read from disk while generating, for each token. */
  readonly streamedBytesPerToken: number;
}

export interface BenchOptions extends EmulationOptions {
  /** Tokens generated in a run. */
  readonly tokens: number;
  readonly promptTokens: number;
  readonly runs: number;
}

/** Starts emulated devices and measures them as a user sees them, but for drafts: each token is a pass. */
export async function benchCluster(options: BenchOptions, signal: AbortSignal): Promise<ClusterBench> {
  const started = performance.now();
  return withEmulation({ ...options, drafts: false }, signal, async emulation => {
    const joinMilliseconds = performance.now() - started;
    return { ...(await measure(emulation, options)), joinMilliseconds };
  });
}

async function measure(
  emulation: Emulation,
  options: BenchOptions,
): Promise<Omit<ClusterBench, 'joinMilliseconds'>> {
  const url = await emulation.hubUrl();
  const time = async (prompt: readonly number[], tokens: number): Promise<number> => {
    const start = performance.now();
    await generate(url, prompt, tokens, []);
    return performance.now() - start;
  };
  const firstTokenMilliseconds = await time(promptOf(16, 0), 1);
  const decode: number[] = [];
  const prefill: number[] = [];
  const before = await statuses(emulation);
  for (let run = 1; run <= options.runs; run++) {
    // The same prompt length twice: their difference is the time of the further tokens alone.
    const one = await time(promptOf(16, run * 2), 1);
    const many = await time(promptOf(16, run * 2 + 1), 1 + options.tokens);
    decode.push((options.tokens / (many - one)) * 1000);
  }
  const between = await statuses(emulation);
  for (let run = 1; run <= options.runs; run++) {
    prefill.push((options.promptTokens / (await time(promptOf(options.promptTokens, 100 + run), 1))) * 1000);
  }
  const after = await statuses(emulation);
  const hub = after.find(status => status.device.id === status.hub?.id) ?? after[0]!;
  const generated = options.runs * (options.tokens + 2);
  return {
    devices: options.devices,
    model: hub.model?.name ?? '',
    weights: hub.model?.weights ?? '',
    kernels: hub.devices.map(each => each.kernel),
    threads: hub.devices.reduce((sum, each) => sum + each.threads, 0),
    firstTokenMilliseconds,
    tokensPerSecond: median(decode),
    tokensPerSecondRuns: decode,
    promptTokensPerSecond: median(prefill),
    promptTokensPerSecondRuns: prefill,
    allreduce: hub.allreduce,
    highWaterBytes: after.map(status => ownOf(status)?.memory?.highWaterBytes ?? null),
    streamedBytesPerToken: (streamed(between) - streamed(before)) / generated,
  };
}

const statuses = (emulation: Emulation): Promise<DaemonStatus[]> =>
  Promise.all(emulation.devices.map((_, index) => emulation.status(index)));

const ownOf = (status: DaemonStatus): DaemonStatus['devices'][number] | undefined =>
  status.devices.find(each => each.id === status.device.id);

/** Bytes that all devices have read from disk since the plan began. */
const streamed = (all: readonly DaemonStatus[]): number =>
  all.reduce((sum, status) => sum + (ownOf(status)?.window?.streamedBytes ?? 0), 0);

/** What `potluck bench cluster` prints. */
export function benchText(bench: ClusterBench): string {
  const { allreduce } = bench;
  const runs = (values: readonly number[]): string => `(${values.map(each => each.toFixed(1)).join(', ')})`;
  const high = bench.highWaterBytes.map(bytes => (bytes === null ? 'unknown' : formatBytes(bytes)));
  const rows = [
    ['what', 'figure', ''],
    ['devices', `${bench.devices}`, `${bench.threads} threads, ${[...new Set(bench.kernels)].join(', ')}`],
    ['model', bench.model, bench.weights],
    ['join', formatMicroseconds(bench.joinMilliseconds * 1000), 'from start to one plan with all'],
    ['first token', formatMicroseconds(bench.firstTokenMilliseconds * 1000), 'prompt of 16 tokens'],
    ['decode', `${bench.tokensPerSecond.toFixed(1)} tokens/s`, runs(bench.tokensPerSecondRuns)],
    ['prompt', `${bench.promptTokensPerSecond.toFixed(1)} tokens/s`, runs(bench.promptTokensPerSecondRuns)],
    ['memory', high.join(', '), 'highest, of each process'],
    ['streamed', formatBytes(bench.streamedBytesPerToken), 'a token, all devices'],
    ...(allreduce === null || allreduce.count === 0
      ? []
      : [
          ['allreduce', formatMicroseconds(allreduce.p50Microseconds), 'median'],
          ['', formatMicroseconds(allreduce.p99Microseconds), '99 % within'],
          ['', formatBytes(allreduce.bytesPerToken), 'a token, through the hub'],
        ]),
  ];
  return textTable(rows).join('\n');
}
