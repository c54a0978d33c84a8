import { request as httpRequest } from 'node:http';
import OpenAI from 'openai';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type RunningApi, startApi } from './fake-host.ts';

let api: RunningApi;
beforeEach(async () => {
  api = await startApi();
});
afterEach(() => api.close());

/** A request with headers that fetch does not let through; gives the status and the error's code. */
function raw(
  headers: Record<string, string>,
  path = '/v1/models',
): Promise<{ status: number; code: string | null }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(api.url + path, { headers }, response => {
      let text = '';
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on('end', () => {
        const body = JSON.parse(text) as { error?: { code: string } };
        resolve({ status: response.statusCode ?? 0, code: body.error?.code ?? null });
      });
    });
    request.on('error', reject);
    request.end();
  });
}

const post = (body: NonNullable<RequestInit['body']>) =>
  fetch(`${api.url}/v1/chat/completions`, { method: 'POST', body });

test('lists the model and gives it by its name or alias', async () => {
  const model = { id: 'home/tiny', object: 'model', created: 1234, owned_by: 'potluck' };
  expect((await api.client.models.list()).data).toEqual([model]);
  expect(await api.client.models.retrieve('home/tiny')).toMatchObject(model);
  expect(await api.client.models.retrieve('tiny')).toMatchObject(model);
  await expect(api.client.models.retrieve('nothing')).rejects.toThrow(OpenAI.NotFoundError);
  api.host.ready = false;
  await expect(api.client.models.list()).rejects.toMatchObject({ status: 503, code: 'not_ready' });
});

test('503 says when to try again', async () => {
  api.host.ready = false;
  expect((await fetch(`${api.url}/v1/models`)).headers.get('retry-after')).toBe('1');
});

test('healthz tells the state', async () => {
  const health = async () => {
    const response = await fetch(`${api.url}/healthz`);
    return [response.status, await response.json()];
  };
  expect(await health()).toEqual([200, { status: 'serving', version: '1.2.3' }]);
  api.host.state = () => 'waiting';
  expect(await health()).toEqual([503, { status: 'waiting', version: '1.2.3' }]);
});

test.each([
  ['GET', '/nothing'],
  ['GET', '/v1/chat/completions'],
  ['OPTIONS', '/v1/chat/completions'],
])('%s %s is 404 in OpenAI’s shape', async (method, path) => {
  const response = await fetch(api.url + path, { method });
  expect(response.status).toBe(404);
  expect(await response.json()).toEqual({
    error: {
      message: `There is nothing at ${method} ${path}. See docs/api.md.`,
      type: 'invalid_request_error',
      param: null,
      code: 'unknown_route',
    },
  });
  expect([...response.headers.keys()].filter(name => name.startsWith('access-control'))).toEqual([]);
});

test.each([
  ['not JSON', '{"messages": "secret'],
  ['an array', '[]'],
  ['null', 'null'],
  ['nothing', ''],
  ['not UTF-8', Uint8Array.of(0x22, 0xff, 0x22)],
])('a body that is %s is a bad request, and is not quoted', async (_, body) => {
  const response = await post(body);
  expect(response.status).toBe(400);
  const text = await response.text();
  expect(JSON.parse(text)).toMatchObject({ error: { code: 'bad_request', param: null } });
  expect(text).not.toContain('secret');
});

test('a body over 4 MiB is refused, with and without its length told before', async () => {
  const large = new Uint8Array(4 * 1024 * 1024 + 1).fill(32);
  const code = async (response: Response) => [
    response.status,
    ((await response.json()) as { error: { code: string } }).error.code,
  ];
  expect(await code(await post(large))).toEqual([413, 'body_too_large']);
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue(large);
      controller.close();
    },
  });
  const init = { method: 'POST', body: stream, duplex: 'half' } as RequestInit;
  expect(await code(await fetch(`${api.url}/v1/chat/completions`, init))).toEqual([413, 'body_too_large']);
  expect((await post(large.subarray(1))).status).toBe(400);
});

test.each([
  ['localhost:1', 200],
  ['[::1]:80', 200],
  ['192.168.1.7:8080', 200],
  ['kitchen.local', 403],
  ['evil.example', 403],
  ['localhost.evil.example', 403],
  ['127.0.0.1.evil.example', 403],
])('Host %s gives %i', async (host, status) => {
  expect(await raw({ host })).toEqual({ status, code: status === 200 ? null : 'forbidden' });
});

test.each([
  ['http://localhost:3000', 200],
  ['http://127.0.0.1', 200],
  ['https://[::1]:8443', 200],
  ['http://192.168.1.7:8080', 200],
  ['http://192.168.1.7', 403],
  ['https://evil.example', 403],
  ['http://localhost.evil.example', 403],
  ['null', 403],
  ['', 403],
])('Origin "%s" gives %i', async (origin, status) => {
  expect(await raw({ host: '192.168.1.7:8080', origin })).toEqual({
    status,
    code: status === 200 ? null : 'forbidden',
  });
});
