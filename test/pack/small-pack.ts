import * as fs from 'node:fs/promises';
import type { FileSystem } from '../../src/pack/file-system.ts';
import type { Manifest, ModelShape } from '../../src/pack/manifest.ts';
import { PackWriter } from '../../src/pack/pack-writer.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';
import { tileOrder } from '../../src/pack/read-manifest.ts';
import { constantsFloats, tileBytes } from '../../src/pack/tile-shape.ts';
import { crc32c } from './crc32c-table.ts';

export const SHAPE: ModelShape = {
  weights: 'w4',
  width: 64,
  layers: 2,
  queryHeads: 4,
  kvHeads: 2,
  headDim: 16,
  ffnWidth: 64,
  vocabulary: 30,
  context: 128,
  normEpsilon: 1e-5,
  ...plainFeatures(2, 16, [1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]),
  tiling: { partsPerKvHead: 1, ffnColumns: 32, headRows: 16 },
  hadamard: 0,
  kvBits: 16,
};

export const FACTS = { name: 'small', stopTokens: [2], beginToken: 1, origin: { source: 'test' } };

/** Bytes that differ from tile to tile. */
export const fillTile = (bytes: number, seed: number) =>
  new Uint8Array(bytes).map((_, i) => (i * 7 + seed * 31) & 255);

export const createWriter = (target: string, fileSystem: FileSystem = fs) =>
  PackWriter.create({ fileSystem, target, crc32c, shape: SHAPE, embeddingFormat: 'int8' });

/** Writes all parts of a small pack but the manifest. */
export async function writeParts(writer: PackWriter): Promise<void> {
  await writer.addEmbeddingRows(fillTile(10 * 68, 90));
  await writer.addEmbeddingRows(fillTile(20 * 68, 91));
  let seed = 0;
  for (const { kind } of tileOrder(SHAPE)) await writer.addTile(fillTile(tileBytes(SHAPE, kind), seed++));
  await writer.addFile('tokenizer.json', new TextEncoder().encode('{"a":1}'));
  await writer.setConstants(new Float32Array(constantsFloats(SHAPE)).fill(0.5).buffer);
}

export async function writeSmallPack(target: string): Promise<Manifest> {
  const writer = await createWriter(target);
  await writeParts(writer);
  return writer.finish(FACTS);
}
