import { type ElementFormat, FLOAT_OF_HALF } from '../element-formats.ts';

/**
 * ggml's blocks of 32 weights: a scale of IEEE half (with `_1` a least value, too), then the quanta. Of 4 and 5 bits, byte
 * j holds weight j in its low half and weight 16 + j in its high half; the fifth bits lie before them, one a weight.
 */

const ELEMENTS = 32;

const half = (source: DataView, at: number): number => FLOAT_OF_HALF[source.getUint16(at, true)]!;

/** A format of 32 weights: `block` decodes the one at byte `at` to `target[to]` and on. */
function format(
  name: string,
  blockBytes: number,
  block: (source: DataView, at: number, target: Float32Array, to: number) => void,
): ElementFormat {
  return {
    name,
    blockElements: ELEMENTS,
    blockBytes,
    decode(source, offset, blocks, target) {
      for (let b = 0; b < blocks; b++) block(source, offset + b * blockBytes, target, b * ELEMENTS);
    },
  };
}

/** half d, 32 int8: d * q. */
export const Q8_0 = format('Q8_0', 34, (source, at, target, to) => {
  const d = half(source, at);
  for (let j = 0; j < ELEMENTS; j++) target[to + j] = d * source.getInt8(at + 2 + j);
});

/** half d, 16 bytes: d * (q - 8). */
export const Q4_0 = format('Q4_0', 18, (source, at, target, to) => {
  const d = half(source, at);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 2 + j);
    target[to + j] = d * ((byte & 15) - 8);
    target[to + 16 + j] = d * ((byte >> 4) - 8);
  }
});

/** half d, half m, 16 bytes: d * q + m, the product rounded to float32 as ggml does. */
export const Q4_1 = format('Q4_1', 20, (source, at, target, to) => {
  const d = half(source, at);
  const m = half(source, at + 2);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 4 + j);
    target[to + j] = Math.fround(d * (byte & 15)) + m;
    target[to + 16 + j] = Math.fround(d * (byte >> 4)) + m;
  }
});

/** half d, 4 bytes of fifth bits, 16 bytes: d * (q - 16). */
export const Q5_0 = format('Q5_0', 22, (source, at, target, to) => {
  const d = half(source, at);
  const high = source.getUint32(at + 2, true);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 6 + j);
    target[to + j] = d * (((byte & 15) | (((high >>> j) & 1) << 4)) - 16);
    target[to + 16 + j] = d * (((byte >> 4) | (((high >>> (16 + j)) & 1) << 4)) - 16);
  }
});

/** half d, half m, 4 bytes of fifth bits, 16 bytes: d * q + m. */
export const Q5_1 = format('Q5_1', 24, (source, at, target, to) => {
  const d = half(source, at);
  const m = half(source, at + 2);
  const high = source.getUint32(at + 4, true);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 8 + j);
    target[to + j] = Math.fround(d * ((byte & 15) | (((high >>> j) & 1) << 4))) + m;
    target[to + 16 + j] = Math.fround(d * ((byte >> 4) | (((high >>> (16 + j)) & 1) << 4))) + m;
  }
});
