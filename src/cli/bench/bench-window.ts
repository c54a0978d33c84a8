import { availableParallelism } from 'node:os';
import type { DaemonStatus, DeviceStatus } from '../../daemon/status.ts';
import { PotluckError } from '../../errors/errors.ts';
import type { PackFolder } from '../../pack/pack-folder.ts';
import { steadyState } from '../../window-scheduler/steady-state.ts';
import { generate } from '../api-client.ts';
import type { Emulation } from '../emulate/emulation.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { formatBytes, textTable } from '../text-table.ts';
import { median } from './alternate.ts';
import { promptOf } from './passes.ts';
import { bestRawThreads, busyReadRate, rawReadRate } from './raw-reads.ts';

export interface WindowBenchOptions {
  readonly pack: PackFolder;
  readonly shape: string;
  /** Bytes of each device; null: no budget. */
  readonly memory: number | null;
  readonly devices: number;
  readonly threads?: number;
  readonly runs: number;
  /** About how long each run takes. */
  readonly seconds: number;
  /** Neither the prompt nor the four requests. */
  readonly decodeOnly: boolean;
  /** Told what goes on, where it takes long. */
  say(line: string): void;
}

export interface WindowBench {
  /** The first row: bytes streamed a second while generating, over raw reads; tokens a second with the budget, over none, where all fits. */
  readonly measured: number;
  readonly limit: number;
  readonly ratio: number;
  readonly unit: 'bytes/s' | 'tokens/s';
  /** Of each run. */
  readonly ratios: readonly number[];
  readonly shape: string;
  readonly devices: number;
  /** Layers of the pack that have bytes of their own; where fewer than the model has, others are these again. */
  readonly storedLayers: number;
  readonly layers: number;
  readonly how: string;
  readonly tokensPerSecond: number;
  /** Streamed bytes of all devices, over the raw rate: the floor of a token, and how far above it one is. */
  readonly diskSecondsPerToken: number;
  /** Null where nothing streams. */
  readonly tokenOverDisk: number | null;
  /** Raw reads while the processor reads memory with as many threads as compute. */
  readonly busyLimit: number;
  readonly predictedTokensPerSecond: number;
  /** Of TPI-LLM's steady state. */
  readonly loose: boolean;
  readonly streamedBytesPerToken: number;
  readonly pinnedBytes: number;
  readonly ringBytes: number;
  readonly budgetBytes: number | null;
  /** Highest of all devices. */
  readonly highWaterBytes: number;
  readonly highWaterOverBudget: number | null;
  readonly cpuSecondsPerGiB: number;
  /** A prompt of 256 tokens reads the streamed weights this often; null where nothing streams, or it was not asked for. */
  readonly promptReads: number | null;
  /** Tokens a second of four requests together, over one; null where a token takes seconds, or it was not asked for. */
  readonly fourOverOne: number | null;
}

const RAW_BYTES = 1 << 29;
const BUSY_BYTES = 1 << 28;
/** Pairs of one request and four, and the tokens of each. */
const FOUR_RUNS = 3;
const FOUR_TOKENS = 32;
/** A slower token than this, in seconds: four requests would take too long to measure, and more runs than these too. */
const SLOW_TOKEN = 2;
const SLOW_RUNS = 3;
/** Devices get their tiles within this time. */
const READY_MILLISECONDS = 900_000;
const PROMPT_TOKENS = 256;

/** Measures one setting, raw reads of the same file before and after each run. Rejects where devices do not start. */
export async function benchWindow(options: WindowBenchOptions, signal: AbortSignal): Promise<WindowBench> {
  const { pack, memory, devices, threads } = options;
  const emulation = {
    ...{ devices, model: pack.folder, deadline: READY_MILLISECONDS, drafts: false },
    onProgress: options.say,
    ...(memory === null ? {} : { memory }),
    ...(threads === undefined ? {} : { threads }),
  };
  return withEmulation(emulation, signal, async running => {
    const bench = await new Measurement(running, options).run();
    if (bench.streamedBytesPerToken > 0 || memory === null) return bench;
    const { memory: _, ...resident } = emulation;
    return withEmulation(resident, signal, other => againstResident(bench, running, other, options));
  });
}

interface Span {
  readonly seconds: number;
  readonly tokens: number;
  readonly streamed: number;
  readonly compute: number;
}

/** Everything about one emulation. */
class Measurement {
  readonly #emulation: Emulation;
  readonly #options: WindowBenchOptions;
  #salt = 0;
  /** Of the faster way to read. */
  #rawThreads = 2;

  constructor(emulation: Emulation, options: WindowBenchOptions) {
    this.#emulation = emulation;
    this.#options = options;
  }

  async run(): Promise<WindowBench> {
    const url = await this.#emulation.hubUrl();
    const warm = await this.#span(url, 2);
    const tokenSeconds = warm.seconds / warm.tokens;
    const slow = tokenSeconds > SLOW_TOKEN;
    const runs = slow ? Math.min(this.#options.runs, SLOW_RUNS) : this.#options.runs;
    if (slow) this.#options.say(`A token takes ${tokenSeconds.toFixed(1)} s: ${runs} runs of 2 tokens.`);
    const wanted = Math.round(this.#options.seconds / tokenSeconds);
    const tokens = Math.min(2000, Math.max(2, wanted));
    // Until the account of memory has settled.
    while ((await this.#passes()) < 64 && tokens > 16) await this.#span(url, 32);
    this.#rawThreads = await bestRawThreads(this.#options.pack.tilesPath, RAW_BYTES);
    const before = await this.#devices();
    const spans: Span[] = [];
    const raw = [(await this.#raw()).bytesPerSecond];
    const busy: number[] = [];
    let how = '';
    for (let run = 0; run < runs; run++) {
      spans.push(await this.#span(url, tokens));
      const rate = await this.#raw();
      raw.push(rate.bytesPerSecond);
      how = rate.how;
      busy.push(await this.#busyRate());
    }
    const after = await this.#devices();
    const { decodeOnly } = this.#options;
    if (slow && !decodeOnly) this.#options.say(`A prompt of ${PROMPT_TOKENS} tokens ...`);
    const prompt = decodeOnly ? null : await this.#promptReads(url);
    const four = slow || decodeOnly ? null : await this.#fourOverOne(url, FOUR_TOKENS);
    return this.#report({ spans, raw, busy, how, before, after, prompt, four, last: await this.#devices() });
  }

  #raw() {
    return rawReadRate(this.#options.pack.tilesPath, RAW_BYTES, this.#rawThreads, this.#salt++ * 17);
  }

  async #busyRate(): Promise<number> {
    const { pack, devices, threads } = this.#options;
    const cores = availableParallelism();
    const computing = Math.min(cores, devices * (threads ?? cores));
    const salt = this.#salt++ * 17;
    return (await busyReadRate(pack.tilesPath, BUSY_BYTES, this.#rawThreads, salt, computing)).bytesPerSecond;
  }

  async #passes(): Promise<number> {
    return (await this.#emulation.status(0)).engine?.passes ?? Number.POSITIVE_INFINITY;
  }

  /** The devices themselves, each as it sees itself. */
  async #devices(): Promise<DeviceStatus[]> {
    const all = await Promise.all(this.#emulation.devices.map((_, i) => this.#emulation.status(i)));
    return all.map(ownOf);
  }

  /** One request of `tokens` tokens behind a prompt of one, which takes a pass like any other. */
  async #span(url: string, tokens: number): Promise<Span> {
    const before = await this.#devices();
    const start = performance.now();
    await generate(url, promptOf(1, this.#salt++), tokens, []);
    const seconds = (performance.now() - start) / 1000;
    const after = await this.#devices();
    const streamed = (all: readonly DeviceStatus[]) => sumOf(all, window => window.streamedBytes);
    const compute = (all: readonly DeviceStatus[]): number =>
      all.reduce((sum, device) => sum + device.computeMicroseconds, 0);
    return {
      ...{ seconds, tokens },
      streamed: streamed(after) - streamed(before),
      compute: (compute(after) - compute(before)) / 1e6,
    };
  }

  /** How often a prompt reads what streams: bytes of its one token more than those that are read ahead. */
  async #promptReads(url: string): Promise<number | null> {
    const [device] = await this.#devices();
    const perPass = device?.window?.streamedBytesPerPass ?? 0;
    if (perPass === 0) return null;
    const before = (await this.#devices())[0]!.window!.streamedBytes;
    await generate(url, promptOf(PROMPT_TOKENS, this.#salt++), 1, []);
    return ((await this.#devices())[0]!.window!.streamedBytes - before) / perPass;
  }

  async #fourOverOne(url: string, tokens: number): Promise<number> {
    const time = async (requests: number): Promise<number> => {
      const start = performance.now();
      const all = Array.from({ length: requests }, () =>
        generate(url, promptOf(16, this.#salt++), tokens, []),
      );
      await Promise.all(all);
      return performance.now() - start;
    };
    const ratios: number[] = [];
    for (let run = 0; run < FOUR_RUNS; run++) {
      const one = await time(1);
      ratios.push((4 * one) / (await time(4)));
    }
    return median(ratios);
  }

  #report(seen: {
    readonly spans: readonly Span[];
    readonly raw: readonly number[];
    readonly busy: readonly number[];
    readonly how: string;
    readonly before: readonly DeviceStatus[];
    readonly after: readonly DeviceStatus[];
    readonly last: readonly DeviceStatus[];
    readonly prompt: number | null;
    readonly four: number | null;
  }): WindowBench {
    const { spans, raw, busy, before, after, last } = seen;
    const { shape, devices, memory, pack } = this.#options;
    const limits = spans.map((_, i) => (raw[i]! + raw[i + 1]!) / 2);
    const rates = spans.map(span => span.streamed / span.seconds);
    const ratios = rates.map((rate, i) => rate / limits[i]!);
    const disk = spans.map((span, i) => span.streamed / span.tokens / limits[i]!);
    const perToken = median(spans.map(span => span.streamed / span.tokens));
    const state = steadyState(
      [
        {
          computeSeconds: median(spans.map(span => span.compute / span.tokens)) / devices,
          allreduceSeconds: 0,
          streamedBytes: perToken,
        },
      ],
      { idle: median(limits), busy: median(busy) },
    );
    const bytes = (all: readonly DeviceStatus[]) => sumOf(all, window => window.readBytes);
    const cpu = (all: readonly DeviceStatus[]) => sumOf(all, window => window.readCpuMicroseconds);
    const read = bytes(after) - bytes(before);
    const highWaterBytes = Math.max(...last.map(device => device.memory?.highWaterBytes ?? 0));
    const { layers } = pack.manifest.shape;
    return {
      measured: median(rates),
      limit: median(limits),
      ratio: median(ratios),
      unit: 'bytes/s',
      ratios,
      ...{ shape, devices, layers, storedLayers: storedLayers(pack), how: seen.how },
      tokensPerSecond: median(spans.map(span => span.tokens / span.seconds)),
      diskSecondsPerToken: median(disk),
      tokenOverDisk:
        perToken === 0 ? null : median(spans.map((span, i) => span.seconds / span.tokens / disk[i]!)),
      busyLimit: median(busy),
      predictedTokensPerSecond: 1 / state.passSeconds,
      loose: state.loose,
      streamedBytesPerToken: perToken,
      pinnedBytes: sumOf(last, window => window.pinnedBytes),
      ringBytes: sumOf(last, window => window.ringBytes),
      budgetBytes: memory,
      highWaterBytes,
      highWaterOverBudget: memory === null ? null : highWaterBytes / memory,
      cpuSecondsPerGiB: read === 0 ? 0 : (cpu(after) - cpu(before)) / 1e6 / (read / 2 ** 30),
      promptReads: seen.prompt,
      fourOverOne: seen.four,
    };
  }
}

/** Where everything fits: tokens a second with the budget over those without any, in turns on both. */
async function againstResident(
  bench: WindowBench,
  budgeted: Emulation,
  resident: Emulation,
  { runs, seconds }: WindowBenchOptions,
): Promise<WindowBench> {
  const urls = [await budgeted.hubUrl(), await resident.hubUrl()];
  const tokens = Math.max(8, Math.round(bench.tokensPerSecond * seconds));
  const rates: number[][] = [[], []];
  let salt = 1000;
  for (let run = -1; run < runs; run++) {
    for (const [i, url] of urls.entries()) {
      const start = performance.now();
      await generate(url, promptOf(16, salt++), tokens, []);
      if (run >= 0) rates[i]!.push(tokens / ((performance.now() - start) / 1000));
    }
  }
  const ratios = rates[0]!.map((rate, i) => rate / rates[1]![i]!);
  const [measured, limit] = rates.map(median);
  return { ...bench, measured: measured!, limit: limit!, ratio: median(ratios), unit: 'tokens/s', ratios };
}

function ownOf(status: DaemonStatus): DeviceStatus {
  const own = status.devices.find(each => each.id === status.device.id);
  if (own) return own;
  throw new PotluckError('PROTOCOL', 'A device does not name itself in its status.');
}

type WindowStatus = NonNullable<DeviceStatus['window']>;
const sumOf = (all: readonly DeviceStatus[], what: (window: WindowStatus) => number): number =>
  all.reduce((sum, { window }) => sum + (window === null ? 0 : what(window)), 0);

function storedLayers({ manifest }: PackFolder): number {
  const first = new Map<number, string>();
  for (const { kind, layer, index, sha256 } of manifest.tiles)
    if (kind === 'attention' && index === 0) first.set(layer, sha256);
  return new Set(first.values()).size;
}

/** What `potluck bench window` prints. */
export function windowText(bench: WindowBench): string {
  const rate = (value: number): string =>
    bench.unit === 'tokens/s' ? `${value.toFixed(2)} tokens/s` : `${(value / 1e9).toFixed(2)} GB/s`;
  const first = bench.unit === 'tokens/s' ? 'with the budget, over none' : 'streamed, over raw reads';
  const shared =
    bench.storedLayers < bench.layers
      ? `, whose ${bench.layers} layers lie on disk as ${bench.storedLayers}`
      : '';
  return textTable([
    ['what', 'figure', ''],
    [first, bench.ratio.toFixed(3), `${rate(bench.measured)} of ${rate(bench.limit)}; ${bench.how}`],
    ['shape', bench.shape, `${bench.devices} devices${shared}`],
    [
      'decode',
      `${bench.tokensPerSecond.toFixed(3)} tokens/s`,
      `predicted ${bench.predictedTokensPerSecond.toFixed(3)}; beside a busy processor the disk gives ${(bench.busyLimit / 1e9).toFixed(2)} GB/s`,
    ],
    [
      'streamed',
      formatBytes(bench.streamedBytesPerToken),
      bench.tokenOverDisk === null
        ? 'a token'
        : `a token; its time is ${bench.tokenOverDisk.toFixed(3)} of the disk's ${bench.diskSecondsPerToken.toFixed(3)} s`,
    ],
    ['pinned', formatBytes(bench.pinnedBytes), `and ${formatBytes(bench.ringBytes)} of ring`],
    [
      'memory',
      formatBytes(bench.highWaterBytes),
      bench.budgetBytes === null ? 'highest; no budget' : `highest, of ${formatBytes(bench.budgetBytes)}`,
    ],
    ['processor', `${bench.cpuSecondsPerGiB.toFixed(3)} s/GiB`, 'to read and to check'],
    [
      'prompt of 256',
      bench.promptReads === null ? '-' : bench.promptReads.toFixed(2),
      'times the streamed weights',
    ],
    ['four requests', bench.fourOverOne?.toFixed(2) ?? '-', 'times the tokens/s of one'],
  ]).join('\n');
}
