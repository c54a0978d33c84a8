import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { openPackFolder } from '../../src/pack/pack-folder.ts';
import { embeddingFaults } from './embedding-faults.ts';

const folder = fileURLToPath(new URL('../../models/potluck-36m/', import.meta.url));

test('the embedded model is whole, and every tile has its hash', async () => {
  const pack = await openPackFolder(fs, folder);
  expect(await embeddingFaults(pack)).toEqual([]);
  const data = await fs.readFile(pack.tilesPath);
  for (const { offset, bytes, sha256 } of pack.manifest.tiles)
    expect(
      createHash('sha256')
        .update(data.subarray(offset, offset + bytes))
        .digest('hex'),
    ).toBe(sha256);
  expect(pack.manifest.name).toBe('potluck-36m');
  expect(pack.manifest.files.map(file => file.name)).toEqual([
    'tokenizer.json',
    'vocabulary.bin',
    'tokenizer_config.json',
    'embedding.crc32c',
  ]);
  expect(data.length).toBeLessThan(25e6);
});

test('it names no path of the machine that made it', async () => {
  for (const name of ['manifest.json', 'tokenizer_config.json'])
    expect(await fs.readFile(join(folder, name), 'utf8')).not.toMatch(/\/(work|home|tmp|root|Users)\//);
});
