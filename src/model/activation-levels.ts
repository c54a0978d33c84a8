import type { ModelShape } from '../pack/manifest.ts';
import { type Constant, constantPlace } from '../pack/tile-shape.ts';

/** The numbers that a pack of each weight format computes with, unless it was asked for others. */
export const defaultNumbers = (
  weights: ModelShape['weights'],
): Pick<ModelShape, 'weights' | 'hadamard' | 'kvBits'> =>
  weights === 'w4' ? { weights, hadamard: 32, kvBits: 4 } : { weights, hadamard: 0, kvBits: 32 };

/** Sets every block of input channels to 8-bit activations. constants: [constantsFloats] float32. */
export function setAllToA8(s: ModelShape, constants: Float32Array): void {
  const clear = (what: Constant, layer = 0) => {
    const { first, floats } = constantPlace(s, what, layer);
    constants.fill(0, first, first + floats);
  };
  for (let layer = 0; layer < s.layers; layer++) {
    clear('attentionInA4', layer);
    clear('ffnInA4', layer);
  }
  clear('headInA4');
}
