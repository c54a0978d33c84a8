import { biasesOf, biasFields } from './bias-fields.ts';
import { defineArchitecture } from './define-architecture.ts';
import { BIASED_NAMES } from './llama-names.ts';

/** Llama 2 and 3, TinyLlama, SmolLM 1 and 2, and others of that layout: RMSNorm, RoPE, grouped queries, SwiGLU. */
export const llama = defineArchitecture({
  modelType: 'llama',
  className: 'LlamaForCausalLM',
  names: BIASED_NAMES,
  defaults: { stopTokens: [2], beginToken: 1 },
  fields: biasFields,
  features: c => ({ biases: biasesOf(c), windows: false }),
});
