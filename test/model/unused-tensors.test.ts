import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findArchitecture } from '../../src/model/architectures.ts';
import { buildPack } from '../../src/model/build-pack.ts';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { withoutPrefix } from '../../src/model/prefixed-checkpoint.ts';
import { refuseUnused } from '../../src/model/unused-tensors.ts';
import { crc32c } from '../pack/crc32c-table.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { f32Tensor } from './gguf/gguf-file.ts';
import { smallGguf } from './gguf/small-gguf.ts';
import { plainBackend } from './plain-backend.ts';
import { SMALL, safetensorsBytes, smallTensors, type Tensor } from './small-checkpoint.ts';

const filled = (value: number, ...shape: number[]): Tensor => ({
  shape,
  values: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
});

async function written(config: object, tensors: ReadonlyMap<string, Tensor>): Promise<string> {
  const folder = await temporaryFolder();
  await fs.writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await fs.writeFile(join(folder, 'model.safetensors'), safetensorsBytes(tensors, 'F32'));
  return folder;
}

async function check(path: string): Promise<void> {
  const opened = await openCheckpoint(fs, path);
  try {
    const architecture = findArchitecture(opened.config, path);
    const checkpoint = withoutPrefix(opened, architecture);
    await refuseUnused(checkpoint, architecture, architecture.readConfig(opened.config, path));
  } finally {
    await opened.close();
  }
}

const further = async (more: Record<string, Tensor>, config = SMALL): Promise<void> =>
  check(await written(config, new Map([...smallTensors(config), ...Object.entries(more)])));

test.each([
  ['a bias', 'model.layers.1.self_attn.q_proj.bias', filled(1, 40)],
  ['a norm', 'model.layers.0.self_attn.q_norm.weight', filled(2, 10)],
  ['sinks', 'model.layers.0.self_attn.sinks', filled(1, 4)],
  ['an adapter', 'model.layers.1.self_attn.q_proj.lora_A.weight', filled(0, 4, 48)],
  ['a bias of the head', 'lm_head.bias', filled(1, 50)],
  ['a bias of the last norm', 'model.norm.bias', filled(1, 48)],
])('%s that the family has no place for is refused by name', async (_, name, tensor) => {
  await expect(further({ [name]: tensor })).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
    message: expect.stringContaining(`${name}, which a LlamaForCausalLM`),
  });
});

test('tables, biases of zeros, further layers and other parts may be there', async () => {
  await further({
    'model.layers.0.self_attn.rotary_emb.inv_freq': filled(1, 5),
    'model.rotary_emb.inv_freq': filled(1, 5),
    'model.layers.1.mlp.down_proj.bias': filled(0, 48),
    'model.layers.2.self_attn.q_norm.weight': filled(1, 10),
    'vision_tower.patch_embedding.weight': filled(1, 2, 2),
    'mtp.fc.weight': filled(1, 2, 2),
  });
});

test.each(['language_model.model.', 'model.language_model.'])(
  'of a model that also sees, only the part at %s counts',
  async prefix => {
    const text = { ...SMALL, model_type: 'gemma3_text', num_hidden_layers: 1 };
    const config = { model_type: 'gemma3', text_config: text };
    const tensors = new Map([
      [`${prefix}embed_tokens.weight`, filled(1, 50, 48)],
      [`${prefix}norm.weight`, filled(1, 48)],
      ['model.vision_tower.layers.0.self_attn.q_proj.bias', filled(1, 4)],
      ['vision_tower.layers.0.self_attn.q_proj.bias', filled(1, 4)],
    ]);
    await check(await written(config, tensors));
    tensors.set(`${prefix}layers.0.self_attn.q_proj.bias`, filled(1, 40));
    await expect(check(await written(config, tensors))).rejects.toMatchObject({
      message: expect.stringContaining('the tensor model.layers.0.self_attn.q_proj.bias'),
    });
  },
);

test('so is one of a GGUF file, and such of no layer may be there', async () => {
  const path = join(await temporaryFolder(), 'model.gguf');
  const tables = { 'rope_freqs.weight': f32Tensor([5], Array(5).fill(1)) };
  await fs.writeFile(path, smallGguf(SMALL, smallTensors(SMALL), {}, f32Tensor, tables));
  await check(path);
  const sinks = { 'blk.1.attn_sinks.weight': f32Tensor([4], Array(4).fill(1)) };
  await fs.writeFile(path, smallGguf(SMALL, smallTensors(SMALL), {}, f32Tensor, sinks));
  await expect(check(path)).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
    message: expect.stringContaining('model.layers.1.attn_sinks.weight'),
  });
});

async function packed(config: object, tensors: ReadonlyMap<string, Tensor>) {
  const folder = await temporaryFolder();
  return buildPack({
    checkpoint: await written(config, tensors),
    target: join(folder, 'pack'),
    name: 'small',
    weights: 'bf16',
    fileSystem: fs,
    crc32c,
    backend: plainBackend(),
  });
}

test('a head with numbers of its own is not tied to the embedding, whatever the config says', async () => {
  const untied = smallTensors(SMALL);
  const own = await packed(SMALL, untied);
  expect((await packed({ ...SMALL, tie_word_embeddings: true }, untied)).tiles).toEqual(own.tiles);
  const tied = smallTensors({ ...SMALL, tie_word_embeddings: true });
  const alone = await packed({ ...SMALL, tie_word_embeddings: true }, tied);
  const both = new Map([...tied, ['lm_head.weight', tied.get('model.embed_tokens.weight')!]]);
  expect((await packed({ ...SMALL, tie_word_embeddings: true }, both)).tiles).toEqual(alone.tiles);
  expect(alone.tiles).not.toEqual(own.tiles);
});

test('a pack is not begun where a tensor has no place', async () => {
  const tensors = new Map([
    ...smallTensors(SMALL),
    ['model.layers.0.mlp.up_proj.bias', filled(1, 72)] as const,
  ]);
  await expect(packed(SMALL, tensors)).rejects.toMatchObject({ code: 'UNSUPPORTED_MODEL' });
});
