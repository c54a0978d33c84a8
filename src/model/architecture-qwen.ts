import * as v from 'valibot';
import { type CommonFields, count, defineArchitecture } from './define-architecture.ts';
import { BIASED_NAMES, QUERY_KEY_NORM_NAMES, STACKED_EXPERT_NAMES } from './llama-names.ts';

const layer = 'model.layers.{layer}.';

const windowFields = {
  use_sliding_window: v.nullish(v.boolean()),
  max_window_layers: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 16))),
};
type WindowFields = v.InferOutput<v.ObjectSchema<typeof windowFields, undefined>>;

/** The layers above the first max_window_layers slide, where windows are in use. */
const windowsOf = (c: CommonFields & WindowFields) => ({
  windows: c.use_sliding_window ?? false,
  slides: (i: number) => c.sliding_window !== null && i >= (c.max_window_layers ?? 28),
});

const defaults = { kvHeads: 32, maxPositions: 32768, slidingWindow: 4096 };

/** Qwen 2 and 2.5: biases of queries, keys and values. */
export const qwen2 = defineArchitecture({
  modelType: 'qwen2',
  className: 'Qwen2ForCausalLM',
  names: BIASED_NAMES,
  defaults,
  fields: windowFields,
  features: c => ({ biases: { queryKeyValue: true }, ...windowsOf(c) }),
});

const normedNames = { ...BIASED_NAMES, layer: { ...BIASED_NAMES.layer, ...QUERY_KEY_NORM_NAMES } };
const attentionBias = { attention_bias: v.nullish(v.boolean()) };

/** Qwen 3: norms of each head's queries and keys. */
export const qwen3 = defineArchitecture({
  modelType: 'qwen3',
  className: 'Qwen3ForCausalLM',
  names: normedNames,
  defaults: { ...defaults, headDim: 128 },
  fields: { ...windowFields, ...attentionBias },
  features: c => ({
    norms: { queryKey: 'head' },
    biases: { queryKeyValue: c.attention_bias ?? false, output: c.attention_bias ?? false },
    ...windowsOf(c),
  }),
});

/** Qwen 3 with experts; some layers may be dense. */
export const qwen3Moe = defineArchitecture({
  modelType: 'qwen3_moe',
  className: 'Qwen3MoeForCausalLM',
  names: {
    ...normedNames,
    layer: {
      ...normedNames.layer,
      router: `${layer}mlp.gate.weight`,
      expertGate: `${layer}mlp.experts.{expert}.gate_proj.weight`,
      expertUp: `${layer}mlp.experts.{expert}.up_proj.weight`,
      expertDown: `${layer}mlp.experts.{expert}.down_proj.weight`,
    },
  },
  otherNames: [STACKED_EXPERT_NAMES],
  defaults: { ...defaults, kvHeads: 4 },
  fields: {
    ...windowFields,
    ...attentionBias,
    num_experts: v.nullish(count(4096)),
    num_local_experts: v.nullish(count(4096)),
    num_experts_per_tok: v.nullish(count(64)),
    moe_intermediate_size: v.nullish(count(2 ** 20)),
    norm_topk_prob: v.nullish(v.boolean()),
    decoder_sparse_step: v.nullish(count(1024)),
    mlp_only_layers: v.nullish(v.pipe(v.array(v.number()), v.maxLength(1024))),
  },
  features: c => ({
    norms: { queryKey: 'head' },
    biases: { queryKeyValue: c.attention_bias ?? false, output: c.attention_bias ?? false },
    ...windowsOf(c),
    // Its layers slide all or none.
    slides: () => c.sliding_window !== null,
    experts: {
      count: c.num_experts ?? c.num_local_experts ?? 128,
      perToken: c.num_experts_per_tok ?? 8,
      width: c.moe_intermediate_size ?? 768,
      normalized: c.norm_topk_prob ?? false,
      sharedWidth: 0,
    },
    hasExperts: i => !(c.mlp_only_layers ?? []).includes(i) && (i + 1) % (c.decoder_sparse_step ?? 1) === 0,
  }),
});
