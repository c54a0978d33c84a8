import { resolve } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { daemonOptions, type Surroundings, type UpFlags } from '../../src/cli/daemon-options.ts';
import { PotluckError } from '../../src/errors/errors.ts';

const flags: UpFlags = {
  port: 11500,
  host: '127.0.0.1',
  cluster: 'home',
  peer: [],
  discovery: true,
  drafts: true,
  backend: 'auto',
};
let remembered: string | null;
let said: string[];
beforeEach(() => {
  remembered = null;
  said = [];
});

const surroundings = (taken: number[] = [], env: Record<string, string> = {}): Surroundings => ({
  env,
  builtInModel: '/models/small',
  findModel: async text => {
    if (text === 'gone') throw new PotluckError('PACK_NOT_FOUND', 'gone');
    return `/models/${text}`;
  },
  rememberedModel: () => remembered,
  say: text => said.push(text),
  isFree: async port => !taken.includes(port),
});

test('defaults', async () => {
  const options = await daemonOptions(flags, surroundings([], { POTLUCK_HOME: '/data' }));
  expect(options).toMatchObject({
    apiPort: 11500,
    linkPort: 11501,
    dataFolder: resolve('/data/device-11500'),
    model: '/models/small',
    memory: null,
    share: null,
    advertiseHost: null,
    maxTokens: null,
    drafts: true,
    windowBytes: null,
    diskBytes: null,
  });
  expect(options.threads).toBeGreaterThan(0);
  expect(options.name).not.toBe('');
});

test('a second daemon of a machine has a folder, a name and ports of its own', async () => {
  const first = await daemonOptions(flags, surroundings());
  const second = await daemonOptions({ ...flags, port: 11510 }, surroundings([11500, 11501]));
  expect(second.dataFolder).not.toBe(first.dataFolder);
  expect(second.name).not.toBe(first.name);
  expect(second.linkPort).toBe(11511);
});

test('where the port after the API is taken, any free one is', async () => {
  expect((await daemonOptions(flags, surroundings([11501]))).linkPort).toBe(0);
  expect((await daemonOptions({ ...flags, port: 65535 }, surroundings())).linkPort).toBe(0);
  expect((await daemonOptions({ ...flags, linkPort: 11501 }, surroundings([11501]))).linkPort).toBe(11501);
});

test('folders are absolute, none stays none', async () => {
  const { model, dataFolder } = await daemonOptions(
    { ...flags, model: 'pack', data: 'here' },
    surroundings(),
  );
  expect(model).toBe('/models/pack');
  expect(dataFolder).toBe(resolve('here'));
  expect((await daemonOptions({ ...flags, model: 'none' }, surroundings())).model).toBe('none');
});

test('the model of the last start is the default; where it is gone that is said', async () => {
  remembered = 'Qwen3-0.6B';
  expect((await daemonOptions(flags, surroundings())).model).toBe('/models/Qwen3-0.6B');
  expect((await daemonOptions({ ...flags, model: 'other' }, surroundings())).model).toBe('/models/other');
  expect(said).toEqual([]);
  remembered = 'gone';
  expect((await daemonOptions(flags, surroundings())).model).toBe('/models/small');
  expect(said).toEqual([expect.stringContaining('gone')]);
  await expect(daemonOptions({ ...flags, model: 'gone' }, surroundings())).rejects.toThrow('gone');
});
