import { halfToFloat } from '../pack/number-formats.ts';

/** How numbers are stored in a checkpoint: blocks of equal size, the elements of a row one block after another. */
export interface ElementFormat {
  readonly name: string;
  /** Elements of one block, and its bytes. */
  readonly blockElements: number;
  readonly blockBytes: number;
  /** Writes `blocks` blocks from byte `offset` on to the start of `target`; [blocks * blockElements] float32. */
  decode(source: DataView, offset: number, blocks: number, target: Float32Array): void;
}

/** The float32 of every IEEE half, by its bits; [65536]. */
export const FLOAT_OF_HALF: Float32Array = Float32Array.from({ length: 65536 }, (_, bits) =>
  halfToFloat(bits),
);

export const F32: ElementFormat = {
  name: 'F32',
  blockElements: 1,
  blockBytes: 4,
  decode(source, offset, blocks, target) {
    for (let i = 0; i < blocks; i++) target[i] = source.getFloat32(offset + 4 * i, true);
  },
};

export const F16: ElementFormat = {
  name: 'F16',
  blockElements: 1,
  blockBytes: 2,
  decode(source, offset, blocks, target) {
    for (let i = 0; i < blocks; i++) target[i] = FLOAT_OF_HALF[source.getUint16(offset + 2 * i, true)]!;
  },
};

export const BF16: ElementFormat = {
  name: 'BF16',
  blockElements: 1,
  blockBytes: 2,
  decode(source, offset, blocks, target) {
    const bits = new Uint32Array(target.buffer, target.byteOffset, blocks);
    for (let i = 0; i < blocks; i++) bits[i] = source.getUint16(offset + 2 * i, true) << 16;
  },
};
