import * as fileSystem from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openPackFolder, type PackFolder } from '../../pack/pack-folder.ts';
import { builtInModel } from '../project.ts';
import { alternate, difference, type Measurement, measurement, type Samples, scaled } from './alternate.ts';
import { perSecond } from './bench-decode.ts';
import { Limits } from './limits.ts';
import { fillPages, keyValueBytes, writeAttentionPack, writeLevelPack } from './part-packs.ts';
import { decodeSeconds, engineOf, passSeconds, promptSeconds } from './passes.ts';
import { ResidentModel } from './resident-model.ts';
import { shareOutsideKernels } from './share-outside-kernels.ts';

export interface KernelRow extends Measurement {
  readonly what: string;
}

/** The first row is at the top as well. */
export interface KernelBench extends Measurement {
  readonly model: string;
  readonly kernel: string;
  readonly threads: number;
  readonly runs: number;
  readonly rows: readonly KernelRow[];
  /** Rows that could not be measured here, and why. */
  readonly skipped: readonly string[];
}

export interface KernelBenchOptions {
  readonly pack: PackFolder;
  readonly threads: number;
  readonly runs: number;
  readonly onProgress: (line: string) => void;
}

const DECODE_TOKENS = 8;
const PROMPT_TOKENS = 512;
/** Drafted tokens that one pass checks. */
const DRAFTED = 8;
const CONTEXT = 4096;

/** Everything that kernels should be good at, beside what the machine can do, measured in turn. */
export async function benchKernels(options: KernelBenchOptions, signal: AbortSignal): Promise<KernelBench> {
  const { pack, threads, runs, onProgress } = options;
  // Small enough that what is not kernels counts.
  const embedded = await openPackFolder(fileSystem, builtInModel());
  const folder = await fileSystem.mkdtemp(join(tmpdir(), 'potluck-bench-'));
  try {
    const skipped: string[] = [];
    const passes = await measurePasses(options, folder, signal);
    const levels = await measureLevels(options, folder, skipped, signal);
    const backends = await measureBackends(embedded, options, skipped, signal);
    onProgress(`${embedded.manifest.name}, 1 device, 1 thread`);
    const outside = await shareOutsideKernels(embedded.folder, runs, signal);
    const rows = [...passes.rows, ...levels, outside, ...backends];
    const { measured, limit, ratio, unit, spread } = rows[0]!;
    const top = { measured, limit, ratio, unit, spread };
    return { ...top, model: pack.manifest.name, kernel: passes.kernel, threads, runs, rows, skipped };
  } finally {
    await fileSystem.rm(folder, { recursive: true, force: true });
  }
}

/** Rows of whole passes of the large shape, and of attention alone. */
async function measurePasses(
  { pack, threads, runs, onProgress }: KernelBenchOptions,
  folder: string,
  signal: AbortSignal,
): Promise<{ kernel: string; rows: KernelRow[] }> {
  const model = await ResidentModel.open(pack, PROMPT_TOKENS);
  const attentionPack = await writeAttentionPack(pack.manifest.shape, CONTEXT, folder);
  const attention = await ResidentModel.open(attentionPack, CONTEXT);
  try {
    const lane = await model.lane({ threads });
    const oneThread = await model.lane({ threads: 1 });
    const attending = await attention.lane({ threads });
    await fillPages(attending, attention.pages);
    const engine = engineOf(lane);
    const single = engineOf(oneThread);
    const limits = new Limits(model.addon, model.weights);
    const { pages } = model;
    let salt = 0;
    onProgress(`${pack.manifest.name}, ${threads} threads and 1 thread: ${runs} rounds`);
    const s = await alternate(
      runs,
      {
        read: () => limits.readRate(threads),
        decode: () => decodeSeconds(engine, DECODE_TOKENS, salt++),
        attentionLong: () => passSeconds(attending, attention.pages, CONTEXT - 1, 1),
        attentionShort: () => passSeconds(attending, attention.pages, 0, 1),
        readSingle: () => limits.readRate(1),
        decodeSingle: () => decodeSeconds(single, DECODE_TOKENS, salt++),
        one: () => passSeconds(lane, pages, 32, 1),
        drafted: () => passSeconds(lane, pages, 32, DRAFTED),
        peak: () => limits.dotPeak(threads),
        prompt: () => promptSeconds(lane, pages, PROMPT_TOKENS, salt++),
      },
      signal,
    );
    await engine.close();
    await single.close();
    const attended = keyValueBytes(attentionPack, CONTEXT);
    return { kernel: lane.kernel, rows: passRows(s, model, threads, attended) };
  } finally {
    await attention.close();
    await model.close();
  }
}

type PassSample =
  | 'read'
  | 'decode'
  | 'attentionLong'
  | 'attentionShort'
  | 'readSingle'
  | 'decodeSingle'
  | 'one'
  | 'drafted'
  | 'peak'
  | 'prompt';

/** `attended`: bytes of keys and values that the long attention reads. */
function passRows(
  s: Readonly<Record<PassSample, Samples>>,
  model: ResidentModel,
  threads: number,
  attended: number,
): KernelRow[] {
  const { name } = model.pack.manifest;
  const perToken = 1 / model.weightBytes;
  const promptMultiplyAdds = PROMPT_TOKENS * model.layerMultiplyAdds + model.headMultiplyAdds;
  const attention = difference(s.attentionLong, s.attentionShort);
  const single = perSecond(s.decodeSingle);
  return [
    row(`decode, ${name}, ${threads} threads`, perSecond(s.decode), scaled(s.read, perToken), 'tokens/s'),
    row(`decode, ${name}, 1 thread`, single, scaled(s.readSingle, perToken), 'tokens/s'),
    row(
      `prompt of ${PROMPT_TOKENS} tokens, ${name}, ${threads} threads`,
      perSecond(s.prompt, promptMultiplyAdds),
      s.peak,
      'multiply-adds/s',
    ),
    row(
      `decode with 1 thread over 1/${threads} of ${threads} threads`,
      single,
      perSecond(s.decode, 1 / threads),
      'tokens/s',
    ),
    row(`pass of ${DRAFTED} tokens over a pass of 1`, scaled(s.drafted, 1000), scaled(s.one, 1000), 'ms'),
    row(
      `attention of one token over ${CONTEXT} positions, ${threads} threads`,
      perSecond(attention, attended),
      s.read,
      'bytes/s',
    ),
  ];
}

/** 4-bit over 8-bit activations, with the kernels of the fastest instruction set and with those that have no VNNI. */
async function measureLevels(
  { pack, runs, onProgress }: KernelBenchOptions,
  folder: string,
  skipped: string[],
  signal: AbortSignal,
): Promise<KernelRow[]> {
  const { shape } = pack.manifest;
  onProgress(`two layers of ${pack.manifest.name}, 4-bit and 8-bit activations`);
  const a4 = await ResidentModel.open(
    await writeLevelPack(shape, PROMPT_TOKENS, 'a4', folder),
    PROMPT_TOKENS,
  );
  const a8 = await ResidentModel.open(
    await writeLevelPack(shape, PROMPT_TOKENS, 'a8', folder),
    PROMPT_TOKENS,
  );
  try {
    const { available, selected } = a4.addon.kernels();
    const rows: KernelRow[] = [];
    for (const kernel of new Set([selected, 'avx2'])) {
      if (!available.includes(kernel)) {
        skipped.push(`4-bit over 8-bit activations with ${kernel}: this processor has it not`);
        continue;
      }
      const four = await a4.lane({ threads: 1, kernel });
      const eight = await a8.lane({ threads: 1, kernel });
      let salt = 0;
      const s = await alternate(
        runs,
        {
          four: () => promptSeconds(four, a4.pages, PROMPT_TOKENS, salt++),
          eight: () => promptSeconds(eight, a8.pages, PROMPT_TOKENS, salt++),
        },
        signal,
      );
      const multiplyAdds = PROMPT_TOKENS * a4.layerMultiplyAdds + a4.headMultiplyAdds;
      const what = `prompt of ${PROMPT_TOKENS} tokens, W4A4 over W4A8, ${kernel}, 1 thread`;
      rows.push(
        row(what, perSecond(s.four, multiplyAdds), perSecond(s.eight, multiplyAdds), 'multiply-adds/s'),
      );
    }
    return rows;
  } finally {
    await a4.close();
    await a8.close();
  }
}

/** The other backend, on the embedded model. */
async function measureBackends(
  embedded: PackFolder,
  { runs, onProgress }: KernelBenchOptions,
  skipped: string[],
  signal: AbortSignal,
): Promise<KernelRow[]> {
  onProgress(`${embedded.manifest.name}, native and onnxruntime`);
  const model = await ResidentModel.open(embedded, PROMPT_TOKENS);
  try {
    const native = engineOf(await model.lane({ threads: 1 }));
    const other = await model.lane({ threads: 1, backend: 'onnxruntime' }).catch((error: Error) => {
      skipped.push(`onnxruntime: ${error.message}`);
      return null;
    });
    if (other === null) return [];
    const onnx = engineOf(other);
    let salt = 0;
    const s = await alternate(
      runs,
      {
        native: () => decodeSeconds(native, DECODE_TOKENS, salt++),
        onnx: () => decodeSeconds(onnx, DECODE_TOKENS, salt++),
      },
      signal,
    );
    await native.close();
    await onnx.close();
    const what = `decode, ${embedded.manifest.name}, onnxruntime over native kernels, 1 thread`;
    return [row(what, perSecond(s.onnx), perSecond(s.native), 'tokens/s')];
  } finally {
    await model.close();
  }
}

const row = (what: string, measured: Samples, limit: Samples, unit: string): KernelRow => ({
  what,
  ...measurement(measured, limit, unit),
});
