import * as v from 'valibot';
import { defineArchitecture } from './define-architecture.ts';
import { BIASED_NAMES, QUERY_KEY_NORM_NAMES } from './llama-names.ts';
import { rotationsByKind } from './rope-config.ts';

const layer = 'model.layers.{layer}.';

const { attentionNorm: _attention, ffnNorm: _ffn, ...matrices } = BIASED_NAMES.layer;

/** Norms behind the half layers alone, and one over all heads' queries and one over all keys. */
const names = {
  ...BIASED_NAMES,
  layer: {
    ...matrices,
    ...QUERY_KEY_NORM_NAMES,
    attentionOutputNorm: `${layer}post_attention_layernorm.weight`,
    ffnOutputNorm: `${layer}post_feedforward_layernorm.weight`,
  },
};
const fields = { attention_bias: v.nullish(v.boolean()) };
type Fields = v.InferOutput<v.ObjectSchema<typeof fields, undefined>>;

const features = (c: Fields) => ({
  norms: { input: false, output: true, queryKey: 'whole' as const },
  biases: { queryKeyValue: c.attention_bias ?? false, output: c.attention_bias ?? false },
});

/** Whether layers may turn in two ways. */
function scalesPositions(config: unknown): boolean {
  const c = config as { rope_parameters?: unknown; rope_scaling?: unknown } | null;
  return Boolean(c?.rope_parameters ?? c?.rope_scaling);
}

const defaults = { normEpsilon: 1e-5, stopTokens: [50279] };

/** OLMo 2. */
export const olmo2 = defineArchitecture({
  modelType: 'olmo2',
  className: 'Olmo2ForCausalLM',
  names,
  defaults,
  fields,
  features: c => ({ ...features(c), windows: false }),
});

/** OLMo 3: OLMo 2 in which three of four layers slide; positions are scaled in the others. */
export const olmo3 = defineArchitecture({
  modelType: 'olmo3',
  className: 'Olmo3ForCausalLM',
  names,
  defaults: { ...defaults, theta: 500000, slidingWindow: 4096 },
  fields,
  unwrap: config => (scalesPositions(config) ? rotationsByKind(config) : config),
  features: c => ({
    ...features(c),
    slides: i => (i + 1) % 4 !== 0,
    ...(scalesPositions(c) ? { rotations: ['full_attention', 'sliding_attention'] } : {}),
  }),
});
