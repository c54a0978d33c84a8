import type { Config } from './oracle.ts';

/** Sizes that fill no block of 16 or 32, with odd numbers of heads. */
const SIZES = {
  vocab_size: 51,
  hidden_size: 40,
  intermediate_size: 72,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  head_dim: 12,
  hidden_act: 'silu',
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

const of = (model_type: string, className: string, more: Config = {}): Config => ({
  model_type,
  architectures: [className],
  ...SIZES,
  ...more,
});

const llama = (more: Config = {}) => of('llama', 'LlamaForCausalLM', more);
const phi3 = (more: Config = {}) => of('phi3', 'Phi3ForCausalLM', more);

/** A config that leaves out all that its class has a default for, but for sizes. */
const sparse = (model_type: string, className: string, more: Config = {}): Config => {
  const { vocab_size, hidden_size, intermediate_size, num_hidden_layers } = SIZES;
  const sizes = { vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: 8 };
  return { model_type, architectures: [className], ...sizes, ...more };
};

export const CONFIGS: Record<string, Config> = {
  'llama, defaults': sparse('llama', 'LlamaForCausalLM', { hidden_size: 48 }),
  'mistral, defaults': sparse('mistral', 'MistralForCausalLM', { hidden_size: 48 }),
  'mixtral, defaults': sparse('mixtral', 'MixtralForCausalLM', { hidden_size: 48 }),
  'qwen3, defaults': sparse('qwen3', 'Qwen3ForCausalLM', { num_attention_heads: 32, num_hidden_layers: 1 }),
  'qwen2, defaults': sparse('qwen2', 'Qwen2ForCausalLM', {
    num_attention_heads: 32,
    hidden_size: 64,
    num_hidden_layers: 1,
  }),
  'qwen3_moe, defaults': sparse('qwen3_moe', 'Qwen3MoeForCausalLM', {
    num_experts: 9,
    hidden_size: 48,
    num_hidden_layers: 1,
  }),
  'gemma2, defaults': sparse('gemma2', 'Gemma2ForCausalLM', { hidden_act: 'gelu' }),
  'phi3, defaults': sparse('phi3', 'Phi3ForCausalLM', { hidden_size: 48 }),
  'smollm3, defaults': sparse('smollm3', 'SmolLM3ForCausalLM', { num_hidden_layers: 4, hidden_size: 48 }),
  'olmo2, defaults': sparse('olmo2', 'Olmo2ForCausalLM', { hidden_size: 48 }),
  'olmo3, defaults': sparse('olmo3', 'Olmo3ForCausalLM', { hidden_size: 48 }),
  'granite, defaults': sparse('granite', 'GraniteForCausalLM', { hidden_size: 48 }),
  'granitemoe, defaults': sparse('granitemoe', 'GraniteMoeForCausalLM', { hidden_size: 48 }),
  'granite 4, defaults': sparse('granitemoehybrid', 'GraniteMoeHybridForCausalLM', {
    hidden_size: 48,
    num_hidden_layers: 1,
    layer_types: ['attention'],
  }),
  // The text_config of the 4B model as it is published: what is unlike the defaults of its class.
  'gemma3 that also sees, defaults': {
    model_type: 'gemma3',
    architectures: ['Gemma3ForConditionalGeneration'],
    eos_token_id: [1, 106],
    text_config: {
      model_type: 'gemma3_text',
      vocab_size: 51,
      hidden_size: 40,
      intermediate_size: 72,
      num_hidden_layers: 6,
      rope_scaling: { factor: 8, rope_type: 'linear' },
      sliding_window: 5,
    },
  },
  'llama, one KV head, tied': llama({ num_key_value_heads: 1, tie_word_embeddings: true }),
  'llama, 9 heads, biases everywhere': llama({
    num_attention_heads: 9,
    attention_bias: true,
    mlp_bias: true,
    hidden_size: 54,
    head_dim: undefined,
  }),
  'llama, heads of 32, two query heads a tile, biases': llama({
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    hidden_size: 64,
    attention_bias: true,
  }),
  'llama, more KV heads than 8': llama({ num_attention_heads: 10, num_key_value_heads: 10, head_dim: 6 }),
  'llama, linear scaling': llama({ rope_scaling: { type: 'linear', factor: 4 } }),
  'llama, dynamic scaling': llama({
    max_position_embeddings: 16,
    rope_parameters: { rope_type: 'dynamic', factor: 4, rope_theta: 1e4 },
  }),
  'llama, yarn': llama({
    max_position_embeddings: 256,
    rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 },
  }),
  'llama, llama3 scaling': llama({
    rope_scaling: {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 16,
    },
    rope_theta: 1000,
  }),
  'mistral, a window under the prompt': of('mistral', 'MistralForCausalLM', { sliding_window: 5 }),
  mixtral: of('mixtral', 'MixtralForCausalLM', {
    num_local_experts: 5,
    num_experts_per_tok: 2,
    sliding_window: null,
  }),
  'qwen2, windows above layer 1': of('qwen2', 'Qwen2ForCausalLM', {
    use_sliding_window: true,
    sliding_window: 6,
    max_window_layers: 1,
  }),
  qwen3: of('qwen3', 'Qwen3ForCausalLM', { tie_word_embeddings: true }),
  'qwen3_moe with a dense layer, shares as they are': of('qwen3_moe', 'Qwen3MoeForCausalLM', {
    num_experts: 20,
    num_experts_per_tok: 3,
    moe_intermediate_size: 40,
    norm_topk_prob: false,
    mlp_only_layers: [1],
    num_hidden_layers: 3,
  }),
  gemma2: of('gemma2', 'Gemma2ForCausalLM', {
    hidden_activation: 'gelu_pytorch_tanh',
    query_pre_attn_scalar: 20,
    attn_logit_softcapping: 3,
    final_logit_softcapping: 4,
    sliding_window: 5,
    tie_word_embeddings: true,
    head_dim: 20,
  }),
  'gemma3, older names': of('gemma3_text', 'Gemma3ForCausalLM', {
    hidden_activation: 'gelu_pytorch_tanh',
    query_pre_attn_scalar: 14,
    rope_theta: 1e6,
    rope_local_base_freq: 100,
    rope_scaling: { rope_type: 'linear', factor: 8 },
    sliding_window: 4,
    sliding_window_pattern: 2,
    num_hidden_layers: 4,
    tie_word_embeddings: true,
  }),
  'gemma3 that also sees': {
    model_type: 'gemma3',
    architectures: ['Gemma3ForConditionalGeneration'],
    eos_token_id: [1, 106],
    vision_config: { hidden_size: 1152 },
    text_config: {
      ...of('gemma3_text', 'Gemma3ForCausalLM'),
      hidden_activation: 'gelu_pytorch_tanh',
      query_pre_attn_scalar: 14,
      rope_theta: 1e6,
      rope_local_base_freq: 100,
      sliding_window: 4,
      tie_word_embeddings: true,
    },
  },
  'phi3, part of each head turned': phi3({ partial_rotary_factor: 0.5, sliding_window: null }),
  'phi3, longrope, short': phi3({
    max_position_embeddings: 128,
    original_max_position_embeddings: 32,
    rope_scaling: {
      type: 'longrope',
      short_factor: [1, 1.1, 1.2, 1.3, 1.4, 1.5],
      long_factor: [1, 2, 4, 8, 16, 32],
    },
    sliding_window: 11,
  }),
  'phi3, longrope, long': phi3({
    max_position_embeddings: 128,
    original_max_position_embeddings: 16,
    rope_scaling: {
      type: 'su',
      short_factor: [1, 1.1, 1.2, 1.3, 1.4, 1.5],
      long_factor: [1, 2, 4, 8, 16, 32],
    },
    sliding_window: null,
  }),
  'smollm3, a layer that does not turn': of('smollm3', 'SmolLM3ForCausalLM', {
    num_hidden_layers: 3,
    no_rope_layers: [1, 0, 1],
  }),
  olmo2: of('olmo2', 'Olmo2ForCausalLM'),
  olmo3: of('olmo3', 'Olmo3ForCausalLM', { sliding_window: 6, num_hidden_layers: 4 }),
  'olmo3, yarn': of('olmo3', 'Olmo3ForCausalLM', {
    sliding_window: 6,
    num_hidden_layers: 4,
    rope_theta: 1000,
    max_position_embeddings: 128,
    rope_scaling: { rope_type: 'yarn', factor: 8, original_max_position_embeddings: 16 },
  }),
  'olmo3, rotations by kind of layer': of('olmo3', 'Olmo3ForCausalLM', {
    sliding_window: 6,
    num_hidden_layers: 2,
    layer_types: ['full_attention', 'sliding_attention'],
    rope_parameters: {
      full_attention: { rope_type: 'linear', factor: 8, rope_theta: 1000 },
      sliding_attention: { rope_type: 'default', rope_theta: 300 },
    },
  }),
  granite: of('granite', 'GraniteForCausalLM', {
    embedding_multiplier: 1.5,
    residual_multiplier: 0.22,
    attention_multiplier: 0.15,
    logits_scaling: 3,
    attention_bias: true,
    mlp_bias: true,
  }),
  'granite with experts, one of them shared': of('granitemoeshared', 'GraniteMoeSharedForCausalLM', {
    num_local_experts: 6,
    num_experts_per_tok: 2,
    intermediate_size: 24,
    shared_intermediate_size: 70,
    residual_multiplier: 0.5,
    attention_multiplier: 0.2,
  }),
  'granite 4, dense, not rotated': of('granitemoehybrid', 'GraniteMoeHybridForCausalLM', {
    num_local_experts: 0,
    num_experts_per_tok: 0,
    shared_intermediate_size: 72,
    intermediate_size: 512,
    layer_types: ['attention', 'attention'],
    attention_multiplier: 0.2,
  }),
};
