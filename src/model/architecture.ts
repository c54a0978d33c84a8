import { PotluckError } from '../errors/errors.ts';
import type { ModelShape } from '../pack/manifest.ts';
import { llama } from './architecture-llama.ts';

/** What config.json says of a model; a ModelShape but for what the packer chooses. */
export interface ModelConfig {
  readonly shape: Omit<ModelShape, 'weights' | 'tiling'>;
  /** Whether the head is the embedding. */
  readonly tiedHead: boolean;
  readonly stopTokens: readonly number[];
  readonly beginToken: number | null;
}

/** Matrices of a layer; stored as [output rows, input columns]. */
export type LayerMatrix = 'query' | 'key' | 'value' | 'output' | 'gate' | 'up' | 'down';
export type LayerNorm = 'attentionNorm' | 'ffnNorm';

/**
 * A family of checkpoints. A further family is a further file with one of these, and a line in ARCHITECTURES: nothing
 * else asks for a family's name.
 */
export interface Architecture {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** `architectures` of config.json. */
  readonly className: string;
  readonly embedding: string;
  readonly head: string;
  readonly finalNorm: string;
  /** Tensor names; `{layer}` stands for the number of the layer. */
  readonly layer: Readonly<Record<LayerMatrix | LayerNorm, string>>;
  /** Reads config.json; `file` names it. Throws CHECKPOINT_INVALID, or UNSUPPORTED_MODEL for a variant that is not. */
  readonly readConfig: (config: unknown, file: string) => ModelConfig;
}

export const ARCHITECTURES: readonly Architecture[] = [llama];

/** Name of a tensor of layer `layer`. */
export const layerTensor = (a: Architecture, what: LayerMatrix | LayerNorm, layer: number): string =>
  a.layer[what].replace('{layer}', String(layer));

/** The architecture that a config.json names. Throws UNSUPPORTED_MODEL. */
export function findArchitecture(config: unknown, file: string): Architecture {
  const top = typeof config === 'object' && config !== null ? (config as Record<string, unknown>) : {};
  const classes = Array.isArray(top.architectures) ? top.architectures : [];
  const found = ARCHITECTURES.find(
    a => top.model_type === a.modelType && (classes.length === 0 || classes.includes(a.className)),
  );
  if (found) return found;
  const named = classes.length > 0 ? classes.join(', ') : 'no class';
  const type = typeof top.model_type === 'string' ? top.model_type : 'none';
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${file}: the architecture is ${named.slice(0, 200)} (model_type ${type.slice(0, 100)}). Supported: ${ARCHITECTURES.map(a => `${a.className} (model_type ${a.modelType})`).join(', ')}.`,
  );
}
