import * as v from 'valibot';
import { biasesOf, biasFields } from './bias-fields.ts';
import { type CommonFields, defineArchitecture, type Features, positive } from './define-architecture.ts';
import { BIASED_NAMES } from './llama-names.ts';

const layer = 'model.layers.{layer}.';

const graniteFields = {
  ...biasFields,
  embedding_multiplier: v.nullish(positive(1e6)),
  residual_multiplier: v.nullish(positive(1e6)),
  attention_multiplier: v.nullish(positive(1e6)),
  logits_scaling: v.nullish(positive(1e6)),
};
type GraniteFields = v.InferOutput<v.ObjectSchema<typeof graniteFields, undefined>>;

const multipliers = (c: GraniteFields) => ({
  biases: biasesOf(c),
  windows: false,
  embeddingScale: c.embedding_multiplier ?? 1,
  residualScale: c.residual_multiplier ?? 1,
  scoreScale: c.attention_multiplier ?? 1,
  logitScale: 1 / (c.logits_scaling ?? 1),
});

const defaults = { stopTokens: [2], beginToken: 1 };

/** Granite 3: Llama with multipliers. */
export const granite = defineArchitecture({
  modelType: 'granite',
  className: 'GraniteForCausalLM',
  names: BIASED_NAMES,
  defaults,
  fields: graniteFields,
  features: multipliers,
});

/** Gate and up of all experts are one tensor, and of the expert that all tokens share another. */
const expertNames = {
  ...BIASED_NAMES,
  layer: {
    ...BIASED_NAMES.layer,
    router: `${layer}block_sparse_moe.router.layer.weight`,
    expertGate: `${layer}block_sparse_moe.input_linear.weight`,
    expertUp: `${layer}block_sparse_moe.input_linear.weight`,
    expertDown: `${layer}block_sparse_moe.output_linear.weight`,
    gate: `${layer}shared_mlp.input_linear.weight`,
    up: `${layer}shared_mlp.input_linear.weight`,
    down: `${layer}shared_mlp.output_linear.weight`,
  },
};

const expertFields = {
  ...graniteFields,
  num_local_experts: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(4096))),
  num_experts_per_tok: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(64))),
  shared_intermediate_size: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 20))),
};
type ExpertFields = CommonFields & v.InferOutput<v.ObjectSchema<typeof expertFields, undefined>>;

const expertFeatures = (c: ExpertFields, sharedWidth: number): Features => ({
  ...multipliers(c),
  experts: {
    count: c.num_local_experts ?? 8,
    perToken: c.num_experts_per_tok ?? 2,
    width: c.intermediate_size,
    normalized: true,
    sharedWidth,
  },
});

/** Granite 3 with experts. */
export const graniteMoe = defineArchitecture({
  modelType: 'granitemoe',
  className: 'GraniteMoeForCausalLM',
  names: expertNames,
  defaults,
  fields: expertFields,
  features: c => expertFeatures(c, 0),
});

/** Granite 3 with experts, one of which every token goes through. */
export const graniteMoeShared = defineArchitecture({
  modelType: 'granitemoeshared',
  className: 'GraniteMoeSharedForCausalLM',
  names: expertNames,
  defaults,
  fields: expertFields,
  features: c => expertFeatures(c, c.shared_intermediate_size ?? 0),
});

/** The names that layers have here; and without experts the one that is shared is the FFN. */
function hybridConfig(config: unknown): unknown {
  if (typeof config !== 'object' || config === null) return config;
  const { shared_intermediate_size: shared = 1024, ...c } = config as Record<string, unknown>;
  const types = Array.isArray(c.layer_types)
    ? c.layer_types.map(type => (type === 'attention' ? 'full_attention' : type))
    : c.layer_types;
  const width = c.num_local_experts === 0 ? shared : c.intermediate_size;
  return { ...c, layer_types: types, intermediate_size: width, shared_intermediate_size: shared };
}

/** Granite 4, as far as its layers attend (state space layers are refused): with experts, or dense. */
export const graniteMoeHybrid = defineArchitecture({
  modelType: 'granitemoehybrid',
  className: 'GraniteMoeHybridForCausalLM',
  names: expertNames,
  defaults,
  fields: { ...expertFields, position_embedding_type: v.nullish(v.string()) },
  unwrap: hybridConfig,
  features: c => {
    const own = {
      rotates: () => c.position_embedding_type === 'rope',
      unsupported: c.layer_types ? undefined : 'state space layers (no layer_types)',
    };
    if (c.num_local_experts === 0) return { ...multipliers(c), ...own };
    return { ...expertFeatures(c, c.shared_intermediate_size ?? 0), ...own };
  },
});
