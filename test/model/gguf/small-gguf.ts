import type { SMALL, Tensor } from '../small-checkpoint.ts';
import { type FileTensor, f32, f32Tensor, ggufBytes, interleaved, u32, type Value } from './gguf-file.ts';

const NAMES: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
};

/** A small checkpoint of the Llama layout as a GGUF file, as llama.cpp's converter would write it. */
export function smallGguf(
  config: typeof SMALL,
  tensors: ReadonlyMap<string, Tensor>,
  more: Readonly<Record<string, Value>> = {},
  encode: (shape: readonly number[], values: Float32Array) => FileTensor = f32Tensor,
  further: Readonly<Record<string, FileTensor>> = {},
): Uint8Array {
  const file: Record<string, FileTensor> = {};
  for (const [name, { shape, values }] of tensors) {
    const [, layer, part] = /^(?:model\.layers\.(\d+)\.)?(.+)\.weight$/.exec(name)!;
    const heads = part!.includes('q_proj')
      ? config.num_attention_heads
      : part!.includes('k_proj')
        ? config.num_key_value_heads
        : null;
    const stored = heads === null ? values : interleaved(values, heads, shape[1]!);
    const target = `${layer === undefined ? '' : `blk.${layer}.`}${NAMES[part!]}.weight`;
    file[target] = shape.length === 1 ? f32Tensor(shape, stored) : encode(shape, stored);
  }
  return ggufBytes({ ...smallMetadata(config), ...more }, { ...file, ...further });
}

export const smallMetadata = (config: typeof SMALL): Record<string, Value> => ({
  'general.architecture': 'llama',
  'llama.block_count': u32(config.num_hidden_layers),
  'llama.context_length': u32(config.max_position_embeddings),
  'llama.embedding_length': u32(config.hidden_size),
  'llama.feed_forward_length': u32(config.intermediate_size),
  'llama.attention.head_count': u32(config.num_attention_heads),
  'llama.attention.head_count_kv': u32(config.num_key_value_heads),
  'llama.rope.dimension_count': u32(config.head_dim),
  'llama.attention.layer_norm_rms_epsilon': f32(config.rms_norm_eps),
  'tokenizer.ggml.bos_token_id': u32(config.bos_token_id),
  'tokenizer.ggml.eos_token_id': u32(config.eos_token_id[0]!),
  'tokenizer.ggml.eot_token_id': u32(config.eos_token_id[1]!),
});
