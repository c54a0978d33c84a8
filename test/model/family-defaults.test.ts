import { expect, test } from 'vitest';
import { findArchitecture } from '../../src/model/architectures.ts';

/** Sizes without defaults here, which all families have. */
const SIZES = {
  vocab_size: 51,
  hidden_size: 64,
  intermediate_size: 72,
  num_hidden_layers: 6,
  num_attention_heads: 32,
};

const read = (config: object) => findArchitecture(config, 'config.json').readConfig(config, 'config.json');

/** What the config classes of transformers have where a config.json leaves everything out: logits of few tokens do not show it. */
test.each<[string, object, object]>([
  ['llama', { kvHeads: 32, headDim: 2, normEpsilon: 1e-6, context: 2048 }, { begin: 1, stops: [2] }],
  ['mistral', { kvHeads: 8, headDim: 2, normEpsilon: 1e-6, context: 131072 }, { begin: 1, stops: [2] }],
  ['mixtral', { kvHeads: 8, headDim: 2, normEpsilon: 1e-5, context: 131072 }, { begin: 1, stops: [2] }],
  ['qwen2', { kvHeads: 32, headDim: 2, normEpsilon: 1e-6, context: 32768 }, { begin: null, stops: [] }],
  ['qwen3', { kvHeads: 32, headDim: 128, normEpsilon: 1e-6, context: 32768 }, { begin: null, stops: [] }],
  ['qwen3_moe', { kvHeads: 4, headDim: 2, normEpsilon: 1e-6, context: 32768 }, { begin: null, stops: [] }],
  ['gemma2', { kvHeads: 4, headDim: 256, normEpsilon: 1e-6, context: 8192 }, { begin: 2, stops: [1] }],
  ['gemma3_text', { kvHeads: 4, headDim: 256, normEpsilon: 1e-6, context: 131072 }, { begin: 2, stops: [1] }],
  ['phi3', { kvHeads: 32, headDim: 2, normEpsilon: 1e-5, context: 4096 }, { begin: 1, stops: [32000] }],
  ['smollm3', { kvHeads: 4, normEpsilon: 1e-6, context: 32768 }, { begin: 128000, stops: [128001] }],
  ['olmo2', { kvHeads: 32, normEpsilon: 1e-5, context: 2048 }, { begin: null, stops: [50279] }],
  ['olmo3', { kvHeads: 32, normEpsilon: 1e-5, context: 2048 }, { begin: null, stops: [50279] }],
  ['granite', { kvHeads: 32, normEpsilon: 1e-6, context: 2048 }, { begin: 1, stops: [2] }],
])('%s with nothing but sizes', (model_type, shape, usual) => {
  const config = read({ model_type, ...SIZES });
  expect(config.shape).toMatchObject(shape);
  const { usualTokens } = config;
  expect({ begin: usualTokens.beginToken, stops: usualTokens.stopTokens }).toEqual(usual);
  const given = read({ model_type, ...SIZES, bos_token_id: null, eos_token_id: null });
  expect(given.usualTokens).toEqual({ stopTokens: [], beginToken: null });
});

const windows = (config: object) => read({ ...SIZES, ...config }).shape.layerFeatures.map(f => f.window);

test('windows that a config does not give', () => {
  expect(windows({ model_type: 'mistral' })).toEqual(Array(6).fill(4096));
  expect(windows({ model_type: 'mistral', sliding_window: null })).toEqual(Array(6).fill(0));
  expect(windows({ model_type: 'mixtral' })).toEqual(Array(6).fill(0));
  expect(windows({ model_type: 'phi3' })).toEqual(Array(6).fill(0));
  const qwen = { model_type: 'qwen2', use_sliding_window: true, max_window_layers: 4 };
  expect(windows(qwen)).toEqual([0, 0, 0, 0, 4096, 4096]);
  expect(windows({ ...qwen, sliding_window: null })).toEqual(Array(6).fill(0));
  expect(windows({ model_type: 'qwen3_moe', use_sliding_window: true })).toEqual(Array(6).fill(4096));
  expect(windows({ model_type: 'gemma2' })).toEqual([4096, 0, 4096, 0, 4096, 0]);
  expect(windows({ model_type: 'olmo3' })).toEqual([4096, 4096, 4096, 0, 4096, 4096]);
  expect(windows({ model_type: 'smollm3', use_sliding_window: true })).toEqual(Array(6).fill(0));
});

test('a family whose layers slide needs a window, and Granite 4 kinds of layers', () => {
  for (const config of [
    { model_type: 'gemma2', sliding_window: null },
    { model_type: 'granitemoehybrid' },
    {
      model_type: 'qwen2',
      use_sliding_window: true,
      sliding_window: null,
      layer_types: Array(6).fill('sliding_attention'),
    },
  ])
    expect(() => read({ ...SIZES, ...config })).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED_MODEL' }),
    );
});

test('KV heads that are null are as many as query heads', () => {
  expect(read({ model_type: 'mistral', ...SIZES, num_key_value_heads: null }).shape.kvHeads).toBe(32);
});

test('positions of Phi 3 before stretching are those of its class', () => {
  const factors = { short_factor: [1], long_factor: [2] };
  const config = { model_type: 'phi3', ...SIZES, max_position_embeddings: 131072 };
  const { rotations } = read({ ...config, rope_scaling: { type: 'longrope', ...factors } }).shape;
  expect(rotations[0]!.beyond).toMatchObject({ over: 4096 });
});
