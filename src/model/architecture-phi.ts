import * as v from 'valibot';
import { defineArchitecture } from './define-architecture.ts';
import { PLAIN_NAMES } from './llama-names.ts';

const layer = 'model.layers.{layer}.';

/** Phi 3, 3.5 and 4-mini: queries, keys and values in one matrix, gate and up in another; long context by LongRoPE. */
export const phi3 = defineArchitecture({
  modelType: 'phi3',
  className: 'Phi3ForCausalLM',
  names: {
    ...PLAIN_NAMES,
    layer: {
      ...PLAIN_NAMES.layer,
      query: `${layer}self_attn.qkv_proj.weight`,
      key: `${layer}self_attn.qkv_proj.weight`,
      value: `${layer}self_attn.qkv_proj.weight`,
      gate: `${layer}mlp.gate_up_proj.weight`,
      up: `${layer}mlp.gate_up_proj.weight`,
    },
  },
  defaults: {
    normEpsilon: 1e-5,
    maxPositions: 4096,
    originalPositions: 4096,
    stopTokens: [32000],
    beginToken: 1,
  },
  fields: { attention_bias: v.nullish(v.boolean()) },
  features: c => ({
    slides: () => c.sliding_window !== null && c.sliding_window !== undefined,
    unsupported: c.attention_bias ? 'attention_bias' : undefined,
  }),
});
