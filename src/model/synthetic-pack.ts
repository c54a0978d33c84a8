import { isDeepStrictEqual } from 'node:util';
import { PotluckError } from '../errors/errors.ts';
import type { FileSystem } from '../pack/file-system.ts';
import type { Manifest, ModelShape } from '../pack/manifest.ts';
import { type Crc32c, PackWriter } from '../pack/pack-writer.ts';
import { checkShape, tileOrder, totalTiles } from '../pack/read-manifest.ts';
import { embeddingRowBytes, LAYER_TILE_KINDS, layerTileCount, tileBytes } from '../pack/tile-shape.ts';
import { defaultNumbers } from './activation-levels.ts';
import { chooseTiling } from './cut-tiling.ts';
import type { NamedShape } from './named-shapes.ts';
import {
  type Activations,
  drawEmbeddingRows,
  drawTile,
  partSeed,
  syntheticConstants,
} from './synthetic-tiles.ts';
import { syntheticTokenizer } from './synthetic-tokenizer.ts';

export interface SyntheticPackOptions {
  readonly shape: NamedShape;
  /** A whole number from 0 to 2^32 - 1. The same seed gives the same bytes. */
  readonly seed: number;
  /** Layers that have bytes of their own; further ones use these again in turn. */
  readonly storedLayers: number;
  /** a8 unless given. */
  readonly activations?: Activations;
  /** Folder of the pack; must not exist yet. */
  readonly target: string;
  readonly fileSystem: FileSystem;
  readonly crc32c: Crc32c;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Rises when the same seed gives other bytes than before. */
const GENERATOR = 3;
/** Bytes of embedding rows that are drawn at a time, about. */
const EMBEDDING_CHUNK = 4 * 2 ** 20;
/** Added to a seed for parts that are not tiles. */
const EMBEDDING_PART = 2 ** 24;
const TOKENIZER_PART = 2 ** 30;

type Drawn = Pick<SyntheticPackOptions, 'seed' | 'storedLayers' | 'activations'>;

/** What a synthetic pack says of where it comes from. */
const originOf = ({ seed, storedLayers, activations = 'a8' }: Drawn) => ({
  source: 'synthetic: drawn weights, for measuring speed',
  generator: GENERATOR,
  seed,
  storedLayers,
  activations,
});

/** Whether `manifest` is what writeSyntheticPack would write for these options. */
export function isSyntheticPack(
  manifest: Manifest,
  options: Drawn & Pick<SyntheticPackOptions, 'shape'>,
): boolean {
  const wanted = { origin: originOf(options), shape: syntheticShape(options.shape) };
  return isDeepStrictEqual({ origin: manifest.origin, shape: manifest.shape }, wanted);
}

/** The shape that a synthetic pack of `named` has. Throws PACK_INVALID where it could not be a pack. */
export function syntheticShape({ name, config }: NamedShape): ModelShape {
  const shape: ModelShape = { ...config.shape, ...defaultNumbers('w4'), tiling: chooseTiling(config.shape) };
  checkShape(shape, name);
  return shape;
}

/**
 * Writes a w4 pack of a shape with drawn weights, tile by tile: what it computes means nothing, how fast does. It has a
 * tokenizer of its whole vocabulary, drawn too, so a daemon can serve it and takes the memory that a real model's takes. Rejects with BAD_OPTION or DISK_WRITE; then nothing is left
 * at the target.
 */
export async function writeSyntheticPack(options: SyntheticPackOptions): Promise<Manifest> {
  const { shape: named, storedLayers } = options;
  const shape = syntheticShape(named);
  if (!Number.isSafeInteger(storedLayers) || storedLayers < 1 || storedLayers > shape.layers)
    throw new PotluckError(
      'BAD_OPTION',
      `${named.name} has 1 to ${shape.layers} layers to store, not ${storedLayers}.`,
    );
  const writer = await PackWriter.create({
    fileSystem: options.fileSystem,
    target: options.target,
    crc32c: options.crc32c,
    shape,
    embeddingFormat: 'int8',
  });
  try {
    await writeEmbedding(writer, shape, options.seed);
    await writeTiles(writer, shape, options);
    await writer.setConstants(syntheticConstants(shape, options.activations ?? 'a8'));
    const tokenizer = syntheticTokenizer(shape.vocabulary, partSeed(options.seed, TOKENIZER_PART));
    for (const { name, bytes } of tokenizer.files) await writer.addFile(name, bytes);
    return await writer.finish({
      name: named.name,
      stopTokens: [tokenizer.end],
      beginToken: null,
      origin: originOf(options),
    });
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

async function writeEmbedding(writer: PackWriter, s: ModelShape, seed: number): Promise<void> {
  const rowBytes = embeddingRowBytes(s, 'int8');
  const atOnce = Math.ceil(EMBEDDING_CHUNK / rowBytes);
  for (let first = 0; first < s.vocabulary; first += atOnce) {
    const rows = new Uint8Array(Math.min(atOnce, s.vocabulary - first) * rowBytes);
    drawEmbeddingRows(rowBytes, partSeed(seed, EMBEDDING_PART + first), rows);
    await writer.addEmbeddingRows(rows);
  }
}

async function writeTiles(writer: PackWriter, s: ModelShape, options: SyntheticPackOptions): Promise<void> {
  const stored = storedTiles(s, options.storedLayers);
  const total = totalTiles(s);
  let number = 0;
  for (const { kind } of tileOrder(s)) {
    if (kind !== 'head' && number >= stored) writer.repeatTile(number % stored);
    else {
      const tile = new Uint8Array(tileBytes(s, kind));
      drawTile(s, kind, partSeed(options.seed, number), options.activations ?? 'a8', tile);
      await writer.addTile(tile);
    }
    number++;
    options.onProgress?.(number, total);
  }
}

/** Tiles of the first `layers` layers. Throws BAD_OPTION where layers differ, so that they cannot stand for each other. */
function storedTiles(s: ModelShape, layers: number): number {
  const inLayer = (layer: number) =>
    LAYER_TILE_KINDS.map(kind => layerTileCount(s, kind, layer)).reduce((a, b) => a + b);
  const first = inLayer(0);
  if (layers < s.layers && s.layerFeatures.some((_, layer) => inLayer(layer) !== first))
    throw new PotluckError('BAD_OPTION', 'Layers of this shape have different tiles: store all of them.');
  return s.layerFeatures.slice(0, layers).reduce((sum, _, layer) => sum + inLayer(layer), 0);
}
