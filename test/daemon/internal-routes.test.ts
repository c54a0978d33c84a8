import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { BODY_LIMIT } from '../../src/api/read-body.ts';
import { internalRoutes } from '../../src/daemon/internal-routes.ts';
import type { Engine } from '../../src/engine/engine.ts';
import { PotluckError } from '../../src/errors/errors.ts';

const row = (position: number) => Float32Array.of(position, 0.5, -1);
const engine = {
  async evaluate(_: number[], at: number[], onRow: (position: number, row: Float32Array) => void) {
    for (const position of at) onRow(position, row(position));
  },
  async *generate({ prompt, maxTokens }: { prompt: number[]; maxTokens: number }) {
    for (let i = 0; i < maxTokens; i++) yield { type: 'token', id: prompt.length + i };
    yield { type: 'finish', reason: 'length' };
  },
} as unknown as Engine;

const routes = (found: () => Engine = () => engine) =>
  internalRoutes({
    status: () => Promise.reject(new Error('not asked for')),
    engine: found,
    vocabulary: () => 3,
  });

const post = (path: string, body: unknown, app = routes()) =>
  app.request(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) });

test('logits come as float32 rows, their hash is of the same bytes', async () => {
  const logits = await post('/potluck/evaluate', { tokens: [1, 2, 3], at: [0, 2], want: 'logits' });
  const bytes = Buffer.from(await logits.arrayBuffer());
  expect([...new Float32Array(bytes.buffer, bytes.byteOffset, 6)]).toEqual([0, 0.5, -1, 2, 0.5, -1]);
  const hash = await post('/potluck/evaluate', { tokens: [1, 2, 3], at: [0, 2], want: 'hash' });
  expect(await hash.json()).toEqual({ sha256: createHash('sha256').update(bytes).digest('hex') });
});

test('the loss is that of the tokens that follow', async () => {
  const answer = await post('/potluck/evaluate', { tokens: [0, 2, 1], at: [0, 1], want: 'loss' });
  const { loss, count } = (await answer.json()) as { loss: number; count: number };
  const expected = [
    [0, 2],
    [1, 1],
  ].reduce((sum, [position, id]) => {
    const logits = [...row(position!)];
    return sum + Math.log(logits.reduce((s, x) => s + Math.exp(x), 0)) - logits[id!]!;
  }, 0);
  expect(count).toBe(2);
  expect(loss).toBeCloseTo(expected, 6);
});

test('a continuation, and why it ended', async () => {
  const answer = await post('/potluck/generate', { tokens: [5, 6], maxTokens: 3 });
  expect(await answer.json()).toEqual({ tokens: [2, 3, 4], reason: 'length' });
});

test.each([
  ['{"tokens": [1', 'JSON'],
  [{ tokens: [], at: [0], want: 'hash' }, 'tokens'],
  [{ tokens: [1, -2], at: [0], want: 'hash' }, 'tokens.1'],
  [{ tokens: [1], at: [0], want: 'everything' }, 'want'],
  [{ tokens: [1, 2], at: [1], want: 'loss' }, 'no token after it'],
  [{ tokens: [1], at: [0], want: 'hash', also: 1 }, 'also'],
])('%j is refused', async (body, part) => {
  const answer = await post('/potluck/evaluate', body);
  expect(answer.status).toBe(400);
  expect(await answer.text()).toContain(part);
});

test('a continuation has a limit, and ends when its reader is gone', async () => {
  const refused = await post('/potluck/generate', { tokens: [1], maxTokens: 2 ** 20 + 1 });
  expect(refused.status).toBe(400);
  expect(await refused.text()).toContain('maxTokens');
  const gone = new AbortController();
  let ended = false;
  const endless = {
    async *generate(_: unknown, signal: AbortSignal) {
      yield { type: 'token', id: 1 };
      gone.abort();
      ended = signal.aborted;
    },
  } as unknown as Engine;
  const body = JSON.stringify({ tokens: [1], maxTokens: 5 });
  const request = new Request('http://x/potluck/generate', { method: 'POST', body, signal: gone.signal });
  await routes(() => endless).request(request);
  expect(ended).toBe(true);
});

test('a body that is too large is refused with its code', async () => {
  const answer = await post('/potluck/evaluate', ' '.repeat(BODY_LIMIT + 1));
  expect(answer.status).toBe(413);
  expect(await answer.json()).toMatchObject({
    error: { code: 'BODY_TOO_LARGE', message: expect.stringContaining('over') },
  });
});

test('a device that is no hub says whom to ask', async () => {
  const app = routes(() => {
    throw new PotluckError('NOT_READY', 'Ask the hub.');
  });
  const answer = await post('/potluck/evaluate', { tokens: [1], at: [0], want: 'hash' }, app);
  expect(answer.status).toBe(503);
  expect(await answer.json()).toEqual({ error: { code: 'NOT_READY', message: 'Ask the hub.' } });
});
