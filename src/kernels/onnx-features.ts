import { PotluckError } from '../errors/errors.ts';
import type { ModelShape } from '../pack/manifest.ts';

/** Features that this backend does not compute, each with whether a shape has it. */
const LACKING: readonly (readonly [name: string, has: (s: ModelShape) => boolean])[] = [
  ['norms of outputs', s => s.norms.output],
  ['layers without norms before them', s => !s.norms.input],
  ['norms of queries and keys', s => s.norms.queryKey !== 'none'],
  ['biases', s => Object.values(s.biases).some(Boolean)],
  ['GELU', s => s.activation !== 'silu'],
  ['soft caps', s => s.scoreCap > 0 || s.logitCap > 0],
  ['a residual multiplier', s => s.residualScale !== 1],
  ['experts', s => s.experts !== null],
  ['sliding windows', s => s.layerFeatures.some(({ window }) => window > 0 && window < s.context)],
  ['layers that rotate differently', s => s.layerFeatures.some(({ rotation }) => rotation !== 0)],
  [
    'rotations of some channels, or that depend on length',
    s =>
      s.rotations.length !== 1 ||
      s.rotations.some(r => r.beyond !== null || r.magnitude !== 1 || 2 * r.frequencies.length !== s.headDim),
  ],
];

/** Throws UNSUPPORTED_MODEL where onnxruntime does not compute what a model needs. */
export function refuseFeatures(shape: ModelShape): void {
  const lacking = LACKING.filter(([, has]) => has(shape)).map(([name]) => name);
  if (lacking.length === 0) return;
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `This model has ${lacking.join(', ')}, which Potluck does not compute with onnxruntime. ` +
      'Install a C++ compiler, so that the native addon can be built: potluck doctor says how.',
  );
}
