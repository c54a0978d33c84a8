import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { floatToBf16, floatToHalf } from '../../src/pack/number-formats.ts';

export type Dtype = 'BF16' | 'F16' | 'F32';

export interface Tensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** Numbers of a normal-like distribution from a seed. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return () => uniform() + uniform() + uniform() + uniform() - 2;
}

/** The bytes of a safetensors file. */
export function safetensorsBytes(tensors: ReadonlyMap<string, Tensor>, dtype: Dtype): Uint8Array {
  const size = dtype === 'F32' ? 4 : 2;
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const [name, { shape, values }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + values.length * size] };
    end += values.length * size;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + end);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  let at = 8 + text.length;
  for (const { values } of tensors.values())
    for (const value of values) {
      if (dtype === 'F32') view.setFloat32(at, value, true);
      else view.setUint16(at, dtype === 'BF16' ? floatToBf16(value) : floatToHalf(value), true);
      at += size;
    }
  return bytes;
}

export const SMALL = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 50,
  hidden_size: 48,
  intermediate_size: 72,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 10,
  hidden_act: 'silu',
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: [2, 3],
};

/** Random tensors of a Llama model of these sizes. */
export function smallTensors(config: typeof SMALL): Map<string, Tensor> {
  const next = randomNumbers(7);
  const tensors = new Map<string, Tensor>();
  const add = (name: string, shape: number[], mean = 0) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => mean + 0.1 * next());
    tensors.set(name, { shape, values });
  };
  const {
    hidden_size: width,
    head_dim,
    num_attention_heads,
    num_key_value_heads,
    intermediate_size,
  } = config;
  add('model.embed_tokens.weight', [config.vocab_size, width]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    add(`${prefix}input_layernorm.weight`, [width], 1);
    add(`${prefix}self_attn.q_proj.weight`, [num_attention_heads * head_dim, width]);
    add(`${prefix}self_attn.k_proj.weight`, [num_key_value_heads * head_dim, width]);
    add(`${prefix}self_attn.v_proj.weight`, [num_key_value_heads * head_dim, width]);
    add(`${prefix}self_attn.o_proj.weight`, [width, num_attention_heads * head_dim]);
    add(`${prefix}post_attention_layernorm.weight`, [width], 1);
    add(`${prefix}mlp.gate_proj.weight`, [intermediate_size, width]);
    add(`${prefix}mlp.up_proj.weight`, [intermediate_size, width]);
    add(`${prefix}mlp.down_proj.weight`, [width, intermediate_size]);
  }
  add('model.norm.weight', [width], 1);
  if (!config.tie_word_embeddings) add('lm_head.weight', [config.vocab_size, width]);
  return tensors;
}

/** Writes a checkpoint with one safetensors file and returns its tensors. */
export async function writeCheckpoint(
  folder: string,
  config: typeof SMALL = SMALL,
  dtype: Dtype = 'BF16',
): Promise<Map<string, Tensor>> {
  const tensors = smallTensors(config);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await writeFile(join(folder, 'model.safetensors'), safetensorsBytes(tensors, dtype));
  return tensors;
}
