import { PotluckError } from '../../errors/errors.ts';
import type { MetadataFields } from './metadata-fields.ts';

/**
 * The families of GGUF files, by general.architecture: what config.json would say of them beyond what all have, and where
 * the tensors differ from those that Hugging Face keeps.
 */
export interface GgufFamily {
  readonly architecture: string;
  /** `architectures` and `model_type` of config.json. */
  readonly className: string;
  readonly modelType: string;
  /** Query and key rows of a head lie as 0, n/2, 1, n/2 + 1 ...: the file is made for rotating neighbours. */
  readonly interleavedHeads?: true;
  /** Norm weights lie with 1 added. */
  readonly normsPlusOne?: true;
  /** Names of tensors of a layer that are not the usual ones; see tensor-names.ts. */
  readonly names?: Readonly<Record<string, string>>;
  /** Further fields of config.json. */
  readonly config?: (fields: MetadataFields) => Record<string, unknown>;
}

const SANDWICH_NORMS = {
  ffn_norm: 'pre_feedforward_layernorm',
  post_attention_norm: 'post_attention_layernorm',
  post_ffw_norm: 'post_feedforward_layernorm',
};

const FAMILIES: readonly GgufFamily[] = [
  { architecture: 'llama', className: 'LlamaForCausalLM', modelType: 'llama', interleavedHeads: true },
  { architecture: 'qwen2', className: 'Qwen2ForCausalLM', modelType: 'qwen2' },
  { architecture: 'qwen3', className: 'Qwen3ForCausalLM', modelType: 'qwen3' },
  {
    architecture: 'qwen3moe',
    className: 'Qwen3MoeForCausalLM',
    modelType: 'qwen3_moe',
    config: fields => ({
      num_experts: fields.number('{arch}.expert_count'),
      num_experts_per_tok: fields.number('{arch}.expert_used_count'),
      moe_intermediate_size: fields.number('{arch}.expert_feed_forward_length'),
      norm_topk_prob: true,
      decoder_sparse_step: 1,
      mlp_only_layers: [],
    }),
  },
  {
    architecture: 'gemma2',
    className: 'Gemma2ForCausalLM',
    modelType: 'gemma2',
    normsPlusOne: true,
    names: SANDWICH_NORMS,
    config: fields => ({
      ...gemmaConfig(fields, 46),
      attn_logit_softcapping: fields.optionalNumber('{arch}.attn_logit_softcapping') ?? 50,
      final_logit_softcapping: fields.optionalNumber('{arch}.final_logit_softcapping') ?? 30,
      layer_types: layerTypes(fields, 2),
    }),
  },
  {
    architecture: 'gemma3',
    className: 'Gemma3ForCausalLM',
    modelType: 'gemma3_text',
    normsPlusOne: true,
    names: SANDWICH_NORMS,
    config: fields => ({
      ...gemmaConfig(fields, 62),
      attn_logit_softcapping: null,
      final_logit_softcapping: fields.optionalNumber('{arch}.final_logit_softcapping') ?? null,
      rope_theta: fields.optionalNumber('{arch}.rope.freq_base') ?? 1e6,
      rope_local_base_freq: fields.optionalNumber('{arch}.rope.freq_base_swa') ?? 10000,
      layer_types: layerTypes(fields, 6),
    }),
  },
  {
    architecture: 'phi3',
    className: 'Phi3ForCausalLM',
    modelType: 'phi3',
    names: { ffn_up: 'mlp.gate_up_proj' },
    config: fields => ({
      sliding_window: fields.optionalNumber('{arch}.attention.sliding_window') || null,
      original_max_position_embeddings:
        fields.optionalNumber('{arch}.rope.scaling.original_context_length') ??
        fields.number('{arch}.context_length'),
    }),
  },
  { architecture: 'olmo2', className: 'Olmo2ForCausalLM', modelType: 'olmo2', names: SANDWICH_NORMS },
  {
    architecture: 'granite',
    className: 'GraniteForCausalLM',
    modelType: 'granite',
    interleavedHeads: true,
    config: fields => ({
      attention_multiplier: fields.optionalNumber('{arch}.attention.scale') ?? 1,
      embedding_multiplier: fields.optionalNumber('{arch}.embedding_scale') ?? 1,
      residual_multiplier: fields.optionalNumber('{arch}.residual_scale') ?? 1,
      logits_scaling: fields.optionalNumber('{arch}.logit_scale') ?? 1,
    }),
  },
  {
    architecture: 'smollm3',
    className: 'SmolLM3ForCausalLM',
    modelType: 'smollm3',
    interleavedHeads: true,
    config: () => ({ no_rope_layer_interval: 4 }),
  },
];

/** Files of Mixtral call themselves llama. */
const MIXTRAL: GgufFamily = {
  architecture: 'llama',
  className: 'MixtralForCausalLM',
  modelType: 'mixtral',
  interleavedHeads: true,
  names: {
    ffn_gate_inp: 'block_sparse_moe.gate',
    ffn_gate_exps: 'block_sparse_moe.experts.{expert}.w1',
    ffn_down_exps: 'block_sparse_moe.experts.{expert}.w2',
    ffn_up_exps: 'block_sparse_moe.experts.{expert}.w3',
  },
  config: fields => ({
    num_local_experts: fields.number('{arch}.expert_count'),
    num_experts_per_tok: fields.number('{arch}.expert_used_count'),
  }),
};

/** Files of OLMo 3 call themselves olmo2; they have a window. */
const OLMO3: GgufFamily = {
  architecture: 'olmo2',
  className: 'Olmo3ForCausalLM',
  modelType: 'olmo3',
  names: SANDWICH_NORMS,
  config: fields => {
    const slides = fields.optionalBooleans('{arch}.attention.sliding_window_pattern');
    return {
      sliding_window: fields.number('{arch}.attention.sliding_window'),
      layer_types: slides
        ? slides.map(each => (each ? 'sliding_attention' : 'full_attention'))
        : layerTypes(fields, 4),
    };
  },
};

/** Throws UNSUPPORTED_MODEL for an architecture that is not in the list. */
export function findGgufFamily(fields: MetadataFields): GgufFamily {
  if (fields.architecture === 'llama' && (fields.optionalNumber('{arch}.expert_count') ?? 0) > 0)
    return MIXTRAL;
  if (fields.architecture === 'olmo2' && (fields.optionalNumber('{arch}.attention.sliding_window') ?? 0) > 0)
    return OLMO3;
  const family = FAMILIES.find(({ architecture }) => architecture === fields.architecture);
  if (family) return family;
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${fields.path}: the architecture is ${fields.architecture.slice(0, 100)}. Supported in GGUF files: ${FAMILIES.map(({ architecture }) => architecture).join(', ')}.`,
  );
}

/** Of `largest` layers is the 27B model of a Gemma family, which scales attention by the width of a head, not by its size. */
function gemmaConfig(fields: MetadataFields, largest: number): Record<string, unknown> {
  const isLargest = fields.number('{arch}.block_count') === largest;
  return {
    hidden_activation: 'gelu_pytorch_tanh',
    sliding_window: fields.optionalNumber('{arch}.attention.sliding_window') ?? 4096,
    query_pre_attn_scalar: isLargest
      ? fields.number('{arch}.embedding_length') / fields.number('{arch}.attention.head_count')
      : fields.number('{arch}.attention.key_length'),
  };
}

/** Every `period`-th layer sees all positions, the others a window. */
function layerTypes(fields: MetadataFields, period: number): string[] {
  return Array.from({ length: fields.number('{arch}.block_count') }, (_, layer) =>
    (layer + 1) % period === 0 ? 'full_attention' : 'sliding_attention',
  );
}
