import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { FileSystem } from '../../src/pack/file-system.ts';
import { EMBEDDING_CHECKS_FILE } from '../../src/pack/manifest.ts';
import { crc32c } from './crc32c-table.ts';
import { createWriter, FACTS, fillTile, SHAPE, writeParts, writeSmallPack } from './small-pack.ts';
import { temporaryFolder } from './temporary-folder.ts';

test('the table CRC is CRC-32C', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});

test('every tile lies where the manifest says, with its hash and CRC', async () => {
  const folder = join(await temporaryFolder(), 'deep', 'pack');
  const manifest = await writeSmallPack(folder);
  const data = await fs.readFile(join(folder, 'tiles.bin'));
  for (const [i, entry] of manifest.tiles.entries()) {
    const bytes = data.subarray(entry.offset, entry.offset + entry.bytes);
    expect(bytes.equals(fillTile(entry.bytes, i))).toBe(true);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(entry.sha256);
    expect(crc32c(bytes)).toBe(entry.crc32c);
  }
  const rows = data.subarray(manifest.embedding.offset, manifest.embedding.offset + manifest.embedding.bytes);
  expect(crc32c(rows)).toBe(manifest.embedding.crc32c);
  expect(manifest.embedding.rowBytes).toBe(SHAPE.width + 4);
  const checks = await fs.readFile(join(folder, EMBEDDING_CHECKS_FILE));
  expect(checks.length).toBe(30 * 4);
  for (let id = 0; id < 30; id++)
    expect(checks.readUInt32LE(4 * id)).toBe(crc32c(rows.subarray(id * 68, (id + 1) * 68)));
  expect(data.length).toBe(manifest.tiles.at(-1)!.offset + manifest.tiles.at(-1)!.bytes);
  expect(await fs.readdir(join(folder, '..'))).toEqual(['pack']);
});

test('until it is finished there is nothing at the target, and what was left is written anew', async () => {
  const folder = await temporaryFolder();
  const target = join(folder, 'pack');
  const lost = await createWriter(target);
  await writeParts(lost);
  expect(await fs.readdir(folder)).toEqual(['pack.unfinished']); // as after a crash
  const writer = await createWriter(target);
  await writeParts(writer);
  await writer.finish(FACTS);
  await writer.abort();
  expect(await fs.readdir(folder)).toEqual(['pack']);
  await lost.abort();
});

test('abort leaves nothing', async () => {
  const folder = await temporaryFolder();
  const writer = await createWriter(join(folder, 'pack'));
  await writeParts(writer);
  await writer.abort();
  expect(await fs.readdir(folder)).toEqual([]);
});

test('parts that are missing or come in another order are defects', async () => {
  const writer = await createWriter(join(await temporaryFolder(), 'pack'));
  await expect(writer.addTile(new Uint8Array(4096))).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(writer.finish(FACTS)).rejects.toMatchObject({ code: 'INTERNAL' });
  await writer.abort();
});

test('a full disk is DISK_WRITE with the path', async () => {
  const target = join(await temporaryFolder(), 'pack');
  const full: FileSystem = {
    ...fs,
    open: async (path, flags) => {
      const file = await fs.open(path, flags);
      file.write = () =>
        Promise.reject(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }));
      return file;
    },
  };
  const writer = await createWriter(target, full);
  await expect(writer.addEmbeddingRows(new Uint8Array(68))).rejects.toMatchObject({
    code: 'DISK_WRITE',
    message: expect.stringMatching(/pack\.unfinished.*tiles\.bin.*disk is full/),
  });
  await writer.abort();
});
