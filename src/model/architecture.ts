import type { ModelShape } from '../pack/manifest.ts';
import type { SpecialTokens } from './checkpoint-tokens.ts';
import type { LayerTensor } from './layer-tensors.ts';

/** What config.json says of a model; a ModelShape but for what the packer chooses. */
export interface ModelConfig {
  readonly shape: Omit<ModelShape, 'weights' | 'tiling' | 'hadamard' | 'kvBits'>;
  /** Whether the head is the embedding. */
  readonly tiedHead: boolean;
  /** Added to every norm weight: 1 where a checkpoint stores how far they are from 1. */
  readonly normOffset: number;
  /**
   * Whether transformers keeps the embedding scale in a buffer: casting a whole model to bfloat16 rounds it then, as it does
   * RoPE frequencies.
   */
  readonly bufferedScale: boolean;
  /** Multiplies logits; goes into the final norm. */
  readonly logitScale: number;
  readonly stopTokens: readonly number[];
  readonly beginToken: number | null;
  /** Those of the family, where config.json leaves them out. */
  readonly usualTokens: SpecialTokens;
}

/**
 * Names of tensors; `{layer}` and `{expert}` stand for numbers. Matrices that share a name lie in that tensor one behind
 * the other, in the order query, key, value or gate, up. An expert's name without `{expert}` is of a tensor [experts, rows, columns].
 */
export interface TensorNames {
  readonly embedding: string;
  readonly head: string;
  readonly finalNorm: string;
  readonly layer: Readonly<Partial<Record<LayerTensor, string>>>;
}

/**
 * A family of checkpoints. A further family is a further file that makes one of these (see `defineArchitecture`), and a
 * line in architectures.ts: nothing else asks for a family's name.
 */
export interface Architecture {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** `architectures` of config.json. */
  readonly className: string;
  readonly names: TensorNames;
  /** Names that tensors of layers may have instead, in checkpoints that were written by other versions of their library. */
  readonly otherNames: readonly TensorNames['layer'][];
  /** What may stand before every name, and instead of `model.` at its start, in checkpoints of models of more than text. */
  readonly prefixes: readonly (readonly [whole: string, model: string])[];
  /** Reads config.json; `file` names it. Throws CHECKPOINT_INVALID, or UNSUPPORTED_MODEL for a variant that is not. */
  readonly readConfig: (config: unknown, file: string) => ModelConfig;
}
