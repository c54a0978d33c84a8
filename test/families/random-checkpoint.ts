import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bf16ToFloat, floatToBf16 } from '../../src/pack/number-formats.ts';
import { randomSource } from '../kernels/addon-under-test.ts';
import { safetensorsBytes, type Tensor } from '../model/small-checkpoint.ts';
import { type Config, completed } from './oracle.ts';

/** Random tensors of a family, such that bfloat16 holds them without loss. */
export function randomTensors(config: Config, seed = 1): Map<string, Tensor> {
  const c = completed(config);
  const random = randomSource(seed);
  const tensors = new Map<string, Tensor>();
  const matrix = (name: string, rows: number, columns: number, gain = 1) => {
    const step = 2 ** Math.round(Math.log2(gain / Math.sqrt(columns) / 4.6));
    const values = Float32Array.from(
      { length: rows * columns },
      () => (Math.floor(random() * 16) - 8) * step,
    );
    tensors.set(`${name}.weight`, { shape: [rows, columns], values });
  };
  const vector = (name: string, size: number, mean: number, spread: number) => {
    const draw = () => bf16ToFloat(floatToBf16(mean + (random() - 0.5) * 2 * spread));
    tensors.set(name, { shape: [size], values: Float32Array.from({ length: size }, draw) });
  };
  const plusOne = c.model_type.startsWith('gemma') ? 0 : 1;
  const norm = (name: string, size: number) => vector(`${name}.weight`, size, plusOne, 0.3);
  const width = c.hidden_size;
  const headDim = c.head_dim ?? width / c.num_attention_heads;
  const queries = c.num_attention_heads * headDim;
  const keys = (c.num_key_value_heads ?? c.num_attention_heads) * headDim;
  const olmo = c.model_type.startsWith('olmo');
  const sandwich = c.model_type.startsWith('gemma');

  matrix('model.embed_tokens', c.vocab_size, width, Math.sqrt(width) * (sandwich ? 0.2 : 1));
  if (!c.tie_word_embeddings) matrix('lm_head', c.vocab_size, width, 2);
  norm('model.norm', width);
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    const name = `model.layers.${layer}.`;
    if (!olmo) norm(`${name}input_layernorm`, width);
    norm(`${name}post_attention_layernorm`, width);
    if (sandwich) norm(`${name}pre_feedforward_layernorm`, width);
    if (sandwich || olmo) norm(`${name}post_feedforward_layernorm`, width);
    attention(layer);
    if (c.model_type.startsWith('granitemoe')) graniteFfn(name);
    else if (hasExperts(c, layer)) experts(name);
    else dense(`${name}mlp.`);
  }
  return tensors;

  function attention(layer: number): void {
    const name = `model.layers.${layer}.self_attn.`;
    if (c.model_type === 'phi3') matrix(`${name}qkv_proj`, queries + 2 * keys, width);
    else {
      matrix(`${name}q_proj`, queries, width);
      matrix(`${name}k_proj`, keys, width);
      matrix(`${name}v_proj`, keys, width);
    }
    matrix(`${name}o_proj`, width, queries);
    if (c.attention_bias || c.model_type === 'qwen2') {
      vector(`${name}q_proj.bias`, queries, 0, 1);
      vector(`${name}k_proj.bias`, keys, 0, 1);
      vector(`${name}v_proj.bias`, keys, 0, 1);
    }
    if (c.attention_bias) vector(`${name}o_proj.bias`, width, 0, 0.5);
    if (olmo) {
      norm(`${name}q_norm`, queries);
      norm(`${name}k_norm`, keys);
    } else if (c.model_type.startsWith('qwen3') || c.model_type === 'gemma3_text') {
      norm(`${name}q_norm`, headDim);
      norm(`${name}k_norm`, headDim);
    }
  }

  function dense(name: string): void {
    const size = c.intermediate_size;
    if (c.model_type === 'phi3') matrix(`${name}gate_up_proj`, 2 * size, width);
    else {
      matrix(`${name}gate_proj`, size, width);
      matrix(`${name}up_proj`, size, width);
    }
    matrix(`${name}down_proj`, width, size);
    if (!c.mlp_bias) return;
    vector(`${name}gate_proj.bias`, size, 0, 1);
    vector(`${name}up_proj.bias`, size, 0, 1);
    vector(`${name}down_proj.bias`, width, 0, 0.5);
  }

  /** [experts, rows, columns] tensors, and an expert that all tokens share. */
  function graniteFfn(name: string): void {
    const stack = (part: string, rows: number, columns: number) => {
      matrix(part, c.num_local_experts * rows, columns);
      const { values } = tensors.get(`${part}.weight`)!;
      tensors.set(`${part}.weight`, { shape: [c.num_local_experts, rows, columns], values });
    };
    if (c.shared_intermediate_size > 0) {
      matrix(`${name}shared_mlp.input_linear`, 2 * c.shared_intermediate_size, width);
      matrix(`${name}shared_mlp.output_linear`, width, c.shared_intermediate_size);
    }
    if (!c.num_local_experts) return;
    matrix(`${name}block_sparse_moe.router.layer`, c.num_local_experts, width);
    stack(`${name}block_sparse_moe.input_linear`, 2 * c.intermediate_size, width);
    stack(`${name}block_sparse_moe.output_linear`, width, c.intermediate_size);
  }

  function experts(name: string): void {
    const mixtral = c.model_type === 'mixtral';
    const part = `${name}${mixtral ? 'block_sparse_moe' : 'mlp'}.`;
    const size = mixtral ? c.intermediate_size : c.moe_intermediate_size;
    const count = c.num_local_experts ?? c.num_experts;
    matrix(`${part}gate`, count, width);
    for (let expert = 0; expert < count; expert++) {
      matrix(`${part}experts.${expert}.${mixtral ? 'w1' : 'gate_proj'}`, size, width);
      matrix(`${part}experts.${expert}.${mixtral ? 'w3' : 'up_proj'}`, size, width);
      matrix(`${part}experts.${expert}.${mixtral ? 'w2' : 'down_proj'}`, width, size);
    }
  }
}

function hasExperts(c: Config, layer: number): boolean {
  if (c.model_type === 'mixtral') return true;
  if (c.model_type !== 'qwen3_moe') return false;
  return !(c.mlp_only_layers ?? []).includes(layer) && (layer + 1) % (c.decoder_sparse_step ?? 1) === 0;
}

/** Tensors of a mixtral or qwen3_moe with the experts of a layer stacked, as transformers 5 has them in memory. */
export function stacked(c: Config, tensors: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const out = new Map<string, Tensor>();
  const parts = new Map<string, Tensor[]>();
  for (const [name, tensor] of tensors) {
    const found = /^(.*)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight$/.exec(name);
    if (!found) {
      out.set(name.replace('block_sparse_moe.gate', 'mlp.gate'), tensor);
      continue;
    }
    const [, layer, , matrix] = found;
    const into = matrix === 'w2' || matrix === 'down_proj' ? 'down_proj' : 'gate_up_proj';
    const key = `${layer}.mlp.experts.${into}`;
    parts.set(key, [...(parts.get(key) ?? []), tensor]);
  }
  const experts = c.num_local_experts ?? c.num_experts;
  for (const [name, list] of parts) {
    const values = Float32Array.from(list.flatMap(tensor => [...tensor.values]));
    const columns = list[0]!.shape[1]!;
    out.set(name, { shape: [experts, values.length / columns / experts, columns], values });
  }
  return out;
}

/** Writes random tensors as a checkpoint; of a model that also sees only its part for text, under the prefix that it has. */
export async function writeRandomCheckpoint(folder: string, config: Config): Promise<Map<string, Tensor>> {
  const tensors = randomTensors(config.text_config ?? config);
  const prefix = config.text_config ? 'language_model.' : '';
  const stored = new Map([...tensors].map(([name, tensor]) => [prefix + name, tensor]));
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await writeFile(join(folder, 'model.safetensors'), safetensorsBytes(stored, 'BF16'));
  return tensors;
}
