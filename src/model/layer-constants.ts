import type { ModelShape } from '../pack/manifest.ts';
import { floatToBf16 } from '../pack/number-formats.ts';
import {
  BLOCK_ROWS,
  constantPlace,
  constantsFloats,
  GROUP,
  type LayerConstant,
  roundUp,
} from '../pack/tile-shape.ts';
import { setAllToA8 } from './activation-levels.ts';
import type { Architecture, ModelConfig } from './architecture.ts';
import type { Checkpoint } from './checkpoint.ts';
import { LayerReader } from './layer-tensors.ts';

/** Norms of a layer among the constants. */
const NORMS = ['attentionNorm', 'ffnNorm', 'attentionOutputNorm', 'ffnOutputNorm'] as const;

/** The constants blob; scales are still 1. Rejects with what reading tensors rejects with. */
export async function readConstants(
  checkpoint: Checkpoint,
  architecture: Architecture,
  config: ModelConfig,
  shape: ModelShape,
): Promise<ArrayBuffer> {
  const constants = new Float32Array(constantsFloats(shape)).fill(1);
  setAllToA8(shape, constants);
  for (let layer = 0; layer < shape.layers; layer++) {
    const reader = new LayerReader(checkpoint, architecture, shape, layer);
    const put = (what: LayerConstant, values: Float32Array) => {
      const { first, floats } = constantPlace(shape, what, layer);
      constants.set(values.subarray(0, floats), first);
    };
    for (const norm of NORMS)
      put(
        norm,
        (await reader.vector(norm)).map(value => value + config.normOffset),
      );
    // What a half layer adds is scaled, its bias included.
    for (const bias of ['outputBias', 'downBias'] as const)
      put(
        bias,
        (await reader.vector(bias)).map(value => value * shape.residualScale),
      );
    put('router', await routerPanel(reader, shape));
  }
  const last = await checkpoint.readRows(architecture.names.finalNorm, 0, 1);
  const { first } = constantPlace(shape, 'finalNorm');
  const norm = constants.subarray(first, first + shape.width);
  last.copy(0, 0, shape.width, norm);
  for (let i = 0; i < norm.length; i++) norm[i] = (norm[i]! + config.normOffset) * config.logitScale;
  return constants.buffer;
}

/** The router as a bf16 panel: blocks of 16 experts, for each column 16 bfloat16; empty in a layer without experts. */
async function routerPanel(reader: LayerReader, s: ModelShape): Promise<Float32Array> {
  const panel = new Float32Array(constantPlace(s, 'router').floats);
  if (!reader.has('router')) return panel;
  const columns = roundUp(s.width, GROUP);
  const words = new Uint16Array(panel.buffer);
  const rows = await reader.rows('router', 0, s.experts!.count);
  const values = new Float32Array(s.width);
  for (let expert = 0; expert < s.experts!.count; expert++) {
    rows.copy(expert, 0, s.width, values);
    const lane = expert % BLOCK_ROWS;
    const block = (expert - lane) * columns;
    for (let k = 0; k < s.width; k++) words[block + k * BLOCK_ROWS + lane] = floatToBf16(values[k]!);
  }
  return panel;
}
