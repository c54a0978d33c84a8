import { afterAll, expect, test } from 'vitest';
import { createNativeBackend } from '../../src/kernels/native-backend.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';
import { constantOffset, constantsFloats, tileBytes } from '../../src/pack/tile-shape.ts';
import { addon, randomFloats, randomSource } from './addon-under-test.ts';
import { makeBatch, smallShape } from './small-model.ts';

const TOKENS = 40;
const EXPERTS = { count: 8, perToken: 4, width: 32, normalized: true, sharedWidth: 0 };
const layerFeatures: ModelShape['layerFeatures'] = [{ window: 0, rotation: 0, experts: true }];
const shape = smallShape({ weights: 'bf16', layers: 1, layerFeatures, experts: EXPERTS });

const backend = createNativeBackend(addon, { threads: 2 });
const weights = backend.allocate(tileBytes(shape, 'expert'));
afterAll(() => {
  backend.release(weights);
  backend.close();
});

/** bf16 of these values, cut off. */
const bf16 = (values: Float32Array): Uint16Array =>
  Uint16Array.from(new Uint32Array(values.buffer), bits => bits >>> 16);

/** A model of one layer with a random router, and one expert tile in `weights`. */
function open() {
  const random = randomSource(5);
  new Uint16Array(weights).set(bf16(randomFloats(random, weights.byteLength / 2, 0.2)));
  const constants = new Float32Array(constantsFloats(shape)).fill(1);
  constants.fill(2 ** 20, constantOffset(shape, 'attentionScale'), constantOffset(shape, 'router'));
  const router = constantOffset(shape, 'router');
  const rows = bf16(randomFloats(random, (constantOffset(shape, 'finalNorm') - router) * 2));
  new Uint16Array(constants.buffer).set(rows, router * 2);
  const model = backend.openModel({
    shape,
    constants: constants.buffer,
    weights,
    attentionTiles: 0,
    kvPages: 4,
    maxTokens: TOKENS,
    maxLogitRows: 1,
  });
  model.setBatch({
    ...makeBatch([0], [TOKENS]),
    pageTables: [Int32Array.of(0, 1)],
    logitRows: new Int32Array(0),
  });
  const { residual, routes } = model.pass;
  residual.set(randomFloats(random, residual.length));
  const route = () => model.run([{ op: 'begin', layer: 0, half: 'ffn' }]);
  /** `partial` after the tile, as that of an expert. */
  const compute = async (slot: number) => {
    await model.run([{ op: 'expert-tiles', layer: 0, tiles: [{ offset: 0, slot }] }]);
    return model.pass.partial.slice();
  };
  const picked = () =>
    Array.from({ length: TOKENS }, (_, t) => [...routes.subarray(t * 4, t * 4 + 4)].sort((a, b) => a - b));
  return { model, route, compute, picked };
}

const areDifferentExperts = (picked: number[]): boolean =>
  new Set(picked).size === EXPERTS.perToken && picked.every(expert => expert >= 0 && expert < EXPERTS.count);

test('each token gets as many experts as it should, also where its scores are no numbers', async () => {
  const { model, route, picked } = open();
  const { residual } = model.pass;
  await route();
  const usual = picked();
  expect(new Set(usual.map(String)).size).toBeGreaterThan(1);
  for (const value of [Number.NaN, Infinity, -3e38]) {
    residual.fill(value, shape.width, 3 * shape.width); // tokens 1 and 2, and a channel of token 4
    residual[4 * shape.width + 7] = value;
    await route();
    expect(picked().every(areDifferentExperts)).toBe(true);
    expect(picked().filter((_, t) => ![1, 2, 4].includes(t))).toEqual(
      usual.filter((_, t) => ![1, 2, 4].includes(t)),
    );
  }
  model.close();
});

test('a tile is computed once for a token, whatever is in the routes', async () => {
  const { model, route, compute } = open();
  const { routes } = model.pass;
  await route();
  for (let t = 0; t < TOKENS; t++) routes.set([5, 1, 2, 3], t * EXPERTS.perToken);
  const once = await compute(5);
  expect(once.some(sum => sum !== 0)).toBe(true);
  await route();
  routes.fill(5);
  expect(await compute(5)).toEqual(once);
  model.close();
});
