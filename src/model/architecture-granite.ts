import * as v from 'valibot';
import { biasesOf, biasFields } from './bias-fields.ts';
import { defineArchitecture, positive } from './define-architecture.ts';
import { BIASED_NAMES } from './llama-names.ts';

/** Granite 3 and 4 (dense): Llama with multipliers. */
export const granite = defineArchitecture({
  modelType: 'granite',
  className: 'GraniteForCausalLM',
  names: BIASED_NAMES,
  fields: {
    ...biasFields,
    embedding_multiplier: v.nullish(positive(1e6)),
    residual_multiplier: v.nullish(positive(1e6)),
    attention_multiplier: v.nullish(positive(1e6)),
    logits_scaling: v.nullish(positive(1e6)),
  },
  features: c => ({
    biases: biasesOf(c),
    windows: false,
    embeddingScale: c.embedding_multiplier ?? 1,
    residualScale: c.residual_multiplier ?? 1,
    scoreScale: c.attention_multiplier ?? 1,
    logitScale: 1 / (c.logits_scaling ?? 1),
  }),
});
