import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { compiledMain } from '../../src/cli/project.ts';
import { type PullOptions, pull } from '../../src/cli/pull.ts';
import { PullProgress } from '../../src/cli/pull-progress.ts';
import { parseRepoName } from '../../src/pull/repo-name.ts';
import { smallGguf } from '../model/gguf/small-gguf.ts';
import { SMALL, safetensorsBytes, smallTensors } from '../model/small-checkpoint.ts';
import { COMMIT, type ModelServer, modelServer } from '../pull/model-server.ts';

let home: string;
let server: ModelServer;
let files: Map<string, Uint8Array>;
let said: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'potluck-pull-home-'));
  files = shardedCheckpoint();
  server = await modelServer(files);
  said = '';
});

afterEach(async () => {
  await server.close();
  await rm(home, { recursive: true });
});

/** Files of a small checkpoint in two shards. */
function shardedCheckpoint(): Map<string, Uint8Array> {
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const tensors = [...smallTensors(SMALL)];
  const shards = [tensors.slice(0, 9), tensors.slice(9)];
  const shardName = (i: number) => `model-0000${i + 1}-of-00002.safetensors`;
  const map = shards.flatMap((shard, i) => shard.map(([name]) => [name, shardName(i)]));
  return new Map([
    ['README.md', json('tiny')],
    ['config.json', json(SMALL)],
    ['model.safetensors.index.json', json({ weight_map: Object.fromEntries(map) })],
    ...shards.map((shard, i) => [shardName(i), safetensorsBytes(new Map(shard), 'BF16')] as const),
  ]);
}

const run = (change: Partial<PullOptions> = {}) =>
  pull(
    {
      repo: parseRepoName('home/tiny@v1'),
      name: 'tiny',
      weights: 'w4',
      keep: false,
      home,
      endpoint: server.endpoint,
      token: null,
      ...change,
    },
    { write: (text: string) => (said += text) },
    new AbortController().signal,
  );

test('a repository becomes a pack that says where it is from; the originals go', {
  timeout: 60_000,
}, async () => {
  const folder = await run();
  expect(folder).toBe(join(home, 'models', 'tiny'));
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  expect(manifest).toMatchObject({
    name: 'tiny',
    origin: { repo: 'home/tiny', revision: 'v1', commit: COMMIT },
  });
  expect(await readdir(join(home, 'downloads'))).toEqual([]);
  expect(said).toMatch(/^config.json +\d+ B$/m);
  expect(said).toMatch(/model-00002-of-00002.safetensors {2}100 % {2}[\d.]+ KiB of [\d.]+ KiB/);
  expect(said).toMatch(/potluck up --model tiny/);
  said = '';
  server.seen.splice(0);
  expect(await run()).toBe(folder);
  expect(said).toMatch(/is here already/);
  expect(server.seen).toEqual([]);
  await expect(run({ repo: parseRepoName('home/tiny') })).rejects.toMatchObject({
    code: 'BAD_OPTION',
    message: expect.stringMatching(/another model named tiny.*models remove tiny/),
  });
});

test('--keep leaves the checkpoint', { timeout: 60_000 }, async () => {
  await run({ keep: true });
  const kept = join(home, 'downloads', 'home--tiny@v1');
  expect((await readFile(join(kept, 'config.json'))).equals(files.get('config.json')!)).toBe(true);
  expect(said).toContain(kept);
});

test('one GGUF file becomes a pack', { timeout: 60_000 }, async () => {
  files.set('tiny-f32.gguf', smallGguf(SMALL, smallTensors(SMALL)));
  await run({ repo: parseRepoName('home/tiny/tiny-f32.gguf'), name: 'tiny-f32', weights: 'bf16' });
  const manifest = JSON.parse(await readFile(join(home, 'models', 'tiny-f32', 'manifest.json'), 'utf8'));
  expect(manifest).toMatchObject({
    name: 'tiny-f32',
    origin: { repo: 'home/tiny', revision: 'main', file: 'tiny-f32.gguf' },
    shape: { layers: SMALL.num_hidden_layers },
  });
  expect(server.seen.filter(line => line.includes('safetensors'))).toEqual([]);
});

test('a model that is not supported is refused before its weights are fetched', async () => {
  files.set(
    'config.json',
    new TextEncoder().encode('{"model_type":"mamba","architectures":["MambaForCausalLM"]}'),
  );
  await expect(run()).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
    message: expect.stringMatching(/Mamba/),
  });
  expect(server.seen.filter(line => line.includes('storage'))).toEqual([]);
  expect(existsSync(join(home, 'models'))).toBe(false);
});

test('too little space is said before the weights are fetched', async () => {
  server.extra.push({
    type: 'file',
    path: 'model-00003-of-00003.safetensors',
    size: 2 ** 43,
    lfs: { oid: 'a'.repeat(64), size: 2 ** 43 },
  });
  files.delete('model.safetensors.index.json');
  await expect(run()).rejects.toMatchObject({
    code: 'DISK_FULL',
    message: expect.stringMatching(/8.0 TiB to download/),
  });
  expect(server.seen.filter(line => line.includes('storage'))).toEqual([]);
});

test('killed in the middle, the same command goes on from there', { timeout: 60_000 }, async () => {
  const large = 'model-00001-of-00002.safetensors';
  const half = Math.floor(files.get(large)!.length / 2);
  // the rest of the first shard never comes
  server.onFiles = (request, response) => {
    const bytes = files.get(large)!;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, half));
    return request.url !== '';
  };
  const part = join(home, 'downloads', 'home--tiny@v1', `${large}.part`);
  const first = command();
  await until(() => existsSync(part) && statSync(part).size === half);
  first.kill('SIGKILL');
  await ended(first);
  server.onFiles = null;
  server.seen.splice(0);
  const second = command();
  expect(await ended(second)).toBe(0);
  expect(server.seen).toContain(`GET /storage/${large} bytes=${half}-`);
  expect((await stat(join(home, 'models', 'tiny', 'tiles.bin'))).size).toBeGreaterThan(1000);
});

test('two at once: the second is told', { timeout: 60_000 }, async () => {
  server.onFiles = (_, response) => {
    response.writeHead(200, { 'content-length': 10 });
    return true;
  };
  const first = command();
  await until(() => server.seen.some(line => line.includes('storage')));
  await expect(run()).rejects.toMatchObject({
    code: 'BUSY',
    message: expect.stringContaining(String(first.pid)),
  });
  first.kill('SIGKILL');
  await ended(first);
  server.onFiles = null;
  await run();
});

test('progress: a bar on a terminal; rate and time left', () => {
  let now = 0;
  let written = '';
  const terminal = { write: (text: string) => (written += text), isTTY: true };
  const progress = new PullProgress(terminal, () => now);
  const file = { path: 'model.safetensors', bytes: 100 * 2 ** 20, hash: null };
  progress.listed([file]);
  progress.bytes(file, 40 * 2 ** 20, true);
  now = 1000;
  progress.bytes(file, 50 * 2 ** 20, false);
  expect(written).toContain(
    'model.safetensors  [############------------]  50 %  50.0 MiB of 100 MiB  10.0 MiB/s  0:05 left',
  );
});

function command(): ChildProcess {
  const child = spawn(process.execPath, [compiledMain(), 'pull', 'home/tiny@v1'], {
    env: { ...process.env, POTLUCK_HOME: home, HF_ENDPOINT: server.endpoint, HF_TOKEN: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stderr!.on('data', (text: Buffer) => (said += text.toString()));
  return child;
}

const ended = (child: ChildProcess): Promise<number | null> =>
  new Promise(resolve => {
    if (child.exitCode !== null || child.signalCode !== null) resolve(child.exitCode);
    else child.once('exit', code => resolve(code));
  });

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect(condition()).toBe(true);
}
