import { invalidCheckpoint } from '../checkpoint-error.ts';
import { BF16, type ElementFormat, F16, F32 } from '../element-formats.ts';
import { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 } from './blocks.ts';
import { Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } from './k-blocks.ts';

/** How the numbers of a tensor are stored. */
export interface TensorType {
  readonly name: string;
  readonly blockElements: number;
  readonly blockBytes: number;
  /** Null where this type is known by its size only. */
  readonly format: ElementFormat | null;
}

const readable = (format: ElementFormat): TensorType => ({ ...sizeOf(format), format });
const sizeOf = ({ name, blockElements, blockBytes }: ElementFormat) => ({ name, blockElements, blockBytes });
const known = (name: string, blockElements: number, blockBytes: number): TensorType => ({
  name,
  blockElements,
  blockBytes,
  format: null,
});

/** By the numbers that ggml gives them. */
const TYPES: Readonly<Record<number, TensorType>> = {
  0: readable(F32),
  1: readable(F16),
  2: readable(Q4_0),
  3: readable(Q4_1),
  6: readable(Q5_0),
  7: readable(Q5_1),
  8: readable(Q8_0),
  10: readable(Q2_K),
  11: readable(Q3_K),
  12: readable(Q4_K),
  13: readable(Q5_K),
  14: readable(Q6_K),
  16: known('IQ2_XXS', 256, 66),
  17: known('IQ2_XS', 256, 74),
  18: known('IQ3_XXS', 256, 98),
  19: known('IQ1_S', 256, 50),
  20: known('IQ4_NL', 32, 18),
  21: known('IQ3_S', 256, 110),
  22: known('IQ2_S', 256, 82),
  23: known('IQ4_XS', 256, 136),
  24: known('I8', 1, 1),
  25: known('I16', 1, 2),
  26: known('I32', 1, 4),
  27: known('I64', 1, 8),
  28: known('F64', 1, 8),
  29: known('IQ1_M', 256, 56),
  30: readable(BF16),
  34: known('TQ1_0', 256, 54),
  35: known('TQ2_0', 256, 66),
  39: known('MXFP4', 32, 17),
};

/** Names of the types whose numbers can be read. */
export const READABLE_TYPES: readonly string[] = Object.values(TYPES)
  .filter(type => type.format !== null)
  .map(type => type.name);

/** Throws CHECKPOINT_INVALID for a number that ggml does not know. */
export function tensorType(number: number, path: string, tensor: string): TensorType {
  const type = TYPES[number];
  if (type) return type;
  throw invalidCheckpoint(
    path,
    `tensor ${JSON.stringify(tensor.slice(0, 100))} has the unknown type ${number}`,
  );
}
