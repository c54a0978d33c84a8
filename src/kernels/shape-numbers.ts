import type { ModelShape } from '../pack/manifest.ts';
import type { ModelMemory } from './backend.ts';

const QUERY_KEY_NORMS: Record<ModelShape['norms']['queryKey'], number> = { none: 0, head: 1, whole: 2 };

/** The numbers of a model in the order of src/kernels/native/shape_args.h. */
export function shapeNumbers(
  s: ModelShape,
  limits: Pick<ModelMemory, 'attentionTiles' | 'kvPages' | 'maxTokens' | 'maxLogitRows'>,
): Float64Array {
  const { norms, biases, experts, tiling } = s;
  return Float64Array.from([
    s.weights === 'w4' ? 0 : 1,
    s.width,
    s.layers,
    s.queryHeads,
    s.kvHeads,
    s.headDim,
    s.ffnWidth,
    s.vocabulary,
    s.context,
    s.normEpsilon,
    tiling.partsPerKvHead,
    tiling.ffnColumns,
    tiling.headRows,
    s.hadamard,
    s.kvBits,
    Number(norms.input),
    Number(norms.output),
    QUERY_KEY_NORMS[norms.queryKey],
    Number(biases.queryKeyValue),
    Number(biases.output),
    Number(biases.gateUp),
    Number(biases.down),
    s.activation === 'silu' ? 0 : 1,
    s.scoreScale,
    s.scoreCap,
    s.logitCap,
    s.residualScale,
    experts?.count ?? 0,
    experts?.perToken ?? 0,
    experts?.width ?? 0,
    experts?.sharedWidth ?? 0,
    Number(experts?.normalized ?? false),
    limits.attentionTiles,
    limits.kvPages,
    limits.maxTokens,
    limits.maxLogitRows,
    s.rotations.length,
    ...s.rotations.flatMap(({ frequencies, magnitude }) => [frequencies.length, magnitude]),
    ...s.layerFeatures.flatMap(f => [f.window, f.rotation, Number(f.experts)]),
  ]);
}
