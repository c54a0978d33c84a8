import { blockFormat, halfAt } from './block-format.ts';

/**
 * ggml's blocks of 32 weights: a scale of IEEE half (with `_1` a least value, too), then the quanta. Of 4 and 5 bits, byte
 * j holds weight j in its low half and weight 16 + j in its high half; the fifth bits lie before them, one a weight.
 */

const ELEMENTS = 32;

/** half d, 32 int8: d * q. */
export const Q8_0 = blockFormat('Q8_0', ELEMENTS, 34, (source, at, target, to) => {
  const d = halfAt(source, at);
  for (let j = 0; j < ELEMENTS; j++) target[to + j] = d * source.getInt8(at + 2 + j);
});

/** half d, 16 bytes: d * (q - 8). */
export const Q4_0 = blockFormat('Q4_0', ELEMENTS, 18, (source, at, target, to) => {
  const d = halfAt(source, at);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 2 + j);
    target[to + j] = d * ((byte & 15) - 8);
    target[to + 16 + j] = d * ((byte >> 4) - 8);
  }
});

/** half d, half m, 16 bytes: d * q + m, the product rounded to float32 as ggml does. */
export const Q4_1 = blockFormat('Q4_1', ELEMENTS, 20, (source, at, target, to) => {
  const d = halfAt(source, at);
  const m = halfAt(source, at + 2);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 4 + j);
    target[to + j] = Math.fround(d * (byte & 15)) + m;
    target[to + 16 + j] = Math.fround(d * (byte >> 4)) + m;
  }
});

/** half d, 4 bytes of fifth bits, 16 bytes: d * (q - 16). */
export const Q5_0 = blockFormat('Q5_0', ELEMENTS, 22, (source, at, target, to) => {
  const d = halfAt(source, at);
  const high = source.getUint32(at + 2, true);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 6 + j);
    target[to + j] = d * (((byte & 15) | (((high >>> j) & 1) << 4)) - 16);
    target[to + 16 + j] = d * (((byte >> 4) | (((high >>> (16 + j)) & 1) << 4)) - 16);
  }
});

/** half d, half m, 4 bytes of fifth bits, 16 bytes: d * q + m. */
export const Q5_1 = blockFormat('Q5_1', ELEMENTS, 24, (source, at, target, to) => {
  const d = halfAt(source, at);
  const m = halfAt(source, at + 2);
  const high = source.getUint32(at + 4, true);
  for (let j = 0; j < 16; j++) {
    const byte = source.getUint8(at + 8 + j);
    target[to + j] = Math.fround(d * ((byte & 15) | (((high >>> j) & 1) << 4))) + m;
    target[to + 16 + j] = Math.fround(d * ((byte >> 4) | (((high >>> (16 + j)) & 1) << 4))) + m;
  }
});
