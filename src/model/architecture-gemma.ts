import * as v from 'valibot';
import {
  type CommonFields,
  count,
  defineArchitecture,
  type Features,
  positive,
} from './define-architecture.ts';
import { BIASED_NAMES, QUERY_KEY_NORM_NAMES } from './llama-names.ts';
import { rotationsByKind } from './rope-config.ts';

const layer = 'model.layers.{layer}.';

/** Norms before and after each half layer. */
const sandwichNames = {
  ...BIASED_NAMES,
  layer: {
    ...BIASED_NAMES.layer,
    attentionOutputNorm: `${layer}post_attention_layernorm.weight`,
    ffnNorm: `${layer}pre_feedforward_layernorm.weight`,
    ffnOutputNorm: `${layer}post_feedforward_layernorm.weight`,
  },
};

const gemmaFields = {
  hidden_activation: v.nullish(v.string()),
  query_pre_attn_scalar: v.nullish(positive(1e6)),
  attn_logit_softcapping: v.nullish(positive(1e6)),
  final_logit_softcapping: v.nullish(positive(1e6)),
  attention_bias: v.nullish(v.boolean()),
  use_bidirectional_attention: v.nullish(v.boolean()),
};
type GemmaFields = v.InferOutput<v.ObjectSchema<typeof gemmaFields, undefined>>;

/** Norm weights are stored as what is over 1, embeddings are scaled, GELU, soft caps. */
const gemmaFeatures = (c: CommonFields & GemmaFields) => ({
  normOffset: 1,
  // Their hidden_act is not in use.
  activation: c.hidden_activation ?? 'gelu_pytorch_tanh',
  embeddingScale: Math.sqrt(c.hidden_size),
  bufferedScale: true,
  biases: { queryKeyValue: c.attention_bias ?? false, output: c.attention_bias ?? false },
  scoreScale: (c.query_pre_attn_scalar ?? 256) ** -0.5,
  unsupported: c.use_bidirectional_attention ? 'use_bidirectional_attention' : undefined,
});

const gemmaDefaults = {
  tied: true,
  headDim: 256,
  kvHeads: 4,
  slidingWindow: 4096,
  maxPositions: 8192,
  stopTokens: [1],
  beginToken: 2,
};

/** Gemma 2: every other layer slides, the first one does. */
export const gemma2 = defineArchitecture({
  modelType: 'gemma2',
  className: 'Gemma2ForCausalLM',
  names: sandwichNames,
  defaults: gemmaDefaults,
  fields: gemmaFields,
  features: c => ({
    ...gemmaFeatures(c),
    norms: { output: true },
    scoreCap: c.attn_logit_softcapping === undefined ? 50 : (c.attn_logit_softcapping ?? 0),
    logitCap: c.final_logit_softcapping === undefined ? 30 : (c.final_logit_softcapping ?? 0),
    slides: i => i % 2 === 0,
  }),
});

/** Layers that slide turn by a base of their own, which stood beside the other before transformers 5. */
const nestRotations = (config: unknown): unknown =>
  rotationsByKind(config, c => c.rope_local_base_freq ?? 10000);

/** Gemma 3: five of six layers slide, and those turn by a base of their own. */
const gemma3Definition = {
  names: { ...sandwichNames, layer: { ...sandwichNames.layer, ...QUERY_KEY_NORM_NAMES } },
  defaults: { ...gemmaDefaults, theta: 1e6, maxPositions: 131072 },
  fields: {
    ...gemmaFields,
    sliding_window_pattern: v.nullish(count(1024)),
    _sliding_window_pattern: v.nullish(count(1024)),
  },
};
type Gemma3Fields = CommonFields & v.InferOutput<v.ObjectSchema<typeof gemma3Definition.fields, undefined>>;

const gemma3Features = (c: Gemma3Fields): Features => ({
  ...gemmaFeatures(c),
  norms: { output: true, queryKey: 'head' },
  scoreCap: c.attn_logit_softcapping ?? 0,
  logitCap: c.final_logit_softcapping ?? 0,
  slides: i => (i + 1) % (c.sliding_window_pattern ?? c._sliding_window_pattern ?? 6) !== 0,
  rotations: ['full_attention', 'sliding_attention'],
});

/** The models of text alone. */
export const gemma3 = defineArchitecture({
  ...gemma3Definition,
  modelType: 'gemma3_text',
  className: 'Gemma3ForCausalLM',
  unwrap: nestRotations,
  features: gemma3Features,
});

/** Sizes that text_config leaves out in the first published kind, of the 4B model. */
const TEXT_DEFAULTS = { vocab_size: 262208, num_attention_heads: 8 };

/** The text config of a model that also sees, with the ids that stand beside it. */
function textConfig(config: unknown): unknown {
  const top = (typeof config === 'object' && config !== null ? config : {}) as Record<string, unknown>;
  const { text_config: text, eos_token_id, bos_token_id, tie_word_embeddings, quantization_config } = top;
  if (typeof text !== 'object' || text === null) return nestRotations(config);
  const beside = Object.entries({ eos_token_id, bos_token_id, tie_word_embeddings, quantization_config });
  const given = Object.fromEntries(beside.filter(([, value]) => value !== undefined));
  return nestRotations({ ...TEXT_DEFAULTS, ...text, ...given });
}

/** The models that also see: what they do with text. */
export const gemma3Multimodal = defineArchitecture({
  ...gemma3Definition,
  modelType: 'gemma3',
  className: 'Gemma3ForConditionalGeneration',
  unwrap: textConfig,
  features: gemma3Features,
  prefixes: [
    ['language_model.', 'model.'],
    ['', 'model.language_model.'],
  ],
});
