import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { PotluckError } from '../../src/errors/errors.ts';
import { manifestId, readManifest } from '../../src/pack/read-manifest.ts';
import { writeSmallPack } from './small-pack.ts';

let text = '';
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'potluck-manifest-'));
  await writeSmallPack(join(folder, 'pack'));
  text = await readFile(join(folder, 'pack', 'manifest.json'), 'utf8');
  await rm(folder, { recursive: true });
});

const bytesOf = (value: string) => new TextEncoder().encode(value);
const read = (value: unknown) => readManifest(bytesOf(JSON.stringify(value)), 'manifest.json');

/** The manifest with the value at `path` replaced. */
function changed(path: string, value: unknown): unknown {
  const top = JSON.parse(text) as Record<string, unknown>;
  const keys = path.split('.');
  let at = top;
  for (const key of keys.slice(0, -1)) at = at[key] as Record<string, unknown>;
  if (value === undefined) delete at[keys.at(-1)!];
  else at[keys.at(-1)!] = value;
  return top;
}

test('a manifest that was written is read as it was', () => {
  expect(read(JSON.parse(text))).toEqual(JSON.parse(text));
  expect(manifestId(bytesOf(text))).toBe(createHash('sha256').update(text).digest('hex').slice(0, 16));
});

test('foreign, newer and truncated manifests', () => {
  expect(() => read({})).toThrow(
    expect.objectContaining({ code: 'PACK_INVALID', message: expect.stringContaining('not the manifest') }),
  );
  expect(() => read(null)).toThrow(expect.objectContaining({ code: 'PACK_INVALID' }));
  expect(() => read(changed('version', 1))).toThrow(
    expect.objectContaining({ code: 'PACK_VERSION', message: expect.stringContaining('version 1') }),
  );
  expect(() => read(changed('version', '2'))).toThrow(expect.objectContaining({ code: 'PACK_INVALID' }));
  expect(() => readManifest(bytesOf(text.slice(0, 500)), 'm')).toThrow(
    expect.objectContaining({ code: 'PACK_INVALID' }),
  );
  expect(() => readManifest(Uint8Array.of(0xff, 0xfe), 'm')).toThrow(
    expect.objectContaining({ code: 'PACK_INVALID' }),
  );
});

test.each<[string, unknown, RegExp]>([
  ['shape.width', 0, /shape\.width/],
  ['shape.width', 1e9, /shape\.width/],
  ['shape.width', 63.5, /shape\.width/],
  ['shape.width', 60, /bytes, not/],
  ['shape.layers', 3, /features of 2 layers, not of 3/],
  ['shape.vocabulary', 40, /has 10 tiles, not 11/],
  ['shape.kvHeads', 3, /not shared evenly/],
  ['shape.headDim', 14, /8 rotated pairs do not fit/],
  ['shape.headDim', 15, /odd/],
  ['shape.normEpsilon', 0, /normEpsilon/],
  ['shape.rotations.0.frequencies.2', -1, /frequencies\.2/],
  ['shape.rotations.0.frequencies.2', 1e5, /2\^20 radians/],
  ['shape.rotations', [], /rotation 0, which is not there/],
  ['shape.layerFeatures.0.experts', true, /does not describe them/],
  ['shape.layerFeatures.1.window', -1, /window/],
  ['shape.norms.queryKey', 'some', /queryKey/],
  ['shape.tiling.partsPerKvHead', 3, /even parts/],
  ['shape.tiling.ffnColumns', 33, /multiple of 32/],
  ['shape.tiling.headRows', 24, /multiple of 16/],
  ['shape.tiling.headRows', 4194304, /head tiles would have|tiles, not/],
  ['shape.weights', 'w3', /shape\.weights/],
  ['stopTokens', [30], /token 30 is not in the vocabulary/],
  ['beginToken', 99, /token 99/],
  ['tiles.0', undefined, /tiles/],
  ['tiles.3.offset', 12345, /tile 3 \(ffn tile 1 of layer 0\): offset 12345 is not a multiple/],
  ['tiles.3.offset', 0, /overlaps/],
  ['tiles.3.offset', 2 ** 53, /offset/],
  ['tiles.3.offset', -4096, /offset/],
  ['tiles.3.bytes', 8192, /tile 3 .* has 8192 bytes, not 4096/],
  ['tiles.3.kind', 'attention', /tile 3 is attention tile 1 of layer 0, not ffn tile 1/],
  ['tiles.3.layer', 1, /tile 3 is/],
  ['tiles.3.index', 7, /tile 3 is/],
  ['tiles.3.sha256', 'abc', /tiles\.3\.sha256/],
  ['tiles.3.crc32c', 2 ** 32, /tiles\.3\.crc32c/],
  ['constants.bytes', 8, /constants have 8 bytes/],
  ['constants.offset', 4096, /overlaps/],
  ['embedding.rowBytes', 64, /embedding has/],
  ['embedding.format', 'bf16', /embedding has/],
  ['embedding.bytes', 10, /embedding has/],
  ['files.0.name', '../tokenizer.json', /files\.0\.name/],
  ['files.0.name', 'a/b', /files\.0\.name/],
  ['files.0.name', 'a\\b', /files\.0\.name/],
  ['files.0.name', '..', /files\.0\.name/],
  ['files.0.name', 'Manifest.json', /twice/],
  ['files.0.bytes', 2 ** 40, /files\.0\.bytes/],
  ['files.1.name', 'other', /names no embedding\.crc32c of 120 bytes/],
  ['files.1.bytes', 116, /names no embedding\.crc32c of 120 bytes/],
  ['name', 'a b', /name/],
  ['extra', 1, /extra/],
])('refuses %s = %j', (path, value, message) => {
  expect(() => read(changed(path, value))).toThrow(
    expect.objectContaining({ code: 'PACK_INVALID', message: expect.stringMatching(message) }),
  );
});

test('refuses constants that nobody has memory for', () => {
  const manifest = changed('shape.width', 65536) as { shape: Record<string, unknown> };
  const experts = { count: 4096, perToken: 1, width: 32, normalized: true, sharedWidth: 0 };
  const layerFeatures = Array.from({ length: 2 }, () => ({ window: 0, rotation: 0, experts: true }));
  Object.assign(manifest.shape, { experts, layerFeatures });
  expect(() => read(manifest)).toThrow(/constants would have \d{10} bytes, more than 1073741824/);
});

test('tiles of equal bytes may lie in one place', () => {
  const { offset, bytes, sha256, crc32c } = JSON.parse(text).tiles[3];
  const twin = (changes: object) => {
    const top = JSON.parse(text);
    top.tiles[7] = { ...top.tiles[7], offset, bytes, sha256, crc32c, ...changes };
    return read(top);
  };
  expect(twin({}).tiles.filter(tile => tile.offset === offset)).toHaveLength(2);
  expect(() => twin({ sha256: 'f'.repeat(64) })).toThrow(/overlaps/);
  expect(() => twin({ crc32c: 5 })).toThrow(/overlaps/);
});

test('fuzz: any change gives a manifest or a PotluckError of packs', () => {
  const paths = Object.keys(flatten(JSON.parse(text)));
  const value = fc.oneof(
    fc.integer(),
    fc.double(),
    fc.string(),
    fc.constant(null),
    fc.constant([]),
    fc.constant({}),
    fc.constant(2 ** 53),
  );
  fc.assert(
    fc.property(fc.constantFrom(...paths), value, (path, replacement) => {
      try {
        read(changed(path, replacement));
      } catch (error) {
        expect(error).toBeInstanceOf(PotluckError);
        expect(['PACK_INVALID', 'PACK_VERSION']).toContain((error as PotluckError).code);
      }
    }),
    { numRuns: 400, seed: 1 },
  );
});

function flatten(value: object, prefix = ''): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value)) {
    found[prefix + key] = inner;
    if (typeof inner === 'object' && inner !== null) Object.assign(found, flatten(inner, `${prefix}${key}.`));
  }
  return found;
}
