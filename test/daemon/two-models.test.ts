import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { fetchStatus } from '../../src/cli/api-client.ts';
import { ChildDaemon } from '../../src/cli/emulate/child-daemon.ts';
import { packForTest } from '../cli/pack-for-test.ts';
import { SMALL, writeCheckpoint } from '../model/small-checkpoint.ts';
import { BYTE_LEVEL_TOKENS, byteLevelJson } from '../model/tiny-tokenizers.ts';

let root: string;
const daemons: ChildDaemon[] = [];
const homes = new Map<ChildDaemon, string>();

/** Random models of two sizes, with a tokenizer. */
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'potluck-two-models-'));
  for (const [name, layers] of [
    ['alder', 2],
    ['birch', 3],
    ['cedar', 4],
  ] as const) {
    const checkpoint = join(root, `${name}-checkpoint`);
    const config = {
      ...SMALL,
      num_hidden_layers: layers,
      vocab_size: BYTE_LEVEL_TOKENS,
      max_position_embeddings: 512,
    };
    await writeCheckpoint(checkpoint, config);
    writeFileSync(join(checkpoint, 'tokenizer.json'), JSON.stringify(byteLevelJson()));
    await packForTest(checkpoint, join(root, name), name);
  }
});
afterEach(async () => {
  await Promise.all(daemons.splice(0).map(daemon => daemon.stop()));
});
afterAll(() => rmSync(root, { recursive: true }));

async function start(name: string, model: string, peer?: ChildDaemon): Promise<ChildDaemon> {
  const home = mkdtempSync(join(root, 'home-'));
  const args = [
    ...['--name', name, '--cluster', `two-models-${process.pid}`, '--no-discovery', '--threads', '1'],
    ...['--model', model === 'none' ? model : join(root, model), '--port', '0', '--link-port', '0'],
    ...['--data', join(home, 'device')],
    ...(peer === undefined ? [] : ['--peer', `127.0.0.1:${peer.announcement.linkPort}`]),
  ];
  const daemon = new ChildDaemon(name, args, home);
  daemons.push(daemon);
  homes.set(daemon, home);
  await daemon.listening(AbortSignal.timeout(20_000));
  return daemon;
}

const client = (daemon: ChildDaemon) =>
  new OpenAI({ baseURL: `${daemon.announcement.apiUrl}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000 });

async function ask(
  daemon: ChildDaemon,
  model: string,
  prompt = 'hello you',
  max_tokens = 12,
): Promise<string> {
  const answer = await client(daemon).completions.create({ model, prompt, temperature: 0, max_tokens });
  return `${answer.model}: ${answer.choices[0]!.text}`;
}

const names = async (daemon: ChildDaemon) => (await client(daemon).models.list()).data.map(({ id }) => id);
const servesWith = (daemon: ChildDaemon, devices: number) =>
  expect
    .poll(
      async () => {
        const { state, devices: all } = await fetchStatus(daemon.announcement.apiUrl);
        return state === 'serving' ? all.filter(({ role }) => role !== 'waiting').length : 0;
      },
      { timeout: 20_000 },
    )
    .toBe(devices);

test('each of two devices answers for the models of both', { timeout: 90_000 }, async () => {
  const alone = await start('alone', 'birch');
  const birch = await ask(alone, 'birch');
  const one = await start('one', 'alder');
  const alder = await ask(one, 'alder');
  expect(alder).not.toBe(birch.replace('birch', 'alder'));
  await alone.stop();
  daemons.splice(daemons.indexOf(alone), 1);
  const two = await start('two', 'birch', one);
  await servesWith(two, 2);
  for (const daemon of [one, two]) expect((await names(daemon)).sort()).toEqual(['alder', 'birch']);
  for (const daemon of [one, two, one]) {
    expect(await ask(daemon, 'birch')).toBe(birch);
    expect(await ask(daemon, 'default')).toBe(birch);
    expect((await names(daemon))[0]).toBe('birch');
    expect(await ask(daemon, 'alder')).toBe(alder);
  }
  await expect(ask(two, 'gpt-9')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  // many at once, of both, at both
  const asked = await Promise.all(
    Array.from({ length: 12 }, (_, i) => ask([one, two][i % 2]!, ['alder', 'birch'][(i >> 1) % 2]!)),
  );
  expect(asked).toEqual(Array.from({ length: 12 }, (_, i) => [alder, birch][(i >> 1) % 2]));
  // a long answer is not cut by a request for another model
  const long = ask(one, 'alder', 'hello', 400);
  await ask(two, 'birch');
  expect((await long).length).toBeGreaterThan(100);
});

test('when a device leaves, its model goes with it; the others stay', { timeout: 60_000 }, async () => {
  const one = await start('one', 'alder');
  const two = await start('two', 'birch', one);
  const three = await start('three', 'none', one);
  await servesWith(three, 3);
  const birch = await ask(three, 'birch');
  const alder = await ask(three, 'alder');
  expect(await ask(one, 'birch')).toBe(birch);
  await two.kill();
  await expect.poll(() => names(three), { timeout: 20_000 }).toEqual(['alder']);
  expect(await ask(three, 'alder')).toBe(alder);
  await expect(ask(one, 'birch')).rejects.toMatchObject({ status: 404 });
});

test('a pack that is put into the models folder can be asked for at once', { timeout: 60_000 }, async () => {
  const one = await start('one', 'alder');
  await ask(one, 'default');
  const models = join(homes.get(one)!, 'models');
  await mkdir(models);
  await rename(join(root, 'cedar'), join(models, 'cedar'));
  expect(await names(one)).toEqual(['alder', 'cedar']);
  expect(await ask(one, 'cedar')).toMatch(/^cedar: /);
});
