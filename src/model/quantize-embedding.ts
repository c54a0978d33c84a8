import { floatToBf16 } from '../pack/number-formats.ts';

/** Writes an embedding row as bfloat16 to `target` ([2 * width] bytes). */
export function writeBf16Row(row: Float32Array, target: Uint8Array): void {
  for (let i = 0; i < row.length; i++) {
    const bits = floatToBf16(row[i]!);
    target[2 * i] = bits & 255;
    target[2 * i + 1] = bits >>> 8;
  }
}

/** Writes an embedding row as a float32 scale and one int8 in -127..127 a channel to `target` ([4 + width] bytes). */
export function writeInt8Row(row: Float32Array, target: Uint8Array): void {
  let most = 0;
  for (const value of row) most = Math.max(most, Math.abs(value));
  const scale = Math.fround(most / 127);
  const inverse = scale === 0 ? 0 : 1 / scale;
  new DataView(target.buffer, target.byteOffset).setFloat32(0, scale, true);
  for (let i = 0; i < row.length; i++)
    target[4 + i] = Math.min(127, Math.max(-127, Math.round(row[i]! * inverse))) & 255;
}
