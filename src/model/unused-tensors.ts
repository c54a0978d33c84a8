import { PotluckError } from '../errors/errors.ts';
import type { Architecture, ModelConfig } from './architecture.ts';
import type { Checkpoint } from './checkpoint.ts';
import { LayerReader } from './layer-tensors.ts';

/** Most elements of a bias. */
const MOST_ROWS = 2 ** 22;
/** Tables that are computed from the config. */
const COMPUTED = /\.(?:rotary_emb\.inv_freq|rope\.freqs)$/;

/**
 * Refuses a checkpoint with a tensor in the layers, the embedding, the final norm or the head that the family does not use: a bias, a
 * norm, an adapter would change what the model says. Biases of zeros may be there (AutoGPTQ writes them everywhere); so may other
 * parts of a checkpoint: towers that see, layers beyond those of the config, which predict further tokens.
 * Rejects with UNSUPPORTED_MODEL, CHECKPOINT_INVALID or DISK_READ.
 */
export async function refuseUnused(
  checkpoint: Checkpoint,
  architecture: Architecture,
  { shape }: ModelConfig,
): Promise<void> {
  const { embedding, finalNorm, head } = architecture.names;
  const used = new Set([embedding, finalNorm, head]);
  for (let layer = 0; layer < shape.layers; layer++)
    for (const name of new LayerReader(checkpoint, architecture, shape, layer).names(
      shape.experts?.count ?? 0,
    ))
      used.add(name);
  const beside = [embedding, finalNorm, head].map(name => name.replace(/weight$/, ''));
  for (const [name, tensorShape] of checkpoint.tensors()) {
    if (used.has(name) || COMPUTED.test(name)) continue;
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    const counts = layer === undefined ? beside.some(each => name.startsWith(each)) : +layer < shape.layers;
    if (!counts || (await isZeroBias(checkpoint, name, tensorShape))) continue;
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `${checkpoint.path}: has the tensor ${name.slice(0, 200)}, which a ${architecture.className} with this config has not. Use a checkpoint whose config says what all its tensors are for; merge adapters first.`,
    );
  }
}

async function isZeroBias(checkpoint: Checkpoint, name: string, shape: readonly number[]): Promise<boolean> {
  if (!name.endsWith('.bias') || shape.length !== 1 || shape[0]! > MOST_ROWS) return false;
  const values = new Float32Array(shape[0]!);
  (await checkpoint.readRows(name, 0, 1)).copy(0, 0, values.length, values);
  return values.every(value => value === 0);
}
