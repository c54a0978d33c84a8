import * as v from 'valibot';
import { count, defineArchitecture } from './define-architecture.ts';
import { PLAIN_NAMES, STACKED_EXPERT_NAMES } from './llama-names.ts';

const layer = 'model.layers.{layer}.';

const defaults = { kvHeads: 8, maxPositions: 131072, stopTokens: [2], beginToken: 1 };

/** Mistral: every layer slides where the config has a window. */
export const mistral = defineArchitecture({
  modelType: 'mistral',
  className: 'MistralForCausalLM',
  names: PLAIN_NAMES,
  defaults: { ...defaults, slidingWindow: 4096 },
  fields: {},
  features: c => ({ slides: () => c.sliding_window !== null }),
});

/** Mixtral: Mistral with experts. */
export const mixtral = defineArchitecture({
  modelType: 'mixtral',
  className: 'MixtralForCausalLM',
  names: {
    ...PLAIN_NAMES,
    layer: {
      ...PLAIN_NAMES.layer,
      router: `${layer}block_sparse_moe.gate.weight`,
      expertGate: `${layer}block_sparse_moe.experts.{expert}.w1.weight`,
      expertUp: `${layer}block_sparse_moe.experts.{expert}.w3.weight`,
      expertDown: `${layer}block_sparse_moe.experts.{expert}.w2.weight`,
    },
  },
  otherNames: [
    STACKED_EXPERT_NAMES,
    {
      expertGate: `${layer}mlp.experts.{expert}.w1.weight`,
      expertUp: `${layer}mlp.experts.{expert}.w3.weight`,
      expertDown: `${layer}mlp.experts.{expert}.w2.weight`,
    },
  ],
  defaults: { ...defaults, normEpsilon: 1e-5, theta: 1e6 },
  fields: {
    num_local_experts: v.nullish(count(4096)),
    num_experts: v.nullish(count(4096)),
    num_experts_per_tok: v.nullish(count(64)),
  },
  features: c => ({
    slides: () => c.sliding_window !== null && c.sliding_window !== undefined,
    experts: {
      count: c.num_local_experts ?? c.num_experts ?? 8,
      perToken: c.num_experts_per_tok ?? 2,
      width: c.intermediate_size,
      normalized: true,
      sharedWidth: 0,
    },
  }),
});
