import * as v from 'valibot';
import { biasesOf, biasFields } from './bias-fields.ts';
import { count, defineArchitecture } from './define-architecture.ts';
import { BIASED_NAMES } from './llama-names.ts';

/** SmolLM 3: some layers, every fourth unless said otherwise, do not rotate. */
export const smolLm3 = defineArchitecture({
  modelType: 'smollm3',
  className: 'SmolLM3ForCausalLM',
  names: BIASED_NAMES,
  defaults: {
    tied: true,
    kvHeads: 4,
    theta: 2e6,
    maxPositions: 32768,
    stopTokens: [128001],
    beginToken: 128000,
  },
  fields: {
    ...biasFields,
    /** 1 for a layer that does rotate, whatever the name says. */
    no_rope_layers: v.nullish(v.pipe(v.array(v.picklist([0, 1])), v.maxLength(1024))),
    no_rope_layer_interval: v.nullish(count(1024)),
    use_sliding_window: v.nullish(v.boolean()),
  },
  features: c => {
    const interval = c.no_rope_layer_interval ?? 4;
    const rotates = (i: number) => (c.no_rope_layers ? c.no_rope_layers[i] === 1 : (i + 1) % interval !== 0);
    return {
      biases: biasesOf(c),
      rotates,
      windows: c.use_sliding_window ?? false,
      slides: i => !rotates(i) && typeof c.sliding_window === 'number',
      unsupported:
        c.no_rope_layers && c.no_rope_layers.length !== c.num_hidden_layers
          ? `no_rope_layers of ${c.no_rope_layers.length} layers`
          : undefined,
    };
  },
});
