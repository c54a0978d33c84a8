import * as fs from 'node:fs/promises';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { NamedShape } from '../../src/model/named-shapes.ts';
import { parseShapes } from '../../src/model/named-shapes.ts';
import { packTokenizer } from '../../src/model/pack-tokenizer.ts';
import { isSyntheticPack, writeSyntheticPack } from '../../src/model/synthetic-pack.ts';
import { openPackFolder } from '../../src/pack/pack-folder.ts';
import { tileBytes, tileCount } from '../../src/pack/tile-shape.ts';
import { crc32c } from '../pack/crc32c-table.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { packLogits } from './pack-logits.ts';
import { plainBackend } from './plain-backend.ts';

const SHAPE: NamedShape = parseShapes(
  `name model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size
   tiny llama 256 4 8 2 32 704 2000`,
  'shapes.txt',
)[0]!;

async function write(seed: number, storedLayers = 4) {
  const target = join(await temporaryFolder(), 'pack');
  await writeSyntheticPack({ shape: SHAPE, seed, storedLayers, target, fileSystem: fs, crc32c });
  return openPackFolder(fs, target);
}

const deviation = (values: Float32Array): number =>
  Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);

test('the same seed gives the same pack, another seed another one', async () => {
  const [a, b, c] = [await write(7), await write(7), await write(8)];
  expect(b.id).toBe(a.id);
  expect(c.id).not.toBe(a.id);
  expect((await readFile(b.tilesPath)).equals(await readFile(a.tilesPath))).toBe(true);
  expect(isSyntheticPack(a.manifest, { shape: SHAPE, seed: 7, storedLayers: 4 })).toBe(true);
  expect(isSyntheticPack(a.manifest, { shape: SHAPE, seed: 8, storedLayers: 4 })).toBe(false);
  expect(isSyntheticPack(a.manifest, { shape: SHAPE, seed: 7, storedLayers: 2 })).toBe(false);
});

test('no two tiles are equal, unless layers share them', async () => {
  const whole = await write(1);
  const shared = await write(1, 2);
  const hashes = (pack: typeof whole) => new Set(pack.manifest.tiles.map(tile => tile.sha256));
  const { shape, tiles } = whole.manifest;
  expect(hashes(whole).size).toBe(tiles.length);
  const inLayer = tileCount(shape, 'attention') + tileCount(shape, 'ffn');
  expect(hashes(shared).size).toBe(tiles.length - 2 * inLayer);
  const layerBytes =
    tileCount(shape, 'attention') * tileBytes(shape, 'attention') +
    tileCount(shape, 'ffn') * tileBytes(shape, 'ffn');
  const size = async (pack: typeof whole) => (await fs.stat(pack.tilesPath)).size;
  expect((await size(whole)) - (await size(shared))).toBe(2 * layerBytes);
});

test('what it computes stays in range, and varies', async () => {
  const pack = await write(3);
  const ids = Array.from({ length: 24 }, (_, i) => (i * 97) % 2000);
  const logits = await packLogits(pack, plainBackend(), ids);
  for (const row of logits) expect(deviation(row)).toBeGreaterThan(1);
  for (const row of logits) expect(deviation(row)).toBeLessThan(4);
  expect(deviation(logits[5]!.map((x, i) => x - logits[6]![i]!))).toBeGreaterThan(1);
});

test('4-bit activations are asked for in tiles and constants, and change what comes out', async () => {
  const target = join(await temporaryFolder(), 'pack');
  const options = { shape: SHAPE, seed: 3, storedLayers: 4, activations: 'a4' } as const;
  await writeSyntheticPack({ ...options, target, fileSystem: fs, crc32c });
  const four = await openPackFolder(fs, target);
  const eight = await write(3);
  expect(isSyntheticPack(four.manifest, options)).toBe(true);
  expect(isSyntheticPack(eight.manifest, options)).toBe(false);
  expect(four.manifest.constants.sha256).not.toBe(eight.manifest.constants.sha256);
  const kinds = new Set(four.manifest.tiles.map(({ kind }) => kind));
  for (const kind of kinds) {
    const at = four.manifest.tiles.findIndex(tile => tile.kind === kind);
    const differ = four.manifest.tiles[at]!.sha256 !== eight.manifest.tiles[at]!.sha256;
    expect(differ, kind).toBe(kind !== 'head');
  }
});

test('its tokenizer has the whole vocabulary, the last token ends, and any text comes back', async () => {
  const pack = await write(1);
  const tokenizer = (await packTokenizer(name => pack.readFile(name), 'pack'))!;
  expect(tokenizer.vocabulary).toBe(2000);
  expect(pack.manifest.stopTokens).toEqual([1999]);
  expect([...tokenizer.controls]).toEqual([['<|end|>', 1999]]);
  const text = 'Zwei Wörter, \n\u0000 \u{1f372}';
  const ids = tokenizer.encode(text, { special: false });
  expect(tokenizer.decode(ids)).toBe(text);
  for (let id = 256; id < 1999; id += 97) {
    const bytes = tokenizer.pieceBytes(id);
    expect(bytes.length).toBeGreaterThan(1);
    expect(bytes.length).toBeLessThanOrEqual(12);
  }
});

test.each([0, 5, 1.5])('refuses %d layers to store', async storedLayers => {
  await expect(write(1, storedLayers)).rejects.toMatchObject({ code: 'BAD_OPTION' });
});
