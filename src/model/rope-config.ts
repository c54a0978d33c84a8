import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import type { Rotation } from '../pack/manifest.ts';
import { invalidConfig } from './checkpoint-error.ts';
import { makeRotation, type RopeParameters } from './rope-frequencies.ts';

const positive = (most: number) => v.nullish(v.pipe(v.number(), v.gtValue(0), v.maxValue(most)));
const factors = v.nullish(
  v.pipe(v.array(v.pipe(v.number(), v.gtValue(0), v.maxValue(1e6))), v.maxLength(512)),
);

/** One set of rope_parameters (transformers 5), or rope_scaling (before). */
const ropeSchema = v.object({
  rope_type: v.nullish(v.string()),
  type: v.nullish(v.string()),
  rope_theta: positive(1e12),
  partial_rotary_factor: positive(1),
  factor: positive(1e6),
  low_freq_factor: positive(1e6),
  high_freq_factor: positive(1e6),
  original_max_position_embeddings: positive(2 ** 24),
  attention_factor: positive(1e3),
  mscale: v.nullish(v.number()),
  mscale_all_dim: v.nullish(v.number()),
  beta_fast: positive(1e6),
  beta_slow: positive(1e6),
  truncate: v.nullish(v.boolean()),
  short_factor: factors,
  long_factor: factors,
});
type Rope = v.InferOutput<typeof ropeSchema>;

/** By kind of layer, as models with more than one rotation have it. */
const nestedSchema = v.object({ full_attention: ropeSchema, sliding_attention: v.nullish(ropeSchema) });

export const ropeFields = {
  rope_theta: positive(1e12),
  partial_rotary_factor: positive(1),
  original_max_position_embeddings: positive(2 ** 24),
  rope_scaling: v.nullish(ropeSchema),
  rope_parameters: v.nullish(v.union([nestedSchema, ropeSchema])),
};

/** Fields that rotations are made of. */
export type RopeFields = v.InferOutput<v.ObjectSchema<typeof ropeFields, undefined>>;

export interface RopeContext {
  readonly headDim: number;
  readonly maxPositions: number;
  /** Positions before stretching, where config.json does not say; else maxPositions. */
  readonly originalPositions?: number | undefined;
  /** Where config.json does not say. */
  readonly theta: number;
  readonly file: string;
}

export type LayerKind = 'full_attention' | 'sliding_attention';

const TYPES = ['default', 'linear', 'dynamic', 'yarn', 'longrope', 'llama3'] as const;
/** Names that longrope had before it was one. */
const OLD_NAMES: Readonly<Record<string, string>> = { su: 'longrope', mrope: 'default' };

/** The rotation of layers of a kind. Throws CHECKPOINT_INVALID, or UNSUPPORTED_MODEL for a type that is not known. */
export function readRotation(
  c: RopeFields,
  context: RopeContext,
  kind: LayerKind = 'full_attention',
): Rotation {
  const { headDim, file } = context;
  const rope = ropeOf(c, kind);
  const share = rope.partial_rotary_factor ?? c.partial_rotary_factor ?? 1;
  const channels = Math.floor(headDim * share);
  if (channels < 2 || channels % 2 !== 0)
    throw invalidConfig(file, `${channels} rotated channels of a head cannot be turned in pairs`);
  return makeRotation(channels, parameters(c, rope, channels, context));
}

/** Positions that a model may have, its rotations considered. */
export function longestContext(c: RopeFields, maxPositions: number): number {
  const rope = ropeOf(c, 'full_attention');
  const type = typeOf(rope);
  const factor = rope.factor ?? 1;
  if (type === 'dynamic') return Math.floor(maxPositions * factor);
  if (type === 'yarn' && rope.original_max_position_embeddings)
    return Math.max(maxPositions, Math.floor(rope.original_max_position_embeddings * factor));
  return maxPositions;
}

/** transformers from version 5 on keeps theta inside rope_parameters; before, it stood at the top. */
function ropeOf(c: RopeFields, kind: LayerKind): Rope {
  const given = c.rope_parameters ?? c.rope_scaling ?? {};
  if (!('full_attention' in given)) return given;
  return given[kind] ?? given.full_attention;
}

/**
 * A config of a family that scales positions in layers of full attention alone, with its rotations by kind of layer, as
 * transformers has them from version 5 on. `slidingTheta`: the base of layers that slide where rope_parameters does not say it;
 * that of the others where it gives undefined.
 */
export function rotationsByKind(
  config: unknown,
  slidingTheta: (c: Record<string, unknown>) => unknown = () => undefined,
): unknown {
  if (typeof config !== 'object' || config === null) return config;
  const c = config as Record<string, unknown>;
  const given = (c.rope_parameters ?? c.rope_scaling ?? {}) as Record<string, unknown>;
  if (typeof given !== 'object') return config;
  const nested = 'full_attention' in given || 'sliding_attention' in given;
  const theta = slidingTheta(c) ?? (nested ? c.rope_theta : (given.rope_theta ?? c.rope_theta));
  return {
    ...c,
    rope_parameters: {
      full_attention: withTheta(nested ? given.full_attention : given, c.rope_theta),
      sliding_attention: withTheta(nested ? given.sliding_attention : {}, theta),
    },
  };
}

/** Parameters of a kind of layers, `rope_theta` among them; what is not such is left for the check of the fields. */
const withTheta = (parameters: unknown, rope_theta: unknown): unknown =>
  typeof parameters === 'object' ? { rope_theta, ...parameters } : (parameters ?? { rope_theta });

const typeOf = (rope: Rope): string => {
  const name = rope.rope_type ?? rope.type ?? 'default';
  return Object.hasOwn(OLD_NAMES, name) ? OLD_NAMES[name]! : name;
};

function parameters(c: RopeFields, rope: Rope, channels: number, context: RopeContext): RopeParameters {
  const { file, maxPositions } = context;
  const type = typeOf(rope);
  const known = TYPES.find(name => name === type);
  if (!known)
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `${file}: rope type ${type.slice(0, 50)} is not supported. Supported: ${TYPES.join(', ')}.`,
    );
  if (known === 'default' && !(rope.rope_type ?? rope.type) && (rope.factor ?? 1) !== 1)
    throw invalidConfig(file, `a rope factor of ${rope.factor} has no rope_type`);
  const need = <T>(name: string, value: T | null | undefined): T => {
    if (value === null || value === undefined) throw invalidConfig(file, `rope type ${type} lacks ${name}`);
    return value;
  };
  const original =
    rope.original_max_position_embeddings ??
    c.original_max_position_embeddings ??
    context.originalPositions ??
    maxPositions;
  const llama3 = known === 'llama3';
  const low = llama3 ? need('low_freq_factor', rope.low_freq_factor) : 1;
  const high = llama3 ? need('high_freq_factor', rope.high_freq_factor) : 4;
  if (high <= low) throw invalidConfig(file, 'high_freq_factor is not over low_freq_factor');
  if (llama3) need('original_max_position_embeddings', rope.original_max_position_embeddings);
  const stretch = known === 'longrope' || known === 'yarn' ? maxPositions / original : undefined;
  const list = (name: 'short_factor' | 'long_factor'): readonly number[] => {
    if (known !== 'longrope') return [];
    const values = need(name, rope[name]);
    if (values.length !== channels / 2)
      throw invalidConfig(file, `${name} has ${values.length} numbers, not ${channels / 2}`);
    return values;
  };
  return {
    type: known,
    theta: rope.rope_theta ?? c.rope_theta ?? context.theta,
    factor: known === 'default' ? 1 : need('factor', rope.factor ?? stretch),
    // Of dynamic scaling transformers reads max_position_embeddings alone.
    originalContext: known === 'dynamic' ? maxPositions : original,
    lowFrequencyFactor: low,
    highFrequencyFactor: high,
    attentionFactor: rope.attention_factor ?? null,
    mscale: rope.mscale ?? null,
    mscaleAllDim: rope.mscale_all_dim ?? null,
    betaFast: rope.beta_fast ?? 32,
    betaSlow: rope.beta_slow ?? 1,
    truncate: rope.truncate ?? true,
    shortFactors: list('short_factor'),
    longFactors: list('long_factor'),
  };
}
