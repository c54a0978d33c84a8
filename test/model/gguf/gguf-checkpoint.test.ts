import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { buildPack } from '../../../src/model/build-pack.ts';
import { openCheckpoint } from '../../../src/model/checkpoint.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';
import { plainBackend } from '../plain-backend.ts';
import { SMALL, smallTensors, writeCheckpoint } from '../small-checkpoint.ts';
import { type FileTensor, f32, f32Tensor, ggufBytes, interleaved, u32, type Value } from './gguf-file.ts';
import { smallGguf, smallMetadata } from './small-gguf.ts';

async function written(bytes: Uint8Array): Promise<string> {
  const path = join(await temporaryFolder(), 'model.gguf');
  await fs.writeFile(path, bytes);
  return path;
}

test('a GGUF file gives the pack that the safetensors folder of the same numbers gives', async () => {
  const folder = await temporaryFolder();
  // float32 of the metadata is not the 1e-5 of JSON.
  const config = { ...SMALL, rms_norm_eps: Math.fround(1e-5) };
  await writeCheckpoint(join(folder, 'safetensors'), config, 'F32');
  await fs.writeFile(join(folder, 'model.gguf'), smallGguf(config, smallTensors(config)));
  const build = async (checkpoint: string, target: string) => {
    const tokens = [5, 9, 14, 3, 8, 22, 17, 30, 41, 6, 11, 19];
    const options = { fileSystem: fs, crc32c, backend: plainBackend(), calibrationTokens: tokens };
    return buildPack({
      checkpoint: join(folder, checkpoint),
      target: join(folder, target),
      name: 'x',
      weights: 'bf16',
      ...options,
    });
  };
  const expected = await build('safetensors', 'a');
  expect(await build('model.gguf', 'b')).toEqual(expected);
  expect(await fs.readFile(join(folder, 'b/tiles.bin'))).toEqual(
    await fs.readFile(join(folder, 'a/tiles.bin')),
  );
});

test('rows of interleaved heads come in the order of Hugging Face, whichever part is read', async () => {
  const tensors = smallTensors(SMALL);
  const checkpoint = await openCheckpoint(fs, await written(smallGguf(SMALL, tensors)));
  const name = 'model.layers.1.self_attn.q_proj.weight';
  const { values } = tensors.get(name)!;
  for (const [first, count] of [
    [0, 40],
    [7, 1],
    [9, 5],
    [10, 10],
    [33, 7],
  ] as const) {
    const rows = await checkpoint.readRows(name, first, count);
    const row = new Float32Array(SMALL.hidden_size);
    for (let i = 0; i < count; i++) {
      rows.copy(i, 0, row.length, row);
      expect(row).toEqual(values.slice((first + i) * row.length, (first + i + 1) * row.length));
    }
  }
  await expect(checkpoint.readRows(name, 39, 2)).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(checkpoint.readRows('x', 0, 1)).rejects.toMatchObject({ code: 'CHECKPOINT_INVALID' });
  expect(() => checkpoint.expect(name, [40, 47])).toThrow(
    expect.objectContaining({ code: 'CHECKPOINT_INVALID' }),
  );
  checkpoint.expect(name, [40, 48]);
  await checkpoint.close();
});

test('biases of queries are in that order, too', async () => {
  const bias = Float32Array.from({ length: 40 }, (_, i) => i);
  const metadata = smallMetadata(SMALL);
  const path = await written(
    ggufBytes(metadata, {
      'token_embd.weight': f32Tensor([2, 48], new Float32Array(96)),
      'blk.0.attn_q.bias': f32Tensor([40], interleaved(bias, 4, 1)),
    }),
  );
  const checkpoint = await openCheckpoint(fs, path);
  expect(checkpoint.config).toMatchObject({ attention_bias: true, tie_word_embeddings: true, vocab_size: 2 });
  const got = new Float32Array(40);
  (await checkpoint.readRows('model.layers.0.self_attn.q_proj.bias', 0, 1)).copy(0, 0, 40, got);
  expect(got).toEqual(bias);
  await checkpoint.close();
});

test.each(['gate', 'up', 'down'])('biases of the FFN are asked for where %s has one', async part => {
  const bias = f32Tensor([48], new Float32Array(48));
  for (const architecture of ['llama', 'granite', 'smollm3']) {
    const checkpoint = await openFamily(architecture, {}, { [`blk.0.ffn_${part}.bias`]: bias });
    expect(checkpoint.config).toMatchObject({ mlp_bias: true, attention_bias: false });
    expect(checkpoint.has(`model.layers.0.mlp.${part}_proj.bias`)).toBe(true);
    await checkpoint.close();
  }
  const without = await openFamily('llama', {});
  expect(without.config).toMatchObject({ mlp_bias: false });
  await without.close();
});

/** Opens a file of an architecture with a tiny embedding; `more` with `{a}` for the architecture in keys. */
async function openFamily(
  architecture: string,
  more: Readonly<Record<string, Value>>,
  tensors: Readonly<Record<string, FileTensor>> = {},
) {
  const metadata: Record<string, Value> = {
    'general.architecture': architecture,
    '{a}.block_count': u32(4),
    '{a}.context_length': u32(128),
    '{a}.embedding_length': u32(32),
    '{a}.feed_forward_length': u32(48),
    '{a}.attention.head_count': u32(4),
    '{a}.attention.head_count_kv': u32(2),
    '{a}.attention.layer_norm_rms_epsilon': f32(0.5),
    ...more,
  };
  const named = Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [key.replace('{a}', architecture), value]),
  );
  return openCheckpoint(
    fs,
    await written(
      ggufBytes(named, { 'token_embd.weight': f32Tensor([3, 32], new Float32Array(96)), ...tensors }),
    ),
  );
}

test.each<[string, Record<string, Value>, object]>([
  ['llama', { '{a}.rope.dimension_count': u32(8) }, { model_type: 'llama', head_dim: 8, rope_theta: 10000 }],
  [
    'llama',
    { '{a}.expert_count': u32(8), '{a}.expert_used_count': u32(2) },
    {
      architectures: ['MixtralForCausalLM'],
      model_type: 'mixtral',
      num_local_experts: 8,
      num_experts_per_tok: 2,
    },
  ],
  ['qwen2', { '{a}.rope.freq_base': f32(1e6) }, { model_type: 'qwen2', rope_theta: 1e6, head_dim: 8 }],
  ['qwen3', { '{a}.attention.key_length': u32(16) }, { model_type: 'qwen3', head_dim: 16 }],
  [
    'qwen3moe',
    {
      '{a}.expert_count': u32(8),
      '{a}.expert_used_count': u32(2),
      '{a}.expert_feed_forward_length': u32(24),
    },
    {
      model_type: 'qwen3_moe',
      num_experts: 8,
      num_experts_per_tok: 2,
      moe_intermediate_size: 24,
      norm_topk_prob: true,
    },
  ],
  [
    'gemma2',
    {
      '{a}.attention.key_length': u32(16),
      '{a}.attention.sliding_window': u32(64),
      '{a}.attn_logit_softcapping': f32(50),
      '{a}.final_logit_softcapping': f32(30),
    },
    {
      model_type: 'gemma2',
      hidden_activation: 'gelu_pytorch_tanh',
      sliding_window: 64,
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      query_pre_attn_scalar: 16,
      layer_types: ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'],
    },
  ],
  [
    'gemma3',
    {
      '{a}.block_count': u32(62),
      '{a}.attention.key_length': u32(16),
      '{a}.rope.scaling.type': 'linear',
      '{a}.rope.scaling.factor': f32(8),
    },
    {
      model_type: 'gemma3_text',
      query_pre_attn_scalar: 8,
      rope_theta: 1e6,
      rope_local_base_freq: 10000,
      rope_scaling: { rope_type: 'linear', factor: 8 },
    },
  ],
  [
    'phi3',
    {
      '{a}.rope.dimension_count': u32(6),
      '{a}.rope.scaling.original_context_length': u32(32),
      '{a}.attention.sliding_window': u32(0),
    },
    {
      model_type: 'phi3',
      partial_rotary_factor: 0.75,
      original_max_position_embeddings: 32,
      sliding_window: null,
    },
  ],
  ['olmo2', {}, { model_type: 'olmo2' }],
  [
    'olmo2',
    { '{a}.block_count': u32(5), '{a}.attention.sliding_window': u32(64) },
    {
      architectures: ['Olmo3ForCausalLM'],
      model_type: 'olmo3',
      sliding_window: 64,
      layer_types: [1, 1, 1, 0, 1].map(slides => (slides ? 'sliding_attention' : 'full_attention')),
    },
  ],
  [
    'olmo2',
    {
      '{a}.attention.sliding_window': u32(64),
      '{a}.attention.sliding_window_pattern': { bools: [false, true, true, false] },
      '{a}.rope.scaling.type': 'yarn',
      '{a}.rope.scaling.factor': f32(8),
      '{a}.rope.scaling.original_context_length': u32(16),
    },
    {
      model_type: 'olmo3',
      layer_types: [0, 1, 1, 0].map(slides => (slides ? 'sliding_attention' : 'full_attention')),
      rope_scaling: { rope_type: 'yarn', factor: 8, original_max_position_embeddings: 16 },
    },
  ],
  [
    'granite',
    {
      '{a}.attention.scale': f32(0.25),
      '{a}.embedding_scale': f32(12),
      '{a}.residual_scale': f32(0.5),
      '{a}.logit_scale': f32(8),
    },
    {
      model_type: 'granite',
      attention_multiplier: 0.25,
      embedding_multiplier: 12,
      residual_multiplier: 0.5,
      logits_scaling: 8,
    },
  ],
  ['smollm3', {}, { model_type: 'smollm3', no_rope_layer_interval: 4 }],
  [
    'qwen2',
    {
      '{a}.rope.scaling.type': 'yarn',
      '{a}.rope.scaling.factor': f32(4),
      '{a}.rope.scaling.original_context_length': u32(32),
    },
    { rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32 } },
  ],
])('config of %s %#', async (architecture, more, expected) => {
  const checkpoint = await openFamily(architecture, more);
  expect(checkpoint.config).toMatchObject({
    hidden_size: 32,
    intermediate_size: 48,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 128,
    rms_norm_eps: 0.5,
    ...expected,
  });
  await checkpoint.close();
});

test("factors of frequencies: Llama's rule where it fits, else as they are; short and long ones", async () => {
  // theta 10000, 8 dimensions: wavelengths 2 pi, 62.8, 628, 6283. Context 512: under 128 as it is, over 512 times 8.
  const factors = [1, 1, 8, 8];
  const llama = await openFamily('llama', {}, { 'rope_freqs.weight': f32Tensor([4], factors) });
  expect(llama.config).toMatchObject({
    rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
  });
  const odd = await openFamily('llama', {}, { 'rope_freqs.weight': f32Tensor([4], [1, 3, 2, 8]) });
  expect(odd.config).toMatchObject({
    rope_scaling: {
      rope_type: 'longrope',
      long_factor: [1, 3, 2, 8],
      short_factor: [1, 3, 2, 8],
      attention_factor: 1,
    },
  });
  const phi = await openFamily(
    'phi3',
    { '{a}.rope.scaling.original_context_length': u32(32) },
    {
      'rope_factors_short.weight': f32Tensor([4], [1, 1, 2, 2]),
      'rope_factors_long.weight': f32Tensor([4], [1, 2, 3, 4]),
    },
  );
  expect(phi.config).toMatchObject({
    rope_scaling: {
      rope_type: 'longrope',
      short_factor: [1, 1, 2, 2],
      long_factor: [1, 2, 3, 4],
      original_max_position_embeddings: 32,
    },
  });
  for (const checkpoint of [llama, odd, phi]) await checkpoint.close();
});

test('experts are parts of one tensor; norms of Gemma lose the 1 that was added', async () => {
  const values = Float32Array.from({ length: 3 * 2 * 32 }, (_, i) => i);
  const moe = await openFamily(
    'qwen3moe',
    { '{a}.expert_count': u32(3), '{a}.expert_used_count': u32(1), '{a}.expert_feed_forward_length': u32(2) },
    { 'blk.0.ffn_up_exps.weight': f32Tensor([3, 2, 32], values) },
  );
  const row = new Float32Array(32);
  (await moe.readRows('model.layers.0.mlp.experts.2.up_proj.weight', 1, 1)).copy(0, 0, 32, row);
  expect(row).toEqual(values.slice(160));
  moe.expect('model.layers.0.mlp.experts.2.up_proj.weight', [2, 32]);
  expect(moe.has('model.layers.0.mlp.experts.3.up_proj.weight')).toBe(false);
  const gemma = await openFamily(
    'gemma2',
    { '{a}.attention.key_length': u32(8) },
    {
      'blk.0.ffn_norm.weight': f32Tensor([32], Array(32).fill(1.25)),
      'blk.0.post_attention_norm.weight': f32Tensor([32], Array(32).fill(0.5)),
    },
  );
  (await gemma.readRows('model.layers.0.pre_feedforward_layernorm.weight', 0, 1)).copy(0, 0, 32, row);
  expect(row).toEqual(new Float32Array(32).fill(0.25));
  (await gemma.readRows('model.layers.0.post_attention_layernorm.weight', 0, 1)).copy(0, 0, 32, row);
  expect(row).toEqual(new Float32Array(32).fill(-0.5));
  for (const checkpoint of [moe, gemma]) await checkpoint.close();
});

test.each<[string, string, Record<string, Value>, string]>([
  ['an unknown architecture', 'mamba', {}, 'UNSUPPORTED_MODEL'],
  ['a part of a split model', 'llama', { 'split.count': u32(2) }, 'UNSUPPORTED_MODEL'],
  ['layers that differ', 'llama', { '{a}.feed_forward_length': { i32s: [48, 64] } }, 'UNSUPPORTED_MODEL'],
  [
    'an unknown scaling of positions',
    'llama',
    { '{a}.rope.scaling.type': 'odd', '{a}.rope.scaling.factor': u32(2) },
    'UNSUPPORTED_MODEL',
  ],
  ['a text for a number', 'llama', { '{a}.context_length': 'long' }, 'CHECKPOINT_INVALID'],
  [
    'a million layers',
    'gemma2',
    { '{a}.block_count': u32(1e6), '{a}.attention.key_length': u32(8) },
    'CHECKPOINT_INVALID',
  ],
])('refuses %s', async (_, architecture, more, code) => {
  await expect(openFamily(architecture, more)).rejects.toMatchObject({ code });
});

test('refuses a tensor of endless experts without bytes', async () => {
  const tensor = { type: 0, shape: [2 ** 40, 0, 32], bytes: new Uint8Array(0) };
  await expect(openFamily('qwen3moe', {}, { 'blk.0.ffn_up_exps.weight': tensor })).rejects.toMatchObject({
    code: 'CHECKPOINT_INVALID',
  });
});

test('numbers of a type that cannot be read are refused when they are asked for', async () => {
  const bytes = new Uint8Array(18);
  const checkpoint = await openFamily(
    'llama',
    {},
    { 'blk.0.ffn_up.weight': { type: 20, shape: [1, 32], bytes } },
  );
  await expect(checkpoint.readRows('model.layers.0.mlp.up_proj.weight', 0, 1)).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
    message: expect.stringContaining('IQ4_NL'),
  });
  await checkpoint.close();
});
