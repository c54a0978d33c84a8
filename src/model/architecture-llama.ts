import type { Architecture } from './architecture.ts';
import { readLlamaConfig } from './llama-config.ts';

/** Llama 2 and 3, TinyLlama, SmolLM 2 and others of that layout: RMSNorm, RoPE, grouped queries, SwiGLU, no biases. */
export const llama: Architecture = {
  modelType: 'llama',
  className: 'LlamaForCausalLM',
  embedding: 'model.embed_tokens.weight',
  head: 'lm_head.weight',
  finalNorm: 'model.norm.weight',
  layer: {
    attentionNorm: 'model.layers.{layer}.input_layernorm.weight',
    query: 'model.layers.{layer}.self_attn.q_proj.weight',
    key: 'model.layers.{layer}.self_attn.k_proj.weight',
    value: 'model.layers.{layer}.self_attn.v_proj.weight',
    output: 'model.layers.{layer}.self_attn.o_proj.weight',
    ffnNorm: 'model.layers.{layer}.post_attention_layernorm.weight',
    gate: 'model.layers.{layer}.mlp.gate_proj.weight',
    up: 'model.layers.{layer}.mlp.up_proj.weight',
    down: 'model.layers.{layer}.mlp.down_proj.weight',
  },
  readConfig: readLlamaConfig,
};
