import { invalidCheckpoint } from '../checkpoint-error.ts';
import type { GgufFamily } from './families.ts';
import type { MetadataFields } from './metadata-fields.ts';
import { type RopeFactors, ropeScaling } from './rope-scaling.ts';

/** What the tensors say that the metadata does not. */
export interface TensorFacts {
  /** Rows of the embedding. */
  readonly vocabulary: number;
  readonly hasHead: boolean;
  readonly hasAttentionBias: boolean;
  readonly hasFfnBias: boolean;
  readonly ropeFactors: RopeFactors;
}

/** Most layers and heads of which a list is made here; the architecture has limits of its own. */
const MOST_LAYERS = 1024;

/** What config.json would say of a GGUF file. Throws CHECKPOINT_INVALID or UNSUPPORTED_MODEL. */
export function ggufConfig(family: GgufFamily, fields: MetadataFields, facts: TensorFacts): object {
  const layers = fields.number('{arch}.block_count');
  const heads = fields.number('{arch}.attention.head_count');
  const width = fields.number('{arch}.embedding_length');
  if (!(layers >= 1 && layers <= MOST_LAYERS)) throw invalidCheckpoint(fields.path, `has ${layers} layers`);
  const headDim =
    fields.optionalNumber('{arch}.attention.key_length') ??
    (family.interleavedHeads ? fields.optionalNumber('{arch}.rope.dimension_count') : undefined) ??
    width / heads;
  const rotated = fields.optionalNumber('{arch}.rope.dimension_count') ?? headDim;
  const context = fields.number('{arch}.context_length');
  const theta = fields.optionalNumber('{arch}.rope.freq_base') ?? 10000;
  const scaling = ropeScaling(fields, facts.ropeFactors, { theta, rotated, context });
  const stops = ['eos', 'eot', 'eom'].flatMap(
    name => fields.optionalNumber(`tokenizer.ggml.${name}_token_id`) ?? [],
  );
  return {
    architectures: [family.className],
    model_type: family.modelType,
    vocab_size: facts.vocabulary,
    hidden_size: width,
    intermediate_size: fields.number('{arch}.feed_forward_length'),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: fields.optionalNumber('{arch}.attention.head_count_kv') ?? heads,
    head_dim: headDim,
    hidden_act: 'silu',
    max_position_embeddings: context,
    rms_norm_eps: fields.number('{arch}.attention.layer_norm_rms_epsilon'),
    rope_theta: theta,
    ...(scaling === undefined ? {} : { rope_scaling: scaling }),
    ...(rotated === headDim ? {} : { partial_rotary_factor: rotated / headDim }),
    tie_word_embeddings: !facts.hasHead,
    attention_bias: facts.hasAttentionBias,
    mlp_bias: facts.hasFfnBias,
    bos_token_id: fields.optionalNumber('tokenizer.ggml.bos_token_id') ?? null,
    eos_token_id: [...new Set(stops)],
    ...family.config?.(fields),
  };
}
