import type { PackFolder } from '../../pack/pack-folder.ts';
import { alternate, type Measurement, measurement, type Samples, samples, scaled } from './alternate.ts';
import { Limits } from './limits.ts';
import { decodeSeconds, engineOf } from './passes.ts';
import { ResidentModel } from './resident-model.ts';

export interface DecodeBench extends Measurement {
  readonly model: string;
  readonly kernel: string;
  readonly threads: number;
  readonly runs: number;
  readonly weightBytesPerToken: number;
  /** Bytes a second. */
  readonly readRate: number;
  /** Tile outputs that did not fit their range; 0 where the weights are sound. */
  readonly saturated: number;
}

export interface PassBenchOptions {
  readonly threads: number;
  readonly runs: number;
}

/** Tokens that are generated in a run; the context stays short, so that attention hardly counts. */
const TOKENS = 16;

/** Tokens a second over what memory allows: the read rate over the bytes of weights that a token needs. */
export async function benchDecode(pack: PackFolder, options: PassBenchOptions): Promise<DecodeBench> {
  const { threads, runs } = options;
  const model = await ResidentModel.open(pack, 64);
  try {
    const lane = await model.lane({ threads });
    const engine = engineOf(lane);
    const limits = new Limits(model.addon, model.weights);
    let salt = 0;
    const { read, decode } = await alternate(runs, {
      read: () => limits.readRate(threads),
      decode: () => decodeSeconds(engine, TOKENS, salt++),
    });
    await engine.close();
    const speed = measurement(perSecond(decode), scaled(read, 1 / model.weightBytes), 'tokens/s');
    return {
      ...speed,
      model: pack.manifest.name,
      kernel: lane.kernel,
      threads,
      runs,
      weightBytesPerToken: model.weightBytes,
      readRate: speed.limit * model.weightBytes,
      saturated: lane.device.saturated,
    };
  } finally {
    await model.close();
  }
}

/** What `seconds` for each `things` makes a second. */
export const perSecond = (seconds: Samples, things = 1): Samples =>
  samples(seconds.values.map(s => things / s));
