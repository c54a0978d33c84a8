import { expect, test } from 'vitest';
import { productModelBytes } from '../../src/kernels/onnx-model-bytes.ts';

const ascii = (text: string): string => Buffer.from(text).toString('hex');
/** A field of known tag with its length before it. */
const field = (tag: string, ...parts: string[]): string => {
  const body = parts.join('');
  return tag + (body.length / 2).toString(16).padStart(2, '0') + body;
};

test('a float product has the protobuf bytes of its ONNX model', () => {
  const values = Float32Array.of(1, -2);
  const bytes = productModelBytes({ format: 'float', rows: 2, columns: 1, values }, 0);
  const node = field(
    '0a',
    field('0a', ascii('x')),
    field('0a', ascii('weights')),
    field('12', ascii('y')),
    field('22', ascii('MatMul')),
  );
  // dims 1 and 2, float32, name, raw data
  const weights = field(
    '2a',
    '08010802',
    '1001',
    field('42', ascii('weights')),
    field('4a', '0000803f000000c0'),
  );
  const io = (tag: string, name: string, size: string): string =>
    field(
      tag,
      field('0a', ascii(name)),
      field(
        '12',
        field('0a', '0801', field('12', field('0a', field('12', ascii('tokens'))), field('0a', `08${size}`))),
      ),
    );
  const graph = field(
    '3a',
    node,
    weights,
    io('5a', 'x', '01'),
    io('62', 'y', '02'),
    field('12', ascii('product')),
  );
  const sets = field('42', '0a00', '1011') + field('42', field('0a', ascii('com.microsoft')), '1001');
  expect(Buffer.from(bytes).toString('hex')).toBe(`0808${graph}${sets}`);
});
