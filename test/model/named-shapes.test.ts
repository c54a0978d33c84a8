import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { findShape, parseShapes } from '../../src/model/named-shapes.ts';
import { syntheticShape } from '../../src/model/synthetic-pack.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';

const FILE = new URL('../../models/shapes.txt', import.meta.url);

const parameters = (s: ModelShape, tied: boolean): number =>
  s.layers * s.width * s.headDim * 2 * (s.queryHeads + s.kvHeads) +
  s.layers * 3 * s.width * s.ffnWidth +
  (tied ? 1 : 2) * s.vocabulary * s.width;

test.each([
  // Published counts in millions.
  ['llama-3.2-1b', 1236, true],
  ['tinyllama-1.1b', 1100, false],
  ['llama-3.2-3b', 3213, true],
  ['llama-3.1-8b', 8030, false],
  ['llama-2-7b', 6738, false],
  ['llama-2-70b', 68977, false],
])('%s has the parameters of its model', (name, millions, tied) => {
  const shape = syntheticShape(findShape(parseShapes(readFileSync(FILE, 'utf8'), 'shapes.txt'), name));
  expect(Math.abs(parameters(shape, tied) / 1e6 / millions - 1)).toBeLessThan(0.001);
});

const HEAD =
  'name model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size';
const tiny = 'tiny llama 64 2 4 2 16 128 300';

test('comments and empty lines are passed over, and a dash leaves a field out', () => {
  const text = `# shapes\n\n${HEAD} rope_theta\n${tiny} -  # no theta\n`;
  const [shape] = parseShapes(text, 'shapes.txt');
  expect(shape).toMatchObject({
    name: 'tiny',
    config: { shape: { width: 64, headDim: 16, vocabulary: 300 } },
  });
  expect(shape!.config.shape.rotations[0]!.frequencies[1]).toBeCloseTo(10000 ** (-2 / 16));
});

test.each([
  ['', /first line/],
  ['width name\n', /first line/],
  [`${HEAD} vocab_size\n`, /first line/],
  [`${HEAD}\ntiny llama 64\n`, /line 2: has 3 columns, not 9/],
  [`${HEAD}\n${tiny.replace('64', 'wide')}\n`, /line 2: hidden_size is wide/],
  [`${HEAD}\n${tiny.replace('64', '-64')}\n`, /line 2.*hidden_size/],
  [`${HEAD}\n${tiny.replace('64', 'Infinity')}\n`, /line 2.*hidden_size/],
  [`${HEAD}\n${tiny.replace('tiny', '../tiny')}\n`, /line 2: the name/],
  [`${HEAD}\n${tiny.replace('llama', 'alpaca')}\n`, /line 2.*alpaca/],
  [`${HEAD}\n${tiny}\n${tiny}\n`, /tiny twice/],
])('refuses %j', (text, message) => {
  expect(() => parseShapes(text, 'shapes.txt')).toThrow(
    expect.objectContaining({ name: 'PotluckError', message: expect.stringMatching(message) }),
  );
});

test('an unknown name is answered with those that there are', () => {
  expect(() => findShape(parseShapes(`${HEAD}\n${tiny}\n`, 'shapes.txt'), 'large')).toThrow(/"large".*tiny/);
});
