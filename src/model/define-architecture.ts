import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import type { Activation, Experts, ModelShape, Rotation } from '../pack/manifest.ts';
import { plainFeatures } from '../pack/plain-shape.ts';
import type { Architecture, ModelConfig, TensorNames } from './architecture.ts';
import { invalidConfig } from './checkpoint-error.ts';
import { type LayerKind, longestContext, readRotation, ropeFields } from './rope-config.ts';

export const count = (most: number) => v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(most));
export const positive = (most: number) => v.pipe(v.number(), v.gtValue(0), v.maxValue(most));
const tokenId = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 22));

/** Fields of config.json that all families have. */
const commonFields = {
  vocab_size: count(2 ** 22),
  hidden_size: count(2 ** 16),
  intermediate_size: count(2 ** 20),
  num_hidden_layers: count(1024),
  num_attention_heads: count(1024),
  num_key_value_heads: v.nullish(count(1024)),
  head_dim: v.nullish(count(1024)),
  hidden_act: v.nullish(v.string()),
  max_position_embeddings: v.nullish(count(2 ** 24)),
  rms_norm_eps: v.nullish(positive(1)),
  tie_word_embeddings: v.nullish(v.boolean()),
  sliding_window: v.nullish(count(2 ** 24)),
  layer_types: v.nullish(v.pipe(v.array(v.string()), v.maxLength(1024))),
  quantization_config: v.nullish(v.looseObject({})),
  bos_token_id: v.nullish(tokenId),
  eos_token_id: v.nullish(v.union([tokenId, v.pipe(v.array(tokenId), v.maxLength(64))])),
  ...ropeFields,
};
export type CommonFields = v.InferOutput<v.ObjectSchema<typeof commonFields, undefined>>;

/** What config.json means where it leaves something out: the defaults of the family's class in transformers. */
export interface ConfigDefaults {
  readonly tied?: boolean;
  readonly normEpsilon?: number;
  readonly theta?: number;
  readonly maxPositions?: number;
  /** Else width / heads. */
  readonly headDim?: number;
  /** Else as many as query heads. */
  readonly kvHeads?: number;
  /** Of layers that slide. */
  readonly slidingWindow?: number;
  /** See RopeContext. */
  readonly originalPositions?: number;
  readonly stopTokens?: readonly number[];
  readonly beginToken?: number;
}

/** How a model differs from the plainest one (see plainFeatures). */
export interface Features {
  readonly norms?: Partial<ModelShape['norms']>;
  readonly biases?: Partial<ModelShape['biases']>;
  /** Name of the activation; hidden_act, or else silu, where this is left out. */
  readonly activation?: string;
  /** Of each head: overrides the size that config.json gives. */
  readonly scoreScale?: number;
  readonly scoreCap?: number;
  readonly logitCap?: number;
  readonly embeddingScale?: number;
  readonly residualScale?: number;
  readonly normOffset?: number;
  readonly bufferedScale?: boolean;
  readonly logitScale?: number;
  /** Whether a layer slides where config.json has no layer_types; none does where this is left out. */
  readonly slides?: (layer: number) => boolean;
  /** False: layer_types and sliding_window are not in use. */
  readonly windows?: boolean;
  /** Whether the queries and keys of a layer are rotated; all are where this is left out. */
  readonly rotates?: (layer: number) => boolean;
  /** Kinds of layers with rotations of their own. */
  readonly rotations?: readonly LayerKind[];
  readonly experts?: Experts;
  /** Whether a layer has them; all have where this is left out. */
  readonly hasExperts?: (layer: number) => boolean;
  /** What of the config cannot be computed. */
  readonly unsupported?: string | undefined;
}

export interface ArchitectureDefinition<Entries extends v.ObjectEntries> {
  readonly modelType: string;
  readonly className: string;
  readonly names: TensorNames;
  readonly defaults?: ConfigDefaults;
  /** Fields of config.json that only this family has. */
  readonly fields: Entries;
  /** `c`: the checked fields. */
  readonly features: (c: CommonFields & v.InferOutput<v.ObjectSchema<Entries, undefined>>) => Features;
  /** What comes before the fields are checked: configs that hold the model's in a part of them. */
  readonly unwrap?: (config: unknown) => unknown;
  /** See Architecture. */
  readonly otherNames?: Architecture['otherNames'];
  readonly prefixes?: Architecture['prefixes'];
}

/** An architecture out of its data and hooks. */
export function defineArchitecture<Entries extends v.ObjectEntries>(
  definition: ArchitectureDefinition<Entries>,
): Architecture {
  const { modelType, className, names, fields } = definition;
  const common = v.object(commonFields);
  const own = v.object(fields);
  const readConfig = (config: unknown, file: string): ModelConfig => {
    const unwrapped = definition.unwrap ? definition.unwrap(config) : config;
    const checked = check(common, unwrapped, file);
    const foreign = foreignField(unwrapped as Record<string, unknown>, fields);
    if (foreign) throw unsupported({ file, className }, foreign, 'the usual values');
    const features = definition.features({ ...checked, ...check(own, unwrapped, file) });
    return modelConfig(checked, definition.defaults ?? {}, features, { file, className });
  };
  const { otherNames = [], prefixes = [] } = definition;
  return { modelType, className, names, otherNames, prefixes, readConfig };
}

/** Fields that some families compute and others do not, with the value that makes no difference. */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  attn_logit_softcapping: 0,
  final_logit_softcapping: 0,
  embedding_multiplier: 1,
  residual_multiplier: 1,
  logits_scaling: 1,
  rope_interleaved: false,
};

/** A field of another family that would make a difference, with its value. */
function foreignField(config: Record<string, unknown>, own: object): string | undefined {
  const found = Object.entries(NEUTRAL).find(
    ([name, neutral]) => !(name in own) && (config[name] ?? neutral) !== neutral,
  );
  return found && `${found[0]} ${JSON.stringify(config[found[0]]).slice(0, 50)}`;
}

function check<Schema extends v.GenericSchema>(
  schema: Schema,
  config: unknown,
  file: string,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, config, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw invalidConfig(file, `${v.getDotPath(issue) ?? 'the top level'}: ${issue.message}`);
}

interface Place {
  readonly file: string;
  readonly className: string;
}

const unsupported = ({ file, className }: Place, what: string, supported: string): PotluckError =>
  new PotluckError(
    'UNSUPPORTED_MODEL',
    `${file}: ${className} with ${what} is not supported. Supported: ${supported}.`,
  );

function modelConfig(
  c: CommonFields,
  defaults: ConfigDefaults,
  features: Features,
  place: Place,
): ModelConfig {
  const { file } = place;
  if (c.quantization_config) throw unsupported(place, 'a quantization_config', 'weights in BF16, F16 or F32');
  if (features.unsupported) throw unsupported(place, features.unsupported, 'the usual values');
  const kvHeads = orDefault(c.num_key_value_heads, defaults.kvHeads) ?? c.num_attention_heads;
  const headDim = c.head_dim ?? defaults.headDim ?? c.hidden_size / c.num_attention_heads;
  if (c.num_attention_heads % kvHeads !== 0)
    throw invalidConfig(
      file,
      `${c.num_attention_heads} attention heads are not shared evenly by ${kvHeads} key-value heads`,
    );
  if (headDim % 2 !== 0)
    throw invalidConfig(file, `a head dimension of ${headDim} cannot be rotated in pairs`);
  const layers = c.num_hidden_layers;
  const maxPositions = c.max_position_embeddings ?? defaults.maxPositions ?? 2048;
  const kinds = features.rotations ?? ['full_attention'];
  const { theta = 10000, originalPositions } = defaults;
  const rope = { headDim, maxPositions, originalPositions, theta, file };
  const rotations = kinds.map(kind => readRotation(c, rope, kind));
  const stops = c.eos_token_id ?? [];
  return {
    shape: {
      ...plainFeatures(layers, headDim, []),
      width: c.hidden_size,
      layers,
      queryHeads: c.num_attention_heads,
      kvHeads,
      headDim,
      ffnWidth: c.intermediate_size,
      vocabulary: c.vocab_size,
      context: longestContext(c, maxPositions),
      normEpsilon: c.rms_norm_eps ?? defaults.normEpsilon ?? 1e-6,
      activation: activation(features.activation ?? c.hidden_act ?? 'silu', place),
      ...given(features),
      rotations,
      layerFeatures: layerFeatures(c, defaults, features, rotations, kinds, place),
      experts: features.experts ?? null,
    },
    tiedHead: c.tie_word_embeddings ?? defaults.tied ?? false,
    normOffset: features.normOffset ?? 0,
    bufferedScale: features.bufferedScale ?? false,
    logitScale: features.logitScale ?? 1,
    stopTokens: typeof stops === 'number' ? [stops] : stops,
    beginToken: c.bos_token_id ?? null,
    usualTokens: {
      stopTokens: (c.eos_token_id === undefined ? defaults.stopTokens : undefined) ?? [],
      beginToken: (c.bos_token_id === undefined ? defaults.beginToken : undefined) ?? null,
    },
  };
}

/** A field that is left out means the default; null does not. */
const orDefault = <T>(field: T | null | undefined, byDefault: T | undefined): T | null | undefined =>
  field === undefined ? byDefault : field;

/** Those features that are numbers of the shape. */
function given(features: Features): Partial<ModelShape> {
  const { norms, biases, scoreScale, scoreCap, logitCap, embeddingScale, residualScale } = features;
  const numbers = { scoreScale, scoreCap, logitCap, embeddingScale, residualScale };
  const set = Object.entries(numbers).filter(([, value]) => value !== undefined);
  return {
    ...(norms ? { norms: { input: true, output: false, queryKey: 'none', ...norms } } : {}),
    ...(biases
      ? { biases: { queryKeyValue: false, output: false, gateUp: false, down: false, ...biases } }
      : {}),
    ...Object.fromEntries(set.map(([name, value]) => [name, Math.fround(value!)])),
  };
}

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu_pytorch_tanh: 'gelu-tanh',
  gelu_new: 'gelu-tanh',
};

function activation(name: string, place: Place): Activation {
  if (Object.hasOwn(ACTIVATIONS, name)) return ACTIVATIONS[name]!;
  throw unsupported(place, `the activation ${name.slice(0, 50)}`, Object.keys(ACTIVATIONS).join(', '));
}

function layerFeatures(
  c: CommonFields,
  defaults: ConfigDefaults,
  features: Features,
  rotations: readonly Rotation[],
  kinds: readonly LayerKind[],
  place: Place,
): ModelShape['layerFeatures'] {
  const layers = c.num_hidden_layers;
  const window = orDefault(c.sliding_window, defaults.slidingWindow) ?? 0;
  const types = c.layer_types;
  if (types && types.length !== layers)
    throw invalidConfig(place.file, `layer_types has ${types.length} layers, not ${layers}`);
  return Array.from({ length: layers }, (_, layer) => {
    const type = types?.[layer] ?? (features.slides?.(layer) ? 'sliding_attention' : 'full_attention');
    if (type !== 'full_attention' && type !== 'sliding_attention')
      throw unsupported(place, `layers of ${type.slice(0, 50)}`, 'full_attention, sliding_attention');
    const slides = type === 'sliding_attention' && features.windows !== false;
    if (slides && window === 0)
      throw unsupported(place, 'layers that slide and no sliding_window', 'a window where layers slide');
    const rotates = features.rotates?.(layer) ?? true;
    return {
      window: slides ? window : 0,
      rotation: rotates ? Math.max(0, rotations.length === 1 ? 0 : kinds.indexOf(type)) : -1,
      experts: features.experts !== undefined && (features.hasExperts?.(layer) ?? true),
    };
  });
}
