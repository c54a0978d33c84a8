import { describe, expect, test } from 'vitest';
import { productWeights } from '../../src/kernels/onnx-panels.ts';
import { OnnxProduct } from '../../src/kernels/onnx-product.ts';
import { panelBytes } from '../../src/pack/tile-shape.ts';
import { randomSource } from './addon-under-test.ts';
import { ort } from './onnx-under-test.ts';
import { makeBf16, makeW4 } from './panels.ts';

const COLUMNS = 96;
const ROWS = [32, 16];

/** Two panels one below the other in a tile, with a gap; and the weights in double precision. */
function twoPanels(format: 'w4' | 'bf16') {
  const random = randomSource(3);
  const made = ROWS.map(rows =>
    format === 'w4'
      ? makeW4(
          rows,
          COLUMNS,
          () => Math.floor(random() * 16),
          () => random() / 8,
        )
      : makeBf16(rows, COLUMNS, () => random() - 0.5),
  );
  const second = 64 * Math.ceil((made[0]!.bytes.length + 1) / 64);
  const tile = new Uint8Array(second + made[1]!.bytes.length);
  tile.set(made[0]!.bytes);
  tile.set(made[1]!.bytes, second);
  const panels = ROWS.map((rows, i) => ({
    offset: i * second,
    rows,
    paddedRows: rows,
    columns: COLUMNS,
    paddedColumns: COLUMNS,
    bytes: panelBytes(format, rows, COLUMNS),
  }));
  return { tile, panels, weights: made.flatMap(({ weights }) => weights) };
}

describe.skipIf(ort === null)('onnxruntime', () => {
  test.each([
    ['w4', 0, 2 ** -18],
    // Activations become int8: a rounding error of half a step of the largest of 32, in every input.
    ['w4', 4, 0.5 / 127],
    ['bf16', 0, 2 ** -18],
  ] as const)(
    '%s panels at accuracy level %i give the products of double precision',
    async (format, level, bound) => {
      const { tile, panels, weights } = twoPanels(format);
      const product = await OnnxProduct.create(ort!, 1, productWeights(format, tile, panels), level);
      expect([product.rows, product.columns]).toEqual([48, COLUMNS]);
      const random = randomSource(5);
      const x = Float32Array.from({ length: 3 * COLUMNS }, () => random() * 2 - 1);
      const y = await product.times(x, 3);
      expect(y.length).toBe(3 * 48);
      for (let t = 0; t < 3; t++)
        weights.forEach((row, r) => {
          let exact = 0;
          let most = 0;
          row.forEach((weight, k) => {
            exact += weight * x[t * COLUMNS + k]!;
            most += Math.abs(weight);
          });
          expect(Math.abs(y[t * 48 + r]! - exact)).toBeLessThanOrEqual(most * bound);
        });
      expect((await product.times(x, 0)).length).toBe(0);
      await product.release();
    },
  );
});
