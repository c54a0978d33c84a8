import { createHash } from 'node:crypto';
import * as fileSystem from 'node:fs/promises';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { FileSystem } from '../../src/pack/file-system.ts';
import type { RepoFile } from '../../src/pull/choose-files.ts';
import { type PullFilesOptions, pullFiles } from '../../src/pull/pull-files.ts';
import { parseRepoName } from '../../src/pull/repo-name.ts';
import { COMMIT, cutAfter, type Fault, type ModelServer, modelServer, refuse } from './model-server.ts';

const text = (value: string) => new TextEncoder().encode(value);
/** Bytes that differ everywhere, so that a wrong place shows. */
const noise = (length: number, seed: number) => NOISE.slice(seed, seed + length);
const NOISE = new Uint8Array(createHash('shake256', { outputLength: 4_000_000 }).update('noise').digest());
/** A fault that answers every request. */
const always =
  (answer: (response: ServerResponse) => unknown): Fault =>
  (_, response) => {
    answer(response);
    return true;
  };

let folder: string;
let server: ModelServer;
let files: Map<string, Uint8Array>;
let notes: string[];
let pauses: number[];
/** Bytes here of each file, as reported. */
let reported: Map<string, number[]>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'potluck-pull-'));
  const weights = { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' };
  files = new Map([
    ['.gitattributes', text('x')],
    ['README.md', text('# tiny')],
    ['config.json', text('{"model_type":"llama"}')],
    ['tokenizer.json', noise(3000, 9)],
    ['model.safetensors.index.json', text(JSON.stringify({ weight_map: weights }))],
    [weights.a, noise(3_000_000, 1)],
    [weights.b, noise(700_000, 2)],
    ['pytorch_model.bin', noise(10, 3)],
    ['original/consolidated.00.pth', noise(10, 3)],
    ['onnx/model.onnx', noise(10, 4)],
    ['tiny-q4.gguf', noise(5000, 5)],
  ]);
  server = await modelServer(files);
  notes = [];
  pauses = [];
  reported = new Map();
});

afterEach(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

function pull(name = 'home/tiny', change: Partial<PullFilesOptions> = {}) {
  return pullFiles({
    name: parseRepoName(name),
    endpoint: server.endpoint,
    token: 'secret',
    fetch,
    timers: {
      now: () => performance.now(),
      // pauses between tries pass at once; deadlines stay
      setTimeout: (call, milliseconds) => {
        if (milliseconds < 30_000) pauses.push(milliseconds);
        return setTimeout(call, milliseconds < 30_000 ? 0 : milliseconds);
      },
      clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout),
    },
    fileSystem,
    folder,
    signal: new AbortController().signal,
    report: {
      listed: () => undefined,
      bytes: ({ path }: RepoFile, here) => reported.set(path, [...(reported.get(path) ?? []), here]),
      note: line => notes.push(line),
    },
    accept: async () => undefined,
    ...change,
  });
}

const here = async () => (await readdir(folder)).sort();
const WANTED = [
  'config.json',
  'model-00001-of-00002.safetensors',
  'model-00002-of-00002.safetensors',
  'model.safetensors.index.json',
  'tokenizer.json',
];

async function expectWhole(): Promise<void> {
  expect(await here()).toEqual(WANTED);
  for (const name of WANTED) expect((await readFile(join(folder, name))).equals(files.get(name)!)).toBe(true);
}

test('fetches what a pack needs and nothing else, small files first, the token to the endpoint only', async () => {
  server.pageSize = 3;
  const accepted: unknown[] = [];
  const result = await pull('home/tiny@v1', {
    accept: async found => {
      accepted.push(await here(), found);
    },
  });
  expect(result).toEqual({ format: 'safetensors', weights: [WANTED[1], WANTED[2]], commit: COMMIT });
  await expectWhole();
  expect(accepted).toEqual([
    ['config.json', 'model.safetensors.index.json', 'tokenizer.json'],
    { format: 'safetensors', weightBytes: 3_700_000, hereBytes: 0 },
  ]);
  expect(server.seen.filter(line => line.includes('/tree/'))).toHaveLength(4);
  expect(server.seen[0]).toBe('GET /api/models/home/tiny/tree/v1?recursive=true&expand=false token');
  expect(server.seen).toContain('GET /home/tiny/resolve/v1/config.json token');
  expect(server.seen.filter(line => line.includes('/storage/'))).toEqual([
    'GET /storage/model-00001-of-00002.safetensors',
    'GET /storage/model-00002-of-00002.safetensors',
  ]);
  expect(reported.get(WANTED[1]!)?.at(-1)).toBe(3_000_000);
});

test('a connection that is cut goes on where it broke off, by a range', async () => {
  let cuts = 0;
  server.onFiles = (request, response) => (++cuts <= 3 ? cutAfter(files, 800_000)(request, response) : false);
  await pull();
  await expectWhole();
  const ranges = server.seen
    .filter(line => line.includes('/storage/model-00001'))
    .map(line => line.split(' ')[2]);
  expect(ranges).toHaveLength(4);
  const from = ranges.slice(1).map(range => Number(/^bytes=(\d+)-$/.exec(range!)![1]));
  expect(from[0]).toBeGreaterThan(0);
  expect(from).toEqual(from.toSorted((a, b) => a - b));
  expect(notes[0]).toMatch(/model-00001-of-00002.safetensors: .*trying again/);
});

test('a second run goes on from the part that is there and checks what is whole', async () => {
  server.onFiles = (request, response) => {
    if (request.url!.includes('00002-of')) response.destroy();
    return response.destroyed;
  };
  await expect(pull()).rejects.toMatchObject({
    code: 'DOWNLOAD_FAILED',
    message: expect.stringMatching(/kept/),
  });
  await writeFile(join(folder, `${WANTED[2]}.part`), files.get(WANTED[2]!)!.subarray(0, 300_000));
  // broken on disk meanwhile
  await writeFile(join(folder, 'tokenizer.json'), noise(3000, 8));
  server.onFiles = null;
  server.seen.splice(0);
  await pull();
  await expectWhole();
  expect(server.seen.filter(line => /storage|resolve/.test(line))).toEqual([
    'GET /home/tiny/resolve/main/tokenizer.json token',
    'GET /home/tiny/resolve/main/model-00002-of-00002.safetensors bytes=300000- token',
    'GET /storage/model-00002-of-00002.safetensors bytes=300000-',
  ]);
});

test('a server that ignores ranges sends all of it again', async () => {
  let cuts = 0;
  server.onFiles = (request, response) =>
    ++cuts === 1 ? cutAfter(files, 1_500_000)(request, response) : false;
  server.ranges.works = false;
  await pull();
  await expectWhole();
  expect(reported.get(WANTED[1]!)).toContain(0);
});

test('a server that ignores ranges and always breaks off at the same place is given up', async () => {
  server.ranges.works = false;
  server.onFiles = (request, response) => {
    delete request.headers.range;
    return cutAfter(files, 100_000)(request, response);
  };
  await expect(pull()).rejects.toMatchObject({ code: 'DOWNLOAD_FAILED' });
  expect(server.seen.filter(line => line.includes('/storage/')).length).toBeLessThan(12);
});

test('wrong bytes are fetched anew once; wrong ones twice are refused and removed', async () => {
  const good = files.get(WANTED[1]!)!;
  const bad = good.slice();
  bad[12345]! ^= 1;
  let times = 0;
  let most = 1;
  server.onFiles = (request, response) => {
    if (!request.url!.includes('00001-of') || ++times > most) return false;
    response.writeHead(200, { 'content-length': bad.length }).end(bad);
    return true;
  };
  await pull();
  await expectWhole();
  await rm(join(folder, WANTED[1]!));
  times = 0;
  most = 9;
  await expect(pull()).rejects.toMatchObject({
    code: 'DOWNLOAD_CORRUPT',
    message: expect.stringMatching(/00001/),
  });
  expect(times).toBe(2);
  expect(await here()).not.toContain(WANTED[1]);
  expect(await here()).not.toContain(`${WANTED[1]}.part`);
});

test('a small file is checked by its git hash', async () => {
  server.onApi = (request, response) => {
    if (!request.url!.endsWith('/config.json')) return false;
    response.writeHead(200).end('{"model_type":"gemma"}');
    return true;
  };
  await expect(pull()).rejects.toMatchObject({ code: 'DOWNLOAD_CORRUPT' });
});

test('where the listing has no hash the ETag counts; where nothing tells one, that is said', async () => {
  const plain = { type: 'file', path: 'generation_config.json', size: 3 };
  files.set('hidden/generation_config.json', text('abc'));
  server.extra.push(plain);
  let etag: object = { etag: '"f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"' };
  server.onApi = (request, response) => {
    if (!request.url!.endsWith('/generation_config.json')) return false;
    response.writeHead(200, { ...etag }).end('abc');
    return true;
  };
  await pull();
  expect(notes).toEqual([]);
  await rm(join(folder, 'generation_config.json'));
  etag = { etag: `"${'0'.repeat(40)}"` };
  await expect(pull()).rejects.toMatchObject({ code: 'DOWNLOAD_CORRUPT' });
  etag = {};
  await pull();
  expect(notes).toEqual(['generation_config.json: the server tells no hash, so only its size was checked']);
});

test('busy servers are asked again after the time that they say, and given up after some tries', async () => {
  let times = 0;
  server.onApi = (_, response) => {
    if (++times > 3) return false;
    refuse(response, [429, 500, 503][times - 1]!, '', times === 1 ? { 'retry-after': '7' } : {});
    return true;
  };
  await pull();
  await expectWhole();
  expect(pauses).toEqual([7000, 1000, 2000]);
  server.onApi = always(response => refuse(response, 502, ''));
  await expect(pull()).rejects.toMatchObject({
    code: 'DOWNLOAD_FAILED',
    message: expect.stringMatching(/502/),
  });
  server.onApi = always(response => refuse(response, 429, '', { 'retry-after': '9000' }));
  await expect(pull()).rejects.toMatchObject({
    code: 'DOWNLOAD_FAILED',
    message: expect.stringMatching(/wait 9000 s/),
  });
});

test.each([
  [401, 'GatedRepo', 'ACCESS_DENIED', /accept its licence at http.*home\/tiny .*HF_TOKEN/],
  [403, 'GatedRepo', 'ACCESS_DENIED', /accept its licence/],
  [403, '', 'ACCESS_DENIED', /accept its licence/],
  [401, 'RepoNotFound', 'ACCESS_DENIED', /HF_TOKEN is not valid/],
  [404, 'RepoNotFound', 'REPO_NOT_FOUND', /Check the name/],
  [404, 'RevisionNotFound', 'REPO_NOT_FOUND', /no such revision/],
  [404, 'EntryNotFound', 'REPO_NOT_FOUND', /no such file/],
  [418, '', 'DOWNLOAD_FAILED', /418/],
])('%s %s is %s and says what to do', async (status, code, expected, message) => {
  server.onApi = always(response => refuse(response, status, code));
  await expect(pull()).rejects.toMatchObject({ code: expected, message: expect.stringMatching(message) });
  expect(server.seen).toHaveLength(1);
});

test('without a token a repository that is refused may be private', async () => {
  await expect(pull('home/secret', { token: null })).rejects.toMatchObject({
    code: 'ACCESS_DENIED',
    message: expect.stringMatching(/private or gated/),
  });
});

test('a server that is not there, and a redirect that must not be followed', async () => {
  await expect(pull('home/tiny', { endpoint: 'http://127.0.0.1:2' })).rejects.toMatchObject({
    code: 'DOWNLOAD_FAILED',
    message: expect.stringMatching(/nothing answers at 127\.0\.0\.1:2/),
  });
  server.onApi = always(response => response.writeHead(302, { location: 'file:///etc/passwd' }).end());
  await expect(pull()).rejects.toMatchObject({ message: expect.stringMatching(/redirects to file:/) });
  server.onApi = always(response => response.writeHead(302, { location: '/again' }).end());
  await expect(pull()).rejects.toMatchObject({ message: expect.stringMatching(/redirects/) });
});

test('a renamed repository is found by its relative redirect, with the token', async () => {
  server.onApi = (request, response) => {
    if (!request.url!.includes('/old/')) return false;
    response.writeHead(307, { location: request.url!.replace('/old/', '/home/') }).end();
    return true;
  };
  await pull('old/tiny');
  await expectWhole();
  expect(server.seen.filter(line => line.includes('/home/') && !line.endsWith('token'))).toEqual([]);
});

test('a listing may not lead the token elsewhere, nor go on for ever, nor make no sense', async () => {
  const elsewhere = await modelServer(files);
  try {
    server.onApi = (request, response) => {
      if (!request.url!.includes('/tree/')) return false;
      const link = `<${elsewhere.endpoint}/api/models/home/tiny/tree/main?cursor=0>; rel="next"`;
      response.writeHead(200, { link }).end('[]');
      return true;
    };
    await pull();
    expect(elsewhere.seen).toEqual(['GET /api/models/home/tiny/tree/main?cursor=0']);
  } finally {
    await elsewhere.close();
  }
  server.onApi = (_, response) => {
    const link = `<${server.endpoint}/api/models/home/tiny/tree/main?cursor=0>; rel="next"`;
    response.writeHead(200, { link }).end('[]');
    return true;
  };
  await expect(pull()).rejects.toMatchObject({ message: expect.stringMatching(/pages/) });
  for (const body of [
    '{}',
    'nonsense',
    '[{"type":"file","path":7,"size":1}]',
    '[{"type":"file","path":"a","size":1e30}]',
  ]) {
    server.onApi = always(response => response.writeHead(200).end(body));
    await expect(pull()).rejects.toMatchObject({
      code: 'DOWNLOAD_FAILED',
      message: expect.stringMatching(/listing/),
    });
  }
});

test('names that leave the folder are no files of a checkpoint', async () => {
  for (const path of [
    '../config.json',
    '/etc/config.json',
    'a/../../config.json',
    'con\\fig.json',
    'config.json.',
  ])
    files.set(path, text('{}'));
  await pull();
  await expectWhole();
});

test('a file that is longer than its listing says is refused', async () => {
  server.onFiles = always(response => response.writeHead(200).end(noise(3_500_000, 1)));
  await expect(pull()).rejects.toMatchObject({
    code: 'DOWNLOAD_FAILED',
    message: expect.stringMatching(/more than/),
  });
});

test('a disk that is full is said, and what is there is kept', async () => {
  const full: FileSystem = {
    ...fileSystem,
    async open(path, flags) {
      const file = await fileSystem.open(path, flags);
      if (!path.includes('00001')) return file;
      return {
        ...bound(file),
        async write(buffer, offset, length, position) {
          if (position < 2_000_000) return file.write(buffer, offset, length, position);
          throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
        },
      };
    },
  };
  await expect(pull('home/tiny', { fileSystem: full })).rejects.toMatchObject({
    code: 'DISK_WRITE',
    message: expect.stringMatching(/disk is full/),
  });
  const { size } = await fileSystem.stat(join(folder, `${WANTED[1]}.part`));
  expect(size).toBeGreaterThanOrEqual(2_000_000);
  await pull();
  await expectWhole();
});

test('an abort ends it at once and keeps the part', async () => {
  const stop = new AbortController();
  server.onFiles = (request, response) => {
    response.writeHead(200, { 'content-length': 3_000_000 });
    response.write(files.get(WANTED[1]!)!.subarray(0, 2_000_000));
    return request.url !== '';
  };
  const kept = () =>
    fileSystem.stat(join(folder, `${WANTED[1]}.part`)).then(
      ({ size }) => size,
      () => 0,
    );
  const ended = expect(pull('home/tiny', { signal: stop.signal })).rejects.toThrow('enough');
  await expect.poll(kept, { timeout: 10_000 }).toBeGreaterThan(1_000_000);
  stop.abort(new Error('enough'));
  await ended;
  expect(await kept()).toBeGreaterThan(1_000_000);
});

test('one GGUF file may be named', async () => {
  expect(await pull('home/tiny/tiny-q4.gguf')).toMatchObject({ format: 'gguf', weights: ['tiny-q4.gguf'] });
  expect(await here()).toEqual(['tiny-q4.gguf']);
  await expect(pull('home/tiny/other.gguf')).rejects.toMatchObject({
    code: 'REPO_NOT_FOUND',
    message: expect.stringMatching(/tiny-q4.gguf/),
  });
});

test.each<[string, string[], string, RegExp]>([
  ['pickles only', ['config.json', 'pytorch_model.bin'], 'UNSUPPORTED_MODEL', /pickle.*can run code/],
  ['no weights', ['README.md'], 'UNSUPPORTED_MODEL', /no weights/],
  [
    'several GGUF files',
    ['a.gguf', 'b.gguf'],
    'BAD_OPTION',
    /name one of them, as in home\/tiny\/a.gguf: a.gguf, b.gguf/,
  ],
  ['a split GGUF file', ['a-00001-of-00001.gguf'], 'UNSUPPORTED_MODEL', /split/],
  ['no configuration', ['model.safetensors'], 'UNSUPPORTED_MODEL', /no config.json/],
])('a repository with %s is refused before anything is fetched', async (_, names, code, message) => {
  files.clear();
  for (const name of names) files.set(name, text('x'));
  await expect(pull()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  expect(server.seen).toHaveLength(1);
});

test('an index that names what is not there is refused before the weights are fetched', async () => {
  files.set('model.safetensors.index.json', text('{"weight_map":{"a":"model-00001-of-00003.safetensors"}}'));
  await expect(pull()).rejects.toMatchObject({
    code: 'CHECKPOINT_INVALID',
    message: expect.stringMatching(/model-00001-of-00003/),
  });
  files.set('model.safetensors.index.json', text('{'));
  await expect(pull()).rejects.toMatchObject({ code: 'CHECKPOINT_INVALID' });
  expect(server.seen.filter(line => line.includes('storage'))).toEqual([]);
});

test.each(['Qwen/Qwen3-0.6B@v1', 'gpt2', 'https://huggingface.co/a/b', 'a/b/sub/c.gguf@refs/pr/1'])(
  '%s is a repository',
  name => {
    expect(parseRepoName(name)).toMatchObject({ repo: expect.any(String), revision: expect.any(String) });
  },
);

test.each([
  '',
  '/',
  'a/b/c',
  '../b',
  'a/..',
  'a/b@',
  'a/b@../x',
  'a/b@1@2',
  'a b/c',
  'a/b/../c.gguf',
  'http://elsewhere/a/b',
])('%j is none', name => {
  expect(() => parseRepoName(name)).toThrow(/names no repository/);
});

/** The methods of an open file, for an object of one's own. */
function bound(file: Awaited<ReturnType<typeof fileSystem.open>>) {
  return {
    read: file.read.bind(file),
    truncate: (bytes: number) => file.truncate(bytes),
    datasync: () => file.datasync(),
    sync: () => file.sync(),
    stat: () => file.stat(),
    close: () => file.close(),
  };
}
