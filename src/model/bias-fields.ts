import * as v from 'valibot';

/** Fields of families whose configs may ask for biases. */
export const biasFields = { attention_bias: v.nullish(v.boolean()), mlp_bias: v.nullish(v.boolean()) };

type BiasFields = v.InferOutput<v.ObjectSchema<typeof biasFields, undefined>>;

/** attention_bias: of all four matrices; mlp_bias: of all three. */
export const biasesOf = ({ attention_bias: attention, mlp_bias: ffn }: BiasFields) => ({
  queryKeyValue: attention ?? false,
  output: attention ?? false,
  gateUp: ffn ?? false,
  down: ffn ?? false,
});
