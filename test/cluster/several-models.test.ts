import { afterEach, expect, test } from 'vitest';
import { type GenerateRequest, GREEDY } from '../../src/engine/generate.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { FakeNetwork, fakeToken, MODEL, OTHER_MODEL, promptFor } from './fake-host.ts';
import { oneCluster, startDevice, type TestDevice, type TestDeviceOptions, until } from './ws-devices.ts';

const network = new FakeNetwork();
const devices: TestDevice[] = [];
afterEach(async () => {
  const overlaps = devices.flatMap(device => device.host.overlaps);
  await Promise.all(devices.splice(0).map(device => device.close()));
  expect(overlaps).toEqual([]);
});

async function start(options: Omit<TestDeviceOptions, 'network'>): Promise<TestDevice> {
  const device = await startDevice({ ...options, network });
  devices.push(device);
  return device;
}

/** Tokens of an answer with a model. */
async function ask(device: TestDevice, model: typeof MODEL, maxTokens = 3): Promise<number[]> {
  const request: GenerateRequest = {
    prompt: promptFor(model),
    generated: [],
    maxTokens,
    stopTokens: [],
    sampling: { ...GREEDY, seed: 1 },
  };
  const ids: number[] = [];
  for await (const event of device.cluster
    .generator(model.id)
    .generate(request, new AbortController().signal))
    if (event.type === 'token') ids.push(event.id);
  return ids;
}

const answer = (model: typeof MODEL, maxTokens = 3): number[] =>
  Array.from({ length: maxTokens }, (_, n) => fakeToken(promptFor(model), n));

test('the hub goes to the device that holds the model that was asked for', async () => {
  const a = await start({ n: 1, info: { models: [MODEL] } });
  const b = await start({ n: 2, peers: [a.port], info: { models: [OTHER_MODEL] } });
  await until('one cluster', devices, () => oneCluster([a, b]));
  for (const device of [b, a, b]) {
    expect(await ask(device, OTHER_MODEL)).toEqual(answer(OTHER_MODEL));
    expect(device.cluster.view()).toMatchObject({ hubId: b.id, modelId: OTHER_MODEL.id });
    expect(await ask(device, MODEL)).toEqual(answer(MODEL));
    expect(device.cluster.view()).toMatchObject({ hubId: a.id, modelId: MODEL.id });
  }
  expect(a.cluster.models().map(({ id }) => id)).toEqual([MODEL.id, OTHER_MODEL.id]);
});

test('a device that holds both stays hub, and an answer in flight is finished first', async () => {
  let release = (): void => undefined;
  const first = new Promise<void>(resolve => (release = resolve));
  const a = await start({
    n: 1,
    info: { models: [MODEL, OTHER_MODEL] },
    behaviour: { beforeToken: n => (n === 1 ? first : Promise.resolve()) },
  });
  const b = await start({ n: 2, peers: [a.port], info: { models: [] } });
  await until('one cluster', devices, () => oneCluster([a, b]));
  const long = ask(b, MODEL);
  await until('the first token', devices, () => a.host.tokens === 1);
  const other = ask(b, OTHER_MODEL);
  const { epoch } = a.cluster.view();
  release();
  expect(await Promise.all([long, other])).toEqual([answer(MODEL), answer(OTHER_MODEL)]);
  expect(a.host.served.map(({ plan }) => plan.modelId).at(-1)).toBe(OTHER_MODEL.id);
  expect(a.cluster.view().epoch).toBe(epoch + 1);
});

test('a model that cannot be loaded is told to who asked, and the one before is served again', async () => {
  const a = await start({
    n: 1,
    info: { models: [MODEL, OTHER_MODEL] },
    behaviour: {
      activate: async plan => {
        if (plan.modelId === OTHER_MODEL.id) throw new PotluckError('MEMORY_TOO_SMALL', 'too small');
      },
    },
  });
  await until('alone', devices, () => oneCluster([a]));
  await expect(ask(a, OTHER_MODEL)).rejects.toMatchObject({ code: 'MEMORY_TOO_SMALL' });
  await until('the first model', devices, () => a.cluster.view().plan?.modelId === MODEL.id);
  expect(await ask(a, MODEL)).toEqual(answer(MODEL));
});
