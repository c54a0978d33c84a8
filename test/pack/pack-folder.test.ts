import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openPackFolder } from '../../src/pack/pack-folder.ts';
import { embeddingFaults } from './embedding-faults.ts';
import { writeSmallPack } from './small-pack.ts';
import { temporaryFolder } from './temporary-folder.ts';

async function smallPack(): Promise<string> {
  const folder = join(await temporaryFolder(), 'pack');
  await writeSmallPack(folder);
  return folder;
}

async function flip(path: string, at: number): Promise<void> {
  const bytes = await fs.readFile(path);
  bytes[at]! ^= 1;
  await fs.writeFile(path, bytes);
}

test('opens what was written', async () => {
  const pack = await openPackFolder(fs, await smallPack());
  expect(new Float32Array(pack.constants).every(value => value === 0.5)).toBe(true);
  expect(pack.id).toMatch(/^[0-9a-f]{16}$/);
  expect(new TextDecoder().decode(await pack.readFile('tokenizer.json'))).toBe('{"a":1}');
  expect(await embeddingFaults(pack)).toEqual([]);
});

test('a folder without a pack is PACK_NOT_FOUND', async () => {
  const folder = await temporaryFolder();
  for (const path of [folder, join(folder, 'nothing')])
    await expect(openPackFolder(fs, path)).rejects.toMatchObject({
      code: 'PACK_NOT_FOUND',
      message: expect.stringContaining(path),
    });
});

test('a truncated tiles.bin is refused, naming the first tile that is missing', async () => {
  const folder = await smallPack();
  const { manifest } = await openPackFolder(fs, folder);
  await fs.truncate(join(folder, 'tiles.bin'), manifest.tiles[5]!.offset + 100);
  await expect(openPackFolder(fs, folder)).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringMatching(/tiles\.bin.*truncated.*tile 5 is missing/),
  });
});

test('a changed byte of constants, tokenizer or embedding is found', async () => {
  const folder = await smallPack();
  await flip(join(folder, 'tiles.bin'), 9);
  await expect(openPackFolder(fs, folder)).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringContaining('constants'),
  });
  await flip(join(folder, 'tiles.bin'), 9);
  const pack = await openPackFolder(fs, folder);
  await flip(join(folder, 'tiles.bin'), pack.manifest.embedding.offset + 3);
  expect(await embeddingFaults(pack)).toEqual([0]);
  await flip(join(folder, 'embedding.crc32c'), 5);
  await expect(pack.embeddingChecks()).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringContaining('embedding.crc32c'),
  });
  await flip(join(folder, 'embedding.crc32c'), 5);
  await flip(join(folder, 'tokenizer.json'), 2);
  await expect(pack.readFile('tokenizer.json')).rejects.toMatchObject({ code: 'PACK_INVALID' });
  await expect(openPackFolder(fs, folder)).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringContaining('tokenizer.json'),
  });
});

test('files that are missing or of another size are found', async () => {
  const folder = await smallPack();
  await fs.appendFile(join(folder, 'tokenizer.json'), 'x');
  await expect(openPackFolder(fs, folder)).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringContaining('8 bytes, not 7'),
  });
  await fs.rm(join(folder, 'tokenizer.json'));
  await expect(openPackFolder(fs, folder)).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringContaining('missing'),
  });
  await fs.rm(join(folder, 'tiles.bin'));
  await expect(openPackFolder(fs, folder)).rejects.toMatchObject({
    code: 'PACK_INVALID',
    message: expect.stringContaining('tiles.bin: is missing'),
  });
});
