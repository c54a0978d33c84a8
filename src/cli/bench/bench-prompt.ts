import { PotluckError } from '../../errors/errors.ts';
import type { PackFolder } from '../../pack/pack-folder.ts';
import { alternate, type Measurement, measurement } from './alternate.ts';
import { type PassBenchOptions, perSecond } from './bench-decode.ts';
import { Limits } from './limits.ts';
import { promptSeconds } from './passes.ts';
import { ResidentModel } from './resident-model.ts';

export interface PromptBench extends Measurement {
  readonly model: string;
  readonly kernel: string;
  readonly threads: number;
  readonly runs: number;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly saturated: number;
}

/** Multiply-adds with weights a second over the peak of 8-bit dot products; attention takes time and does not count. */
export async function benchPrompt(
  pack: PackFolder,
  { threads, runs, tokens }: PassBenchOptions & { readonly tokens: number },
): Promise<PromptBench> {
  const { context } = pack.manifest.shape;
  if (tokens > context)
    throw new PotluckError('BAD_OPTION', `--tokens ${tokens} is more than the context of ${context}.`);
  const model = await ResidentModel.open(pack, tokens);
  try {
    const lane = await model.lane({ threads });
    const limits = new Limits(model.addon, model.weights);
    let salt = 0;
    const { peak, prompt } = await alternate(runs, {
      peak: () => limits.dotPeak(threads),
      prompt: () => promptSeconds(lane, model.pages, tokens, salt++),
    });
    const multiplyAdds = tokens * model.layerMultiplyAdds + model.headMultiplyAdds;
    const speed = measurement(perSecond(prompt, multiplyAdds), peak, 'multiply-adds/s');
    return {
      ...speed,
      model: pack.manifest.name,
      kernel: lane.kernel,
      threads,
      runs,
      tokens,
      tokensPerSecond: (speed.measured * tokens) / multiplyAdds,
      saturated: lane.device.saturated,
    };
  } finally {
    await model.close();
  }
}
