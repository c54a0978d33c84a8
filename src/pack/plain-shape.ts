import type { ModelShape } from './manifest.ts';

type Features =
  | 'norms'
  | 'biases'
  | 'activation'
  | 'scoreScale'
  | 'scoreCap'
  | 'logitCap'
  | 'embeddingScale'
  | 'residualScale'
  | 'rotations'
  | 'layerFeatures'
  | 'experts';

/**
 * The features of the plainest model, that of Llama 2: RMSNorm before each half layer, every channel rotated, SwiGLU, no
 * biases, caps, windows or experts. `frequencies`: [headDim / 2].
 */
export function plainFeatures(
  layers: number,
  headDim: number,
  frequencies: readonly number[],
): Pick<ModelShape, Features> {
  return {
    norms: { input: true, output: false, queryKey: 'none' },
    biases: { queryKeyValue: false, output: false, gateUp: false, down: false },
    activation: 'silu',
    scoreScale: Math.fround(1 / Math.fround(Math.sqrt(headDim))),
    scoreCap: 0,
    logitCap: 0,
    embeddingScale: 1,
    residualScale: 1,
    rotations: [{ frequencies, magnitude: 1, beyond: null }],
    layerFeatures: Array.from({ length: layers }, () => ({ window: 0, rotation: 0, experts: false })),
    experts: null,
  };
}
