import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { type Dtype, safetensorsBytes } from './small-checkpoint.ts';

const values = Float32Array.from([0.5, -1, 2, 3, -4.25, 5]);
const tensors = new Map([
  ['m', { shape: [3, 2], values }],
  ['v', { shape: [6], values }],
]);

async function folderWith(files: Record<string, string | Uint8Array>): Promise<string> {
  const folder = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) await fs.writeFile(join(folder, name), content);
  return folder;
}

test.each<Dtype>(['BF16', 'F16', 'F32'])('reads rows of %s', async dtype => {
  const checkpoint = await openCheckpoint(
    fs,
    await folderWith({ 'config.json': '{}', 'model.safetensors': safetensorsBytes(tensors, dtype) }),
  );
  const rows = await checkpoint.readRows('m', 1, 2);
  const target = new Float32Array(4).fill(9);
  rows.copy(1, 0, 2, target);
  expect([...target]).toEqual([-4.25, 5, 9, 9]);
  rows.copy(0, 1, 1, target.subarray(2));
  expect([...target]).toEqual([-4.25, 5, 3, 9]);
  const vector = new Float32Array(7);
  (await checkpoint.readRows('v', 0, 1)).copy(0, 0, 6, vector);
  expect([...vector]).toEqual([...values, 0]);
  expect(() => rows.copy(0, 1, 2, target)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  await expect(checkpoint.readRows('m', 2, 2)).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(checkpoint.readRows('x', 0, 1)).rejects.toMatchObject({ code: 'CHECKPOINT_INVALID' });
  checkpoint.expect('m', [3, 2]);
  expect(() => checkpoint.expect('m', [2, 3])).toThrow(
    expect.objectContaining({ code: 'CHECKPOINT_INVALID' }),
  );
  await checkpoint.close();
});

test('a file that was cut after it was opened is a read error', async () => {
  const folder = await folderWith({
    'config.json': '{}',
    'model.safetensors': safetensorsBytes(tensors, 'F32'),
  });
  const checkpoint = await openCheckpoint(fs, folder);
  await fs.truncate(join(folder, 'model.safetensors'), 150);
  await expect(checkpoint.readRows('v', 0, 1)).rejects.toMatchObject({ code: 'DISK_READ' });
  await checkpoint.close();
});

const shard = safetensorsBytes(tensors, 'F32');
test.each<[string, Record<string, string | Uint8Array>, string]>([
  ['no config', {}, 'PACK_NOT_FOUND'],
  ['a broken config', { 'config.json': '{' }, 'CHECKPOINT_INVALID'],
  ['no weights', { 'config.json': '{}' }, 'CHECKPOINT_INVALID'],
  ['a pickle', { 'config.json': '{}', 'pytorch_model.bin': 'x' }, 'UNSUPPORTED_MODEL'],
  ['an empty file', { 'config.json': '{}', 'model.safetensors': '' }, 'CHECKPOINT_INVALID'],
  [
    'a truncated file',
    { 'config.json': '{}', 'model.safetensors': shard.subarray(0, -1) },
    'CHECKPOINT_INVALID',
  ],
  [
    'a shard that is missing',
    { 'config.json': '{}', 'model.safetensors.index.json': '{"weight_map":{"m":"a.safetensors"}}' },
    'CHECKPOINT_INVALID',
  ],
  [
    'a shard without the tensor',
    {
      'config.json': '{}',
      'a.safetensors': shard,
      'model.safetensors.index.json': '{"weight_map":{"z":"a.safetensors"}}',
    },
    'CHECKPOINT_INVALID',
  ],
  [
    'a shard in another folder',
    { 'config.json': '{}', 'model.safetensors.index.json': '{"weight_map":{"m":"../a.safetensors"}}' },
    'CHECKPOINT_INVALID',
  ],
  [
    'a hidden shard',
    { 'config.json': '{}', 'model.safetensors.index.json': '{"weight_map":{"m":"..safetensors"}}' },
    'CHECKPOINT_INVALID',
  ],
  [
    'an index that says it twice',
    {
      'config.json': '{}',
      'a.safetensors': shard,
      'model.safetensors.index.json': '{"weight_map":{"m":"a.safetensors","m":"a.safetensors"}}',
    },
    'CHECKPOINT_INVALID',
  ],
  [
    'an index of no index',
    { 'config.json': '{}', 'model.safetensors.index.json': '[]' },
    'CHECKPOINT_INVALID',
  ],
])('refuses a folder with %s', async (_what, files, code) => {
  await expect(openCheckpoint(fs, await folderWith(files))).rejects.toMatchObject({ code });
});

test('every opened file is closed when opening fails', async () => {
  const folder = await folderWith({
    'config.json': '{}',
    'a.safetensors': shard,
    'b.safetensors': 'short',
    'model.safetensors.index.json': '{"weight_map":{"m":"a.safetensors","v":"b.safetensors"}}',
  });
  let open = 0;
  const counting = {
    ...fs,
    open: async (path: string, flags: string) => {
      const file = await fs.open(path, flags);
      open++;
      const close = file.close.bind(file);
      file.close = () => {
        open--;
        return close();
      };
      return file;
    },
  };
  await expect(openCheckpoint(counting, folder)).rejects.toMatchObject({ code: 'CHECKPOINT_INVALID' });
  expect(open).toBe(0);
});
