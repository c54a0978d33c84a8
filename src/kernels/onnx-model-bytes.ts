/**
 * Tiny ONNX models as protobuf bytes: one matrix product with the weights as an input. Field numbers are those of
 * onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only what is needed is written.
 */

const IR_VERSION = 8;
const OPSET = 17;
const CONTRIB_OPSET = 1;
const FLOAT = 1;
const UINT8 = 2;
const ATTRIBUTE_INT = 2;

/** Unsigned integer, 7 bits a byte, least first. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

/** A number field. */
const number = (field: number, value: number): number[] => [...varint(field * 8), ...varint(value)];

/** A field with bytes: a message or a text. */
const message = (field: number, ...parts: readonly number[][]): number[] => {
  const body = parts.flat();
  return [...varint(field * 8 + 2), ...varint(body.length), ...body];
};

const text = (field: number, value: string): number[] => message(field, [...new TextEncoder().encode(value)]);

/** ValueInfoProto: a tensor and its shape; a name is a dimension that the run decides. */
const tensor = (field: number, name: string, type: number, shape: readonly (number | string)[]): number[] => {
  const dimensions = shape.map(size => message(1, typeof size === 'number' ? number(1, size) : text(2, size)));
  return message(field, text(1, name), message(2, message(1, number(1, type), message(2, ...dimensions))));
};

const attribute = (name: string, value: number): number[] =>
  message(5, text(1, name), number(3, value), number(20, ATTRIBUTE_INT));

const operatorSet = (domain: string, version: number): number[] => message(8, text(1, domain), number(2, version));

const model = (...graph: readonly number[][]): Uint8Array =>
  Uint8Array.from([
    ...number(1, IR_VERSION),
    ...message(7, ...graph, text(2, 'panel')),
    ...operatorSet('', OPSET),
    ...operatorSet('com.microsoft', CONTRIB_OPSET),
  ]);

/** 4-bit weights with a scale for every 32 inputs. */
export interface W4Product {
  readonly rows: number;
  /** A multiple of 32. */
  readonly columns: number;
  /** 0: float32 activations. 4: activations quantized to int8 in groups. */
  readonly accuracyLevel: 0 | 4;
}

/**
 * y [tokens, rows] = x [tokens, columns] by MatMulNBits; inputs x, b uint8 [rows, columns / 32, 16] (low nibble first, zero point 8)
 * and scales float32 [rows, columns / 32].
 */
export function w4ModelBytes({ rows, columns, accuracyLevel }: W4Product): Uint8Array {
  const groups = columns / 32;
  return model(
    message(
      1,
      ...['x', 'b', 'scales'].map(name => text(1, name)),
      text(2, 'y'),
      text(4, 'MatMulNBits'),
      attribute('K', columns),
      attribute('N', rows),
      attribute('bits', 4),
      attribute('block_size', 32),
      attribute('accuracy_level', accuracyLevel),
      text(7, 'com.microsoft'),
    ),
    tensor(11, 'x', FLOAT, ['tokens', columns]),
    tensor(11, 'b', UINT8, [rows, groups, 16]),
    tensor(11, 'scales', FLOAT, [rows, groups]),
    tensor(12, 'y', FLOAT, ['tokens', rows]),
  );
}

/** y [tokens, rows] = x [tokens, columns] by MatMul; inputs x and b float32 [columns, rows]. */
export function floatModelBytes(rows: number, columns: number): Uint8Array {
  return model(
    message(1, text(1, 'x'), text(1, 'b'), text(2, 'y'), text(4, 'MatMul')),
    tensor(11, 'x', FLOAT, ['tokens', columns]),
    tensor(11, 'b', FLOAT, [columns, rows]),
    tensor(12, 'y', FLOAT, ['tokens', rows]),
  );
}
