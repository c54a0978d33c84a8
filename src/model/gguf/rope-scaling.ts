import { PotluckError } from '../../errors/errors.ts';
import type { MetadataFields } from './metadata-fields.ts';

/** Tensors of divisors of the frequencies, [rotated / 2] each, where the file has them. */
export interface RopeFactors {
  readonly all?: readonly number[];
  readonly short?: readonly number[];
  readonly long?: readonly number[];
}

interface Rope {
  readonly theta: number;
  /** Dimensions of a head that are rotated. */
  readonly rotated: number;
  readonly context: number;
}

/** `rope_scaling` of config.json, or undefined where positions are not scaled. Throws UNSUPPORTED_MODEL. */
export function ropeScaling(fields: MetadataFields, factors: RopeFactors, rope: Rope): object | undefined {
  const original = fields.optionalNumber('{arch}.rope.scaling.original_context_length');
  if (factors.long && factors.short)
    return {
      rope_type: 'longrope',
      long_factor: factors.long,
      short_factor: factors.short,
      original_max_position_embeddings: original ?? rope.context,
    };
  if (factors.all) return llama3Scaling(factors.all, rope) ?? dividedBy(factors.all, rope);
  const type = fields.optionalString('{arch}.rope.scaling.type') ?? 'none';
  const factor =
    fields.optionalNumber('{arch}.rope.scaling.factor') ??
    fields.optionalNumber('{arch}.rope.scale_linear') ??
    1;
  if (factor === 1 || type === 'none') return undefined;
  if (type === 'linear') return { rope_type: 'linear', factor };
  if (type === 'yarn') {
    const fast = fields.optionalNumber('{arch}.rope.scaling.yarn_beta_fast');
    const slow = fields.optionalNumber('{arch}.rope.scaling.yarn_beta_slow');
    return {
      rope_type: 'yarn',
      factor,
      original_max_position_embeddings: original ?? Math.round(rope.context / factor),
      ...(fast === undefined ? {} : { beta_fast: fast }),
      ...(slow === undefined ? {} : { beta_slow: slow }),
    };
  }
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${fields.path}: scales positions by ${type.slice(0, 50)}. Supported in GGUF files: linear, yarn, and factors as tensors.`,
  );
}

/** Contexts of training that Llama's rule is tried with. */
const CONTEXTS = [8192, 4096, 16384, 32768, 2048, 1024, 512, 256, 128, 64, 65536, 131072];
const LOW = 1;
const HIGH = 4;
/** Relative; the file has float32. */
const EQUAL = 1e-5;

/** The parameters of Llama 3's rule that give exactly these divisors, or undefined where none do. */
function llama3Scaling(factors: readonly number[], rope: Rope): object | undefined {
  const factor = Math.max(...factors);
  for (const context of CONTEXTS) {
    const expected = factors.map((_, i) => llama3Factor(i, { factor, context, ...pick(rope) }));
    if (factors.every((value, i) => Math.abs(value - expected[i]!) <= EQUAL * expected[i]!))
      return {
        rope_type: 'llama3',
        factor,
        low_freq_factor: LOW,
        high_freq_factor: HIGH,
        original_max_position_embeddings: context,
      };
  }
  return undefined;
}

const pick = ({ theta, rotated }: Rope) => ({ theta, rotated });

/** What Llama 3's rule divides frequency `i` by. */
function llama3Factor(
  i: number,
  { theta, rotated, factor, context }: { theta: number; rotated: number; factor: number; context: number },
): number {
  const wavelength = 2 * Math.PI * theta ** ((2 * i) / rotated);
  if (wavelength < context / HIGH) return 1;
  if (wavelength > context / LOW) return factor;
  const smooth = (context / wavelength - LOW) / (HIGH - LOW);
  return 1 / ((1 - smooth) / factor + smooth);
}

/** Any divisors at all: those of longrope with the same short and long ones. */
const dividedBy = (factors: readonly number[], { context }: Rope): object => ({
  rope_type: 'longrope',
  long_factor: factors,
  short_factor: factors,
  attention_factor: 1,
  original_max_position_embeddings: context,
});
