import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import type { ModelConfig } from './architecture.ts';
import { type RopeScaling, ropeFrequencies } from './rope-frequencies.ts';
import { invalidCheckpoint } from './safetensors-header.ts';

const count = (most: number) => v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(most));
const positive = (most: number) => v.pipe(v.number(), v.gtValue(0), v.maxValue(most));
const tokenId = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 22));

const ropeSchema = v.object({
  rope_type: v.optional(v.string()),
  type: v.optional(v.string()),
  rope_theta: v.optional(positive(1e12)),
  partial_rotary_factor: v.optional(v.number()),
  factor: v.optional(positive(1e6)),
  low_freq_factor: v.optional(positive(1e6)),
  high_freq_factor: v.optional(positive(1e6)),
  original_max_position_embeddings: v.optional(count(2 ** 24)),
});

const configSchema = v.object({
  vocab_size: count(2 ** 22),
  hidden_size: count(2 ** 16),
  intermediate_size: count(2 ** 20),
  num_hidden_layers: count(1024),
  num_attention_heads: count(1024),
  num_key_value_heads: v.nullish(count(1024)),
  head_dim: v.nullish(count(1024)),
  hidden_act: v.optional(v.string(), 'silu'),
  max_position_embeddings: v.optional(count(2 ** 24), 2048),
  rms_norm_eps: v.optional(positive(1), 1e-6),
  tie_word_embeddings: v.optional(v.boolean(), false),
  attention_bias: v.optional(v.boolean(), false),
  mlp_bias: v.optional(v.boolean(), false),
  partial_rotary_factor: v.optional(v.number()),
  rope_theta: v.nullish(positive(1e12)),
  rope_scaling: v.nullish(ropeSchema),
  rope_parameters: v.nullish(ropeSchema),
  quantization_config: v.nullish(v.looseObject({})),
  bos_token_id: v.nullish(tokenId),
  eos_token_id: v.nullish(v.union([tokenId, v.pipe(v.array(tokenId), v.maxLength(64))])),
});

type Config = v.InferOutput<typeof configSchema>;

/** Reads the config.json of a LlamaForCausalLM; see Architecture.readConfig. */
export function readLlamaConfig(config: unknown, file: string): ModelConfig {
  const result = v.safeParse(configSchema, config, { abortEarly: true });
  if (!result.success) {
    const issue = result.issues[0];
    throw invalidCheckpoint(file, `${v.getDotPath(issue) ?? 'the top level'}: ${issue.message}`);
  }
  const c = result.output;
  refuseVariants(c, file);
  const kvHeads = c.num_key_value_heads ?? c.num_attention_heads;
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  if (c.num_attention_heads % kvHeads !== 0)
    throw invalidCheckpoint(
      file,
      `${c.num_attention_heads} attention heads are not shared evenly by ${kvHeads} key-value heads`,
    );
  if (headDim % 2 !== 0)
    throw invalidCheckpoint(file, `a head dimension of ${headDim} cannot be rotated in pairs`);
  const stops = c.eos_token_id ?? [];
  return {
    shape: {
      width: c.hidden_size,
      layers: c.num_hidden_layers,
      queryHeads: c.num_attention_heads,
      kvHeads,
      headDim,
      ffnWidth: c.intermediate_size,
      vocabulary: c.vocab_size,
      context: c.max_position_embeddings,
      normEpsilon: c.rms_norm_eps,
      ropeFrequencies: ropeFrequencies(headDim, ropeTheta(c), ropeScaling(c, file)),
    },
    tiedHead: c.tie_word_embeddings,
    stopTokens: typeof stops === 'number' ? [stops] : stops,
    beginToken: c.bos_token_id ?? null,
  };
}

function unsupported(file: string, what: string, supported: string): PotluckError {
  return new PotluckError(
    'UNSUPPORTED_MODEL',
    `${file}: LlamaForCausalLM with ${what} is not supported. Supported: ${supported}.`,
  );
}

function refuseVariants(c: Config, file: string): void {
  if (c.attention_bias) throw unsupported(file, 'attention_bias', 'attention without biases');
  if (c.mlp_bias) throw unsupported(file, 'mlp_bias', 'an FFN without biases');
  if (c.hidden_act !== 'silu') throw unsupported(file, `hidden_act ${c.hidden_act.slice(0, 50)}`, 'silu');
  if (c.quantization_config) throw unsupported(file, 'a quantization_config', 'weights in BF16, F16 or F32');
  const part = c.rope_parameters?.partial_rotary_factor ?? c.partial_rotary_factor ?? 1;
  if (part !== 1) throw unsupported(file, `partial_rotary_factor ${part}`, '1');
}

/** transformers from version 5 on keeps theta inside rope_parameters; before, it stood at the top. */
const ropeTheta = (c: Config): number => c.rope_parameters?.rope_theta ?? c.rope_theta ?? 10000;

function ropeScaling(c: Config, file: string): RopeScaling | undefined {
  const rope = c.rope_parameters ?? c.rope_scaling;
  const type = rope?.rope_type ?? rope?.type ?? 'default';
  if (!rope || type === 'default') return undefined;
  if (type !== 'llama3') throw unsupported(file, `rope type ${type.slice(0, 50)}`, 'default, llama3');
  const {
    factor,
    low_freq_factor: low,
    high_freq_factor: high,
    original_max_position_embeddings: context,
  } = rope;
  if (factor === undefined || low === undefined || high === undefined || context === undefined)
    throw invalidCheckpoint(
      file,
      'rope type llama3 lacks factor, low_freq_factor, high_freq_factor or original_max_position_embeddings',
    );
  if (high <= low) throw invalidCheckpoint(file, 'high_freq_factor is not over low_freq_factor');
  return { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext: context };
}
