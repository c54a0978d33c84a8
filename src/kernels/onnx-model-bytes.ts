/**
 * Tiny ONNX models as protobuf bytes: one matrix product with its weights inside. onnxruntime packs weights that are
 * part of a model; as inputs they would be unpacked to float32 at every run. Field numbers are those of onnx.proto
 * (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only what is needed is written.
 */

const IR_VERSION = 8;
const OPSET = 17;
const CONTRIB_OPSET = 1;
const FLOAT = 1;
const UINT8 = 2;
const ATTRIBUTE_INT = 2;

/** Unsigned integer, 7 bits a byte, least first. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

const number = (field: number, value: number): Buffer => Buffer.concat([varint(field * 8), varint(value)]);

/** A field that is a message, a text or bytes. */
function message(field: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([varint(field * 8 + 2), varint(length), ...parts]);
}

const text = (field: number, value: string): Buffer => message(field, Buffer.from(value));

/** ValueInfoProto of [tokens, columns] float32; the run decides how many tokens. */
const activations = (field: number, name: string, columns: number): Buffer => {
  const shape = message(2, message(1, text(2, 'tokens')), message(1, number(1, columns)));
  return message(field, text(1, name), message(2, message(1, number(1, FLOAT), shape)));
};

/** TensorProto in GraphProto.initializer. */
const weights = (name: string, type: number, shape: readonly number[], data: NodeJS.TypedArray): Buffer =>
  message(
    5,
    ...shape.map(size => number(1, size)),
    number(2, type),
    text(8, name),
    message(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  );

const attribute = (name: string, value: number): Buffer =>
  message(5, text(1, name), number(3, value), number(20, ATTRIBUTE_INT));

const operatorSet = (domain: string, version: number): Buffer =>
  message(8, text(1, domain), number(2, version));

const model = (...graph: readonly Buffer[]): Uint8Array =>
  Buffer.concat([
    number(1, IR_VERSION),
    message(7, ...graph, text(2, 'product')),
    operatorSet('', OPSET),
    operatorSet('com.microsoft', CONTRIB_OPSET),
  ]);

/** Weights of a product y [tokens, rows] = x [tokens, columns] times transposed weights; columns a multiple of 32. */
export type ProductWeights =
  | {
      readonly format: 'w4';
      readonly rows: number;
      readonly columns: number;
      /** [rows, columns / 32, 16]: low nibble first, 8 is zero. */
      readonly nibbles: Uint8Array;
      /** [rows, columns / 32] */
      readonly scales: Float32Array;
    }
  | {
      readonly format: 'float';
      readonly rows: number;
      readonly columns: number;
      /** [columns, rows] */
      readonly values: Float32Array;
    };

/** 0: activations stay float32. 4: they are quantized to int8 in groups of 32 (the native kernels: blocks of 128). */
export type AccuracyLevel = 0 | 4;

/** The model with input 'x' and output 'y'. `accuracyLevel` is for w4. */
export function productModelBytes(product: ProductWeights, accuracyLevel: AccuracyLevel): Uint8Array {
  const { rows, columns } = product;
  const ends = [activations(11, 'x', columns), activations(12, 'y', rows)];
  if (product.format === 'float')
    return model(
      message(1, text(1, 'x'), text(1, 'weights'), text(2, 'y'), text(4, 'MatMul')),
      weights('weights', FLOAT, [columns, rows], product.values),
      ...ends,
    );
  return model(
    message(
      1,
      ...['x', 'nibbles', 'scales'].map(name => text(1, name)),
      text(2, 'y'),
      text(4, 'MatMulNBits'),
      attribute('K', columns),
      attribute('N', rows),
      attribute('bits', 4),
      attribute('block_size', 32),
      attribute('accuracy_level', accuracyLevel),
      text(7, 'com.microsoft'),
    ),
    weights('nibbles', UINT8, [rows, columns / 32, 16], product.nibbles),
    weights('scales', FLOAT, [rows, columns / 32], product.scales),
    ...ends,
  );
}
