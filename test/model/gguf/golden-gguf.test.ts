import { existsSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findArchitecture } from '../../../src/model/architectures.ts';
import { openCheckpoint } from '../../../src/model/checkpoint.ts';
import { Safetensors } from '../../../src/model/safetensors.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';
import { sharedPath } from '../shared-files.ts';
import { type FileTensor, f32, f32Tensor, ggufBytes, interleaved, u32, type Value } from './gguf-file.ts';

/** config.json of a golden model, as far as it is needed here. */
interface Config {
  readonly model_type: string;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly rope_parameters: {
    readonly rope_theta?: number;
    readonly factor?: number;
    readonly original_max_position_embeddings?: number;
  };
  readonly num_experts_per_tok?: number;
  readonly num_local_experts?: number;
  readonly moe_intermediate_size?: number;
  readonly sliding_window?: number | null;
  readonly bos_token_id: number;
  readonly eos_token_id: number;
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  llama: 'llama',
  qwen2: 'qwen2',
  qwen3: 'qwen3',
  qwen3_moe: 'qwen3moe',
  gemma3_text: 'gemma3',
  phi3: 'phi3',
};

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens\./, 'token_embd.'],
  [/^model\.norm\./, 'output_norm.'],
  [/^lm_head\./, 'output.'],
  [/^model\.layers\.(\d+)\./, 'blk.$1.'],
  [/input_layernorm/, 'attn_norm'],
  [/pre_feedforward_layernorm/, 'ffn_norm'],
  [/post_feedforward_layernorm/, 'post_ffw_norm'],
  [/self_attn\.([qkv])_proj/, 'attn_$1'],
  [/self_attn\.qkv_proj/, 'attn_qkv'],
  [/self_attn\.o_proj/, 'attn_output'],
  [/self_attn\.([qk])_norm/, 'attn_$1_norm'],
  [/mlp\.gate_up_proj/, 'ffn_up'],
  [/mlp\.experts\.\d+\.(\w+)_proj/, 'ffn_$1_exps'],
  [/mlp\.(gate|up|down)_proj/, 'ffn_$1'],
  [/mlp\.gate\./, 'ffn_gate_inp.'],
];

/** The tensors of a folder as llama.cpp's converter would write them. */
async function convertedTensors(file: Safetensors, c: Config): Promise<Record<string, FileTensor>> {
  const tensors: Record<string, FileTensor> = {};
  const experts = new Map<string, Float32Array[]>();
  const gemma = c.model_type === 'gemma3_text';
  for (const [name, { shape }] of file.tensors) {
    const columns = shape.at(-1)!;
    const rows = shape.length < 2 ? 1 : shape[0]!;
    const read = await file.readRows(name, 0, rows);
    let values: Float32Array = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++)
      read.copy(row, 0, columns, values.subarray(row * columns, (row + 1) * columns));
    const after = gemma ? 'post_attention_norm' : 'ffn_norm';
    const target = [...NAMES, [/post_attention_layernorm/, after] as const].reduce(
      (text, [from, to]) => text.replace(from, to),
      name,
    );
    if (gemma && name.endsWith('norm.weight')) values = values.map(value => value + 1);
    if (c.model_type === 'llama' && name.includes('q_proj'))
      values = interleaved(values, c.num_attention_heads, columns);
    if (c.model_type === 'llama' && name.includes('k_proj'))
      values = interleaved(values, c.num_key_value_heads, columns);
    if (target.includes('_exps')) {
      const parts = experts.get(target) ?? [];
      parts[Number(/experts\.(\d+)/.exec(name)![1])] = values;
      experts.set(target, parts);
      tensors[target] = f32Tensor(
        [parts.length, ...shape],
        parts.flatMap(part => [...part]),
      );
    } else {
      tensors[target] = f32Tensor(shape, values);
    }
  }
  return tensors;
}

function metadataOf(c: Config): Record<string, Value> {
  const a = ARCHITECTURES[c.model_type]!;
  return {
    'general.architecture': a,
    [`${a}.block_count`]: u32(c.num_hidden_layers),
    [`${a}.context_length`]: u32(c.max_position_embeddings),
    [`${a}.embedding_length`]: u32(c.hidden_size),
    [`${a}.feed_forward_length`]: u32(c.intermediate_size),
    [`${a}.attention.head_count`]: u32(c.num_attention_heads),
    [`${a}.attention.head_count_kv`]: u32(c.num_key_value_heads),
    [`${a}.attention.key_length`]: u32(c.head_dim),
    [`${a}.attention.layer_norm_rms_epsilon`]: f32(c.rms_norm_eps),
    [`${a}.rope.freq_base`]: f32(c.rope_parameters.rope_theta ?? 1e6),
    'tokenizer.ggml.bos_token_id': u32(c.bos_token_id),
    'tokenizer.ggml.eos_token_id': u32(c.eos_token_id),
    ...(c.sliding_window == null ? {} : { [`${a}.attention.sliding_window`]: u32(c.sliding_window) }),
    ...(c.num_local_experts === undefined
      ? {}
      : {
          [`${a}.expert_count`]: u32(c.num_local_experts),
          [`${a}.expert_used_count`]: u32(c.num_experts_per_tok!),
          [`${a}.expert_feed_forward_length`]: u32(c.moe_intermediate_size!),
        }),
  };
}

/** Llama 3's divisors of the frequencies, as the converter computes them. */
function ropeFactors(c: Config): Record<string, FileTensor> {
  const { factor, original_max_position_embeddings: context, rope_theta: theta } = c.rope_parameters;
  if (factor === undefined) return {};
  const factors = Array.from({ length: c.head_dim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta! ** ((2 * i) / c.head_dim);
    if (wavelength < context! / 4) return 1;
    if (wavelength > context!) return factor;
    const smooth = (context! / wavelength - 1) / 3;
    return 1 / ((1 - smooth) / factor + smooth);
  });
  return { 'rope_freqs.weight': f32Tensor([factors.length], factors) };
}

test.for([
  'llama-gqa',
  'llama3-rope',
  'qwen2-bias',
  'qwen3-qknorm',
  'qwen3-moe',
  'gemma3-text',
  'phi3-fused',
])('%s as a GGUF file: the same model by its architecture, and the same numbers', async (name, ctx) => {
  const folder = sharedPath(`golden/${name}`);
  if (!existsSync(folder)) {
    console.warn(`skipped "${ctx.task.name}": ${folder} is absent`);
    ctx.skip();
  }
  const c = JSON.parse(await fs.readFile(join(folder, 'config.json'), 'utf8')) as Config;
  const file = await Safetensors.open(fs, join(folder, 'model.safetensors'));
  const path = join(await temporaryFolder(), 'model.gguf');
  await fs.writeFile(
    path,
    ggufBytes(metadataOf(c), { ...(await convertedTensors(file, c)), ...ropeFactors(c) }),
  );
  const checkpoint = await openCheckpoint(fs, path);
  const read = (config: unknown) => findArchitecture(config, 'x').readConfig(config, 'x');
  const [got, expected] = [
    read(checkpoint.config),
    read({ ...c, rms_norm_eps: Math.fround(c.rms_norm_eps) }),
  ];
  const near = (values: readonly number[]) => values.map(value => Number(value.toPrecision(6)));
  const comparable = ({ shape, ...rest }: typeof got) => ({
    ...rest,
    shape: {
      ...shape,
      rotations: shape.rotations.map(one => ({ ...one, frequencies: near(one.frequencies) })),
    },
  });
  expect(comparable(got)).toEqual(comparable(expected));
  for (const [tensor, { shape }] of file.tensors) {
    const rows = shape.length < 2 ? 1 : shape[0]!;
    checkpoint.expect(tensor, shape);
    const [a, b] = [await file.readRows(tensor, 0, rows), await checkpoint.readRows(tensor, 0, rows)];
    const [x, y] = [new Float32Array(shape.at(-1)!), new Float32Array(shape.at(-1)!)];
    for (let row = 0; row < rows; row++) {
      a.copy(row, 0, x.length, x);
      b.copy(row, 0, y.length, y);
      expect(y).toEqual(x);
    }
  }
  await checkpoint.close();
  await file.close();
});
