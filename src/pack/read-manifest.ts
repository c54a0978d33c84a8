import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import {
  type BlobEntry,
  EMBEDDING_CHECK_BYTES,
  EMBEDDING_CHECKS_FILE,
  type Manifest,
  type ModelShape,
  PACK_VERSION,
  type Rotation,
  type TileKind,
} from './manifest.ts';
import {
  ALIGNMENT,
  constantsFloats,
  embeddingRowBytes,
  GROUP,
  LAYER_TILE_KINDS,
  layerTileCount,
  SQUARE_WORDS,
  TILE_KINDS,
  tileBytes,
  tileCount,
} from './tile-shape.ts';

/** Most bytes of a manifest.json: about 300,000 tiles. */
export const MANIFEST_BYTES = 64 * 2 ** 20;
/** Most bytes of a tokenizer file. */
export const PACK_FILE_BYTES = 256 * 2 ** 20;
/** Most bytes of one tile. */
export const TILE_BYTES = 256 * 2 ** 20;
/** Most bytes of the constants, which are in memory whole. */
const CONSTANTS_BYTES = 2 ** 30;
/** Names that a pack may have; also a folder name and what API clients call the model. */
export const PACK_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

const count = (least: number, most: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most));
const positive = (most: number) => v.pipe(v.number(), v.gtValue(0), v.maxValue(most));
const offset = count(0, Number.MAX_SAFE_INTEGER);
const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const crc32c = count(0, 0xffffffff);
const name = v.pipe(v.string(), v.regex(PACK_NAME));
const blob = { offset, bytes: offset, sha256, crc32c };

const frequencies = v.pipe(v.array(positive(1e6)), v.minLength(1), v.maxLength(512));
const rotationSchema = v.strictObject({
  frequencies,
  magnitude: positive(1e3),
  beyond: v.nullable(
    v.variant('type', [
      v.strictObject({ type: v.literal('frequencies'), over: count(1, 2 ** 24), frequencies }),
      v.strictObject({
        type: v.literal('dynamic'),
        over: count(1, 2 ** 24),
        theta: positive(1e12),
        factor: positive(1e6),
      }),
    ]),
  ),
});

const shapeSchema = v.strictObject({
  weights: v.picklist(['w4', 'bf16']),
  width: count(1, 2 ** 16),
  layers: count(1, 1024),
  queryHeads: count(1, 1024),
  kvHeads: count(1, 1024),
  headDim: count(2, 1024),
  ffnWidth: count(1, 2 ** 20),
  vocabulary: count(1, 2 ** 22),
  context: count(1, 2 ** 24),
  normEpsilon: positive(1),
  norms: v.strictObject({
    input: v.boolean(),
    output: v.boolean(),
    queryKey: v.picklist(['none', 'head', 'whole']),
  }),
  biases: v.strictObject({
    queryKeyValue: v.boolean(),
    output: v.boolean(),
    gateUp: v.boolean(),
    down: v.boolean(),
  }),
  activation: v.picklist(['silu', 'gelu-tanh']),
  scoreScale: positive(1e6),
  scoreCap: v.pipe(v.number(), v.minValue(0), v.maxValue(1e6)),
  logitCap: v.pipe(v.number(), v.minValue(0), v.maxValue(1e6)),
  embeddingScale: positive(1e6),
  residualScale: positive(1e6),
  rotations: v.pipe(v.array(rotationSchema), v.maxLength(8)),
  layerFeatures: v.pipe(
    v.array(v.strictObject({ window: count(0, 2 ** 24), rotation: count(-1, 7), experts: v.boolean() })),
    v.maxLength(1024),
  ),
  experts: v.nullable(
    v.strictObject({
      count: count(1, 4096),
      perToken: count(1, 64),
      width: count(1, 2 ** 20),
      normalized: v.boolean(),
      sharedWidth: count(0, 2 ** 20),
    }),
  ),
  tiling: v.strictObject({
    partsPerKvHead: count(1, 1024),
    ffnColumns: count(1, 2 ** 20),
    headRows: count(1, 2 ** 22),
  }),
  hadamard: v.picklist([0, 32]),
  kvBits: v.picklist([4, 8, 16, 32]),
});

const tileSchema = v.strictObject({
  kind: v.picklist(['attention', 'ffn', 'expert', 'head']),
  layer: count(0, 1023),
  index: count(0, 2 ** 22),
  ...blob,
});

const manifestSchema = v.strictObject({
  format: v.literal('potluck-pack'),
  version: v.literal(PACK_VERSION),
  name,
  shape: shapeSchema,
  stopTokens: v.pipe(v.array(count(0, 2 ** 22)), v.maxLength(256)),
  beginToken: v.nullable(count(0, 2 ** 22)),
  constants: v.strictObject(blob),
  embedding: v.strictObject({ ...blob, format: v.picklist(['bf16', 'int8']), rowBytes: count(1, 2 ** 20) }),
  tiles: v.pipe(v.array(tileSchema), v.maxLength(1_000_000)),
  files: v.pipe(v.array(v.strictObject({ name, bytes: count(0, PACK_FILE_BYTES), sha256 })), v.maxLength(16)),
  origin: v.record(v.string(), v.union([v.string(), v.number()])),
});

const ADVICE = 'Pack the checkpoint again or fetch the pack anew.';

/** PACK_INVALID about `file`. */
export const invalidPack = (file: string, reason: string, cause?: unknown): PotluckError =>
  new PotluckError('PACK_INVALID', `${file}: ${reason}. ${ADVICE}`, { cause });

/** The address of a pack: the first 16 hex digits of the SHA-256 of its manifest.json. */
export const manifestId = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex').slice(0, 16);

/**
 * The manifest in the bytes of a manifest.json; every number of it bounded, and all of it consistent with its shape.
 * `file` names it in errors. Throws PACK_INVALID or PACK_VERSION. Sizes of files are for the caller to compare.
 */
export function readManifest(bytes: Uint8Array, file: string): Manifest {
  if (bytes.length > MANIFEST_BYTES)
    throw invalidPack(file, `has ${bytes.length} bytes, more than ${MANIFEST_BYTES}`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalidPack(file, 'is not whole JSON', error);
  }
  checkVersion(parsed, file);
  const result = v.safeParse(manifestSchema, parsed, { abortEarly: true });
  if (!result.success) {
    const issue = result.issues[0];
    throw invalidPack(file, `${v.getDotPath(issue) ?? 'the top level'}: ${issue.message}`);
  }
  const manifest: Manifest = result.output;
  checkShape(manifest.shape, file);
  checkTokens(manifest, file);
  checkTiles(manifest, file);
  checkBlobs(manifest, file);
  checkFiles(manifest, file);
  return manifest;
}

function checkVersion(parsed: unknown, file: string): void {
  const top = typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {};
  if (top.format !== 'potluck-pack') throw invalidPack(file, 'is not the manifest of a Potluck pack');
  const version = top.version;
  if (typeof version !== 'number' || version === PACK_VERSION) return;
  throw new PotluckError(
    'PACK_VERSION',
    `${file}: is of pack version ${version}, and this Potluck reads version ${PACK_VERSION}. Update Potluck, or pack the checkpoint again.`,
  );
}

/** What the bounds of single numbers cannot say of a shape. Throws PACK_INVALID. */
export function checkShape(s: ModelShape, file: string): void {
  const wrong = (reason: string) => invalidPack(file, `shape: ${reason}`);
  if (s.queryHeads % s.kvHeads !== 0)
    throw wrong(`${s.queryHeads} query heads are not shared evenly by ${s.kvHeads} KV heads`);
  if ((s.queryHeads / s.kvHeads) % s.tiling.partsPerKvHead !== 0)
    throw wrong(
      `${s.queryHeads / s.kvHeads} query heads of a KV head are not ${s.tiling.partsPerKvHead} even parts`,
    );
  if (s.headDim % 2 !== 0) throw wrong(`head dimension ${s.headDim} is odd`);
  for (const rotation of s.rotations) checkRotation(rotation, s, wrong);
  if (s.layerFeatures.length !== s.layers)
    throw wrong(`features of ${s.layerFeatures.length} layers, not of ${s.layers}`);
  for (const { rotation, experts } of s.layerFeatures) {
    if (rotation >= s.rotations.length) throw wrong(`a layer has rotation ${rotation}, which is not there`);
    if (experts && s.experts === null)
      throw wrong('a layer has experts, and the shape does not describe them');
  }
  if (s.experts && s.experts.perToken > s.experts.count)
    throw wrong(`${s.experts.perToken} experts of a token are more than the ${s.experts.count} there are`);
  if (s.norms.queryKey === 'whole' && s.width < SQUARE_WORDS)
    throw wrong(`a width of ${s.width} has no room for sums of squares`);
  if (s.tiling.ffnColumns % GROUP !== 0)
    throw wrong(`${s.tiling.ffnColumns} FFN columns a tile are not a multiple of 32`);
  if (s.tiling.headRows % 16 !== 0)
    throw wrong(`${s.tiling.headRows} head rows a tile are not a multiple of 16`);
  const constantsBytes = constantsFloats(s) * 4;
  if (constantsBytes > CONSTANTS_BYTES)
    throw wrong(`constants would have ${constantsBytes} bytes, more than ${CONSTANTS_BYTES}`);
  for (const kind of TILE_KINDS)
    if (tileBytes(s, kind) > TILE_BYTES)
      throw wrong(`${kind} tiles would have ${tileBytes(s, kind)} bytes, more than ${TILE_BYTES}`);
}

/** Angles stay under 2^20 radians, where their reduction is exact. */
const MOST_ANGLE = 2 ** 20;

function checkRotation(rotation: Rotation, s: ModelShape, wrong: (reason: string) => PotluckError): void {
  const { frequencies: usual, beyond } = rotation;
  if (usual.length > s.headDim / 2)
    throw wrong(`${usual.length} rotated pairs do not fit a head dimension of ${s.headDim}`);
  const long = beyond?.type === 'frequencies' ? beyond.frequencies : usual;
  if (long.length !== usual.length)
    throw wrong(`${long.length} frequencies of long sequences, not ${usual.length}`);
  for (const frequency of [...usual, ...long])
    if (frequency * s.context >= MOST_ANGLE)
      throw wrong(`a frequency of ${frequency} turns ${s.context} positions by over 2^20 radians`);
  if (beyond?.type === 'dynamic' && usual.length < 2) throw wrong('dynamic rotation needs two pairs');
}

function checkTokens(manifest: Manifest, file: string): void {
  const ids =
    manifest.beginToken === null ? manifest.stopTokens : [...manifest.stopTokens, manifest.beginToken];
  for (const id of ids)
    if (id >= manifest.shape.vocabulary)
      throw invalidPack(file, `token ${id} is not in the vocabulary of ${manifest.shape.vocabulary}`);
}

/** Kind, layer and index of every tile of a shape, in execution order. */
export function* tileOrder(s: ModelShape): Generator<{ kind: TileKind; layer: number; index: number }> {
  for (let layer = 0; layer < s.layers; layer++)
    for (const kind of LAYER_TILE_KINDS)
      for (let index = 0; index < layerTileCount(s, kind, layer); index++) yield { kind, layer, index };
  for (let index = 0; index < tileCount(s, 'head'); index++) yield { kind: 'head', layer: 0, index };
}

/** Number of tiles of a shape. */
export function totalTiles(s: ModelShape): number {
  let total = tileCount(s, 'head');
  for (let layer = 0; layer < s.layers; layer++)
    for (const kind of LAYER_TILE_KINDS) total += layerTileCount(s, kind, layer);
  return total;
}

/** A tile's name in messages. */
export const tileName = (tile: { kind: TileKind; layer: number; index: number }): string =>
  tile.kind === 'head' ? `head tile ${tile.index}` : `${tile.kind} tile ${tile.index} of layer ${tile.layer}`;

function checkTiles(manifest: Manifest, file: string): void {
  const { shape, tiles } = manifest;
  if (tiles.length !== totalTiles(shape))
    throw invalidPack(file, `has ${tiles.length} tiles, not ${totalTiles(shape)}`);
  const sizes = {
    attention: tileBytes(shape, 'attention'),
    ffn: tileBytes(shape, 'ffn'),
    expert: tileBytes(shape, 'expert'),
    head: tileBytes(shape, 'head'),
  };
  let i = 0;
  for (const expected of tileOrder(shape)) {
    const tile = tiles[i]!;
    if (tile.kind !== expected.kind || tile.layer !== expected.layer || tile.index !== expected.index)
      throw invalidPack(file, `tile ${i} is ${tileName(tile)}, not ${tileName(expected)}`);
    if (tile.bytes !== sizes[tile.kind])
      throw invalidPack(
        file,
        `tile ${i} (${tileName(tile)}) has ${tile.bytes} bytes, not ${sizes[tile.kind]}`,
      );
    i++;
  }
}

function checkBlobs(manifest: Manifest, file: string): void {
  const { shape, constants, embedding } = manifest;
  const constantsBytes = constantsFloats(shape) * 4;
  if (constants.bytes !== constantsBytes)
    throw invalidPack(file, `constants have ${constants.bytes} bytes, not ${constantsBytes}`);
  const rowBytes = embeddingRowBytes(shape, embedding.format);
  if (embedding.rowBytes !== rowBytes || embedding.bytes !== rowBytes * shape.vocabulary)
    throw invalidPack(
      file,
      `the embedding has ${embedding.bytes} bytes in rows of ${embedding.rowBytes}, not ${shape.vocabulary} rows of ${rowBytes}`,
    );
  const places: { what: string; entry: BlobEntry }[] = [
    { what: 'constants', entry: constants },
    { what: 'embedding', entry: embedding },
    ...manifest.tiles.map((entry, i) => ({ what: `tile ${i} (${tileName(entry)})`, entry })),
  ];
  places.sort((a, b) => a.entry.offset - b.entry.offset);
  let end = 0;
  let before: { what: string; entry: BlobEntry } | undefined;
  for (const place of places) {
    const { what, entry } = place;
    if (entry.offset % ALIGNMENT !== 0)
      throw invalidPack(file, `${what}: offset ${entry.offset} is not a multiple of ${ALIGNMENT}`);
    if (before && sameBytes(entry, before.entry)) continue;
    if (before && entry.offset < end) throw invalidPack(file, `${what}: overlaps ${before.what}`);
    end = entry.offset + entry.bytes;
    if (!Number.isSafeInteger(end)) throw invalidPack(file, `${what}: ends at byte ${end}`);
    before = place;
  }
}

/** Tiles with equal bytes may be stored once. */
const sameBytes = (a: BlobEntry, b: BlobEntry): boolean =>
  a.offset === b.offset && a.bytes === b.bytes && a.sha256 === b.sha256 && a.crc32c === b.crc32c;

/** Bytes that tiles.bin must have at least. */
export function packBytes(manifest: Manifest): number {
  let end = 0;
  for (const { offset, bytes } of [manifest.constants, manifest.embedding, ...manifest.tiles])
    end = Math.max(end, offset + bytes);
  return end;
}

function checkFiles(manifest: Manifest, file: string): void {
  const seen = new Set(['manifest.json', 'tiles.bin']);
  for (const { name } of manifest.files) {
    const key = name.toLowerCase();
    if (seen.has(key)) throw invalidPack(file, `names the file ${name} twice`);
    seen.add(key);
  }
  const checks = manifest.files.find(({ name }) => name === EMBEDDING_CHECKS_FILE);
  const checksBytes = manifest.shape.vocabulary * EMBEDDING_CHECK_BYTES;
  if (checks?.bytes !== checksBytes)
    throw invalidPack(
      file,
      `names no ${EMBEDDING_CHECKS_FILE} of ${checksBytes} bytes, the checksums of embedding rows`,
    );
}
