import type { TensorNames } from './architecture.ts';

const layer = 'model.layers.{layer}.';

/** Names of the plainest layout: norms before the half layers, seven matrices, no biases. */
export const PLAIN_NAMES = {
  embedding: 'model.embed_tokens.weight',
  head: 'lm_head.weight',
  finalNorm: 'model.norm.weight',
  layer: {
    attentionNorm: `${layer}input_layernorm.weight`,
    query: `${layer}self_attn.q_proj.weight`,
    key: `${layer}self_attn.k_proj.weight`,
    value: `${layer}self_attn.v_proj.weight`,
    output: `${layer}self_attn.o_proj.weight`,
    ffnNorm: `${layer}post_attention_layernorm.weight`,
    gate: `${layer}mlp.gate_proj.weight`,
    up: `${layer}mlp.up_proj.weight`,
    down: `${layer}mlp.down_proj.weight`,
  },
} as const satisfies TensorNames;

/** The same with names for whatever biases a config may ask for. */
export const BIASED_NAMES = {
  ...PLAIN_NAMES,
  layer: {
    ...PLAIN_NAMES.layer,
    queryBias: `${layer}self_attn.q_proj.bias`,
    keyBias: `${layer}self_attn.k_proj.bias`,
    valueBias: `${layer}self_attn.v_proj.bias`,
    outputBias: `${layer}self_attn.o_proj.bias`,
    gateBias: `${layer}mlp.gate_proj.bias`,
    upBias: `${layer}mlp.up_proj.bias`,
    downBias: `${layer}mlp.down_proj.bias`,
  },
} as const satisfies TensorNames;

/** Experts as transformers 5 has them in memory, and writes them where it is not asked for the names of before. */
export const STACKED_EXPERT_NAMES = {
  router: `${layer}mlp.gate.weight`,
  expertGate: `${layer}mlp.experts.gate_up_proj`,
  expertUp: `${layer}mlp.experts.gate_up_proj`,
  expertDown: `${layer}mlp.experts.down_proj`,
} as const satisfies TensorNames['layer'];

/** Norms of queries and keys. */
export const QUERY_KEY_NORM_NAMES = {
  queryNorm: `${layer}self_attn.q_norm.weight`,
  keyNorm: `${layer}self_attn.k_norm.weight`,
} as const;
