import { type ElementFormat, FLOAT_OF_HALF } from '../element-formats.ts';

/** The IEEE half at byte `at`, as float32. */
export const halfAt = (source: DataView, at: number): number => FLOAT_OF_HALF[source.getUint16(at, true)]!;

/** A format of blocks of `blockElements` weights: `block` decodes the one at byte `at` to `target[to]` and on. */
export function blockFormat(
  name: string,
  blockElements: number,
  blockBytes: number,
  block: (source: DataView, at: number, target: Float32Array, to: number) => void,
): ElementFormat {
  return {
    name,
    blockElements,
    blockBytes,
    decode(source, offset, blocks, target) {
      for (let b = 0; b < blocks; b++) block(source, offset + b * blockBytes, target, b * blockElements);
    },
  };
}
