import { expect, test } from 'vitest';
import { llama } from '../../src/model/architecture-llama.ts';
import { findArchitecture } from '../../src/model/architectures.ts';
import { SMALL } from './small-checkpoint.ts';

const read = (more: object) => llama.readConfig({ ...SMALL, ...more }, 'config.json');

test('old and new places of rope settings agree', () => {
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
  const old = read({ rope_theta: 500000, rope_scaling: { ...llama3, rope_type: 'llama3' } });
  const older = read({ rope_theta: 500000, rope_scaling: { ...llama3, type: 'llama3' } });
  const fresh = read({ rope_parameters: { ...llama3, rope_type: 'llama3', rope_theta: 500000 } });
  expect(fresh).toEqual(old);
  expect(older).toEqual(old);
  expect(old.shape.rotations).not.toEqual(read({ rope_theta: 500000 }).shape.rotations);
  expect(read({ rope_scaling: null, rope_theta: 10000 })).toEqual(read({}));
});

test('what may be missing has the defaults of transformers', () => {
  const {
    num_key_value_heads: _kv,
    head_dim: _dim,
    rms_norm_eps: _eps,
    tie_word_embeddings: _tie,
    eos_token_id: _eos,
    ...rest
  } = SMALL;
  const { shape, ...config } = llama.readConfig(
    { ...rest, num_attention_heads: 8, eos_token_id: null },
    'config.json',
  );
  expect(shape).toMatchObject({ kvHeads: 8, headDim: 6, normEpsilon: 1e-6 });
  expect(config).toMatchObject({ tiedHead: false, stopTokens: [], beginToken: 1 });
});

test('a stop token may be one or several', () => {
  expect(read({ eos_token_id: 4 }).stopTokens).toEqual([4]);
  expect(read({ eos_token_id: [4, 5] }).stopTokens).toEqual([4, 5]);
});

test.each([
  ['hidden_act', 'gelu'],
  ['hidden_act', 'constructor'],
  ['quantization_config', { bits: 4 }],
  ['rope_scaling', { type: 'xpos', factor: 4 }],
  ['rope_scaling', { type: 'constructor', factor: 4 }],
  ['layer_types', ['full_attention', 'linear_attention']],
  ['attn_logit_softcapping', 30],
  ['final_logit_softcapping', 30],
  ['residual_multiplier', 0.2],
  ['rope_interleaved', true],
])('%s of %j is not supported, and the message names it', (field, value) => {
  expect(() => read({ [field]: value })).toThrow(
    expect.objectContaining({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringMatching(/config\.json.*Supported: /),
    }),
  );
});

test.each([
  ['hidden_size', 0],
  ['hidden_size', '48'],
  ['hidden_size', 1e9],
  ['num_hidden_layers', -1],
  ['num_hidden_layers', 1e6],
  ['num_attention_heads', 3.5],
  ['num_key_value_heads', 3],
  ['head_dim', 9],
  ['rms_norm_eps', 0],
  ['vocab_size', null],
  ['eos_token_id', -1],
  ['eos_token_id', 'x'],
  ['rope_scaling', { rope_type: 'llama3', factor: 8 }],
  [
    'rope_parameters',
    {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 4,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
  ],
  ['rope_theta', Number.POSITIVE_INFINITY],
  ['rope_scaling', { rope_type: 'linear' }],
  ['rope_scaling', { factor: 4 }],
  ['rope_scaling', { rope_type: 'longrope', short_factor: [1], long_factor: [1] }],
  ['partial_rotary_factor', 0.1],
  ['layer_types', ['full_attention']],
])('%s of %j is refused, and the config blamed', (field, value) => {
  expect(() => read({ [field]: value })).toThrow(
    expect.objectContaining({
      code: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(/^config\.json: .*Correct the config/),
    }),
  );
});

test('a width that the heads do not divide is refused where there is no head_dim', () => {
  expect(() => read({ head_dim: null, hidden_size: 50 })).toThrow(
    expect.objectContaining({ code: 'CHECKPOINT_INVALID' }),
  );
});

test('another architecture is refused by its name, with those that are known', () => {
  const config = { architectures: ['MambaForCausalLM'], model_type: 'mamba' };
  expect(() => findArchitecture(config, 'config.json')).toThrow(
    expect.objectContaining({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringMatching(
        /config\.json.*MambaForCausalLM \(model_type mamba\)\. Supported: LlamaForCausalLM.*GraniteForCausalLM/,
      ),
    }),
  );
});

test('a config that names nothing is no known architecture', () => {
  for (const config of [
    null,
    [],
    {},
    { model_type: 'llama', architectures: ['LlamaForSequenceClassification'] },
  ])
    expect(() => findArchitecture(config, 'config.json')).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED_MODEL' }),
    );
  expect(findArchitecture({ model_type: 'llama' }, 'config.json').className).toBe('LlamaForCausalLM');
});

test('fields of other families that make no difference may be there', () => {
  const neutral = { attn_logit_softcapping: null, residual_multiplier: 1, rope_interleaved: false };
  expect(read(neutral)).toEqual(read({}));
});
