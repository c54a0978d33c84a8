import { expect, test } from 'vitest';
import { cutAttentionTile, cutFfnTile, cutHeadTile, type ReadRows } from '../../src/model/cut-tiles.ts';
import type { MatrixRows } from '../../src/model/stored-rows.ts';
import type { ModelShape, WeightFormat } from '../../src/pack/manifest.ts';
import { bf16ToFloat, floatToBf16 } from '../../src/pack/number-formats.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';
import { tileCount, tilePanels } from '../../src/pack/tile-shape.ts';
import { decodePanel } from './decode-panel.ts';
import { randomNumbers } from './small-checkpoint.ts';

const shape = (weights: WeightFormat): ModelShape => ({
  weights,
  width: 72,
  layers: 1,
  queryHeads: 6,
  kvHeads: 2,
  headDim: 10,
  ffnWidth: 80,
  vocabulary: 50,
  context: 64,
  normEpsilon: 1e-5,
  ...plainFeatures(1, 10, [1, 0.5, 0.25, 0.125, 0.0625]),
  tiling: { partsPerKvHead: 3, ffnColumns: 64, headRows: 32 },
  hadamard: 0,
  kvBits: 16,
});

class Matrix implements MatrixRows {
  readonly values: Float32Array[];
  constructor(rows: number, columns: number, seed: number) {
    const next = randomNumbers(seed);
    this.values = Array.from({ length: rows }, () =>
      Float32Array.from({ length: columns }, () => bf16ToFloat(floatToBf16(next()))),
    );
  }
  get rows(): number {
    return this.values.length;
  }
  copy(row: number, first: number, count: number, target: Float32Array): void {
    target.set(this.values[row]!.subarray(first, first + count));
  }
  readonly read: ReadRows = async (first, count) => ({
    rows: count,
    copy: (row, from, length, target) => {
      if (row >= count) throw new Error('row outside');
      this.copy(first + row, from, length, target);
    },
  });
}

const rows = { query: [60, 72, 1], key: [20, 72, 2], value: [20, 72, 3], output: [72, 60, 4] } as const;
const m = Object.fromEntries(
  Object.entries({
    ...rows,
    gate: [80, 72, 5],
    up: [80, 72, 6],
    down: [72, 80, 7],
    head: [50, 72, 8],
  } as const).map(([name, [r, c, seed]]) => [name, new Matrix(r, c, seed)]),
) as Record<'query' | 'key' | 'value' | 'output' | 'gate' | 'up' | 'down' | 'head', Matrix>;

/** Compares a panel with what it should hold; 0 for padding. */
function expectPanel(
  s: ModelShape,
  decoded: Float32Array[],
  weight: (row: number, column: number) => number | undefined,
): void {
  for (const [row, values] of decoded.entries())
    for (let group = 0; group < values.length; group += 32) {
      const wanted = Float32Array.from({ length: 32 }, (_, k) => weight(row, group + k) ?? 0);
      const got = values.slice(group, group + 32);
      if (s.weights === 'bf16') expect(got).toEqual(wanted);
      else {
        // See the bound in quantize-w4.test.ts.
        const most = Math.max(...wanted.map(Math.abs));
        const error = got.reduce((sum, value, k) => sum + (value - wanted[k]!) ** 2, 0);
        expect(error).toBeLessThanOrEqual(32 * (most / 14 + (8 * most) / 7 / 2048) ** 2);
        wanted.forEach((value, k) => {
          if (value === 0) expect(got[k]).toBeCloseTo(0, 10);
        });
      }
    }
}

for (const weights of ['bf16', 'w4'] as const) {
  const s = shape(weights);

  test(`${weights}: attention tiles`, async () => {
    const [query, key, value, output] = tilePanels(s, 'attention');
    expect(tileCount(s, 'attention')).toBe(6);
    for (let index = 0; index < 6; index++) {
      const tile = await cutAttentionTile(
        s,
        { query: m.query.read, key: m.key.read, value: m.value.read, output: async () => m.output },
        index,
      );
      const kv = Math.floor(index / 3);
      const head = index; // one query head a tile: those of KV head 0 are 0 to 2
      const inHead = (row: number) => row < 10;
      expectPanel(s, decodePanel(weights, query!, tile), (r, c) =>
        inHead(r) ? m.query.values[head * 10 + r]![c] : 0,
      );
      expectPanel(s, decodePanel(weights, key!, tile), (r, c) =>
        inHead(r) ? m.key.values[kv * 10 + r]![c] : 0,
      );
      expectPanel(s, decodePanel(weights, value!, tile), (r, c) =>
        inHead(r) ? m.value.values[kv * 10 + r]![c] : 0,
      );
      expectPanel(s, decodePanel(weights, output!, tile), (r, c) =>
        c < 10 ? m.output.values[r]?.[head * 10 + c] : 0,
      );
    }
  });

  test(`${weights}: FFN tiles, the last one not full`, async () => {
    const [both, down] = tilePanels(s, 'ffn');
    for (const index of [0, 1]) {
      const tile = await cutFfnTile(
        s,
        { gate: m.gate.read, up: m.up.read, down: async () => m.down, width: s.ffnWidth },
        index,
        'ffn',
      );
      expectPanel(s, decodePanel(weights, both!, tile), (r, c) => {
        const matrix = Math.floor(r / 16) % 2 === 0 ? m.gate : m.up;
        return matrix.values[index * 64 + Math.floor(r / 32) * 16 + (r % 16)]?.[c];
      });
      expectPanel(s, decodePanel(weights, down!, tile), (r, c) => m.down.values[r]?.[index * 64 + c]);
    }
  });

  test(`${weights}: head tiles, the last one not full`, async () => {
    const [panel] = tilePanels(s, 'head');
    for (const index of [0, 1])
      expectPanel(
        s,
        decodePanel(weights, panel!, await cutHeadTile(s, m.head.read, index)),
        (r, c) => m.head.values[index * 32 + r]?.[c],
      );
  });
}

test('w4 padding is nibble 8 with scale 0, and bytes between panels are zero', async () => {
  const s = shape('w4');
  const [panel] = tilePanels(s, 'head');
  const tile = await cutHeadTile(s, m.head.read, 1); // rows 18 to 31 are padding
  const block = 9 * panel!.paddedColumns; // second block of 16 rows
  expect(tile[block + 15 * 4]).toBe(0x88);
  expect(tile[block + 256 + 30]).toBe(0);
  expect(tile.subarray(panel!.offset + panel!.bytes).every(byte => byte === 0)).toBe(true);
});
