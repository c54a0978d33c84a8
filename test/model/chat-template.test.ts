import { Worker } from 'node:worker_threads';
import { afterEach, expect, test } from 'vitest';
import { PotluckError } from '../../src/errors/errors.ts';
import {
  type ChatTemplate,
  createChatTemplate,
  type TemplateLimits,
  type TemplateTimers,
  type TemplateWorker,
} from '../../src/model/chat-template.ts';
import type { RenderReply, RenderRequest } from '../../src/model/chat-template-render.ts';

/** Timers that fire when told to. */
class ManualTimers implements TemplateTimers {
  readonly waiting = new Map<number, { callback: () => void; milliseconds: number }>();
  #next = 0;

  setTimeout(callback: () => void, milliseconds: number): unknown {
    this.waiting.set(++this.#next, { callback, milliseconds });
    return this.#next;
  }

  clearTimeout(timer: unknown): void {
    this.waiting.delete(timer as number);
  }

  fire(milliseconds: number): void {
    for (const [key, timer] of this.waiting) {
      if (timer.milliseconds !== milliseconds) continue;
      this.waiting.delete(key);
      timer.callback();
      return;
    }
    throw new Error(`no timer of ${milliseconds} ms`);
  }
}

/** A worker whose replies the test gives. */
class FakeWorker implements TemplateWorker {
  readonly requests: RenderRequest[] = [];
  readonly listeners = new Map<string, (value: never) => void>();
  terminated = false;

  postMessage(request: RenderRequest): void {
    this.requests.push(request);
  }

  on(event: string, listener: (value: never) => void): void {
    this.listeners.set(event, listener);
  }

  async terminate(): Promise<void> {
    this.terminated = true;
    this.emit('exit', 1);
  }

  emit(event: 'message' | 'error' | 'exit', value: RenderReply | Error | number): void {
    this.listeners.get(event)?.(value as never);
  }
}

const LIMITS = { renderMs: 20, startMs: 30, idleMs: 40, queue: 2 } satisfies Partial<TemplateLimits>;
const messages = [{ role: 'user', content: 'hi' }] as const;

/** Until a worker that was asked for is there. */
const created = () => new Promise<void>(resolve => setImmediate(resolve));

function fakes() {
  const timers = new ManualTimers();
  const workers: FakeWorker[] = [];
  const template = createChatTemplate({
    source: 'x',
    variables: { bos_token: 'b' },
    createWorker: async () => {
      const worker = new FakeWorker();
      workers.push(worker);
      return worker;
    },
    timers,
    now: () => 5,
    limits: LIMITS,
  });
  return { timers, workers, template };
}

test('starts the worker at the first chat, serves one at a time, ends it when idle, and starts it again', async () => {
  const { timers, workers, template } = fakes();
  expect(workers).toHaveLength(0);
  const first = template.render({ messages, variables: { thinking: true, bos_token: 'mine' } });
  const second = template.render({ messages, variables: {} });
  await created();
  expect(workers[0]!.requests).toHaveLength(0);
  workers[0]!.emit('message', { type: 'ready' });
  expect(workers[0]!.requests).toEqual([
    expect.objectContaining({ source: 'x', messages, variables: { thinking: true, bos_token: 'b' }, now: 5 }),
  ]);
  workers[0]!.emit('message', { type: 'text', text: 'one' });
  expect(await first).toEqual({ text: 'one', fallback: false });
  workers[0]!.emit('message', { type: 'text', text: 'two' });
  expect(await second).toEqual({ text: 'two', fallback: false });
  timers.fire(LIMITS.idleMs);
  expect(workers[0]!.terminated).toBe(true);
  expect(timers.waiting.size).toBe(0);
  const third = template.render({ messages, variables: {} });
  await created();
  workers[1]!.emit('message', { type: 'ready' });
  workers[1]!.emit('message', { type: 'failed', message: 'no such role' });
  await expect(third).rejects.toMatchObject({
    code: 'TEMPLATE_FAILED',
    message: expect.stringContaining('no such role'),
  });
});

test.each([
  ['too slow', (_: FakeWorker, timers: ManualTimers) => timers.fire(LIMITS.renderMs)],
  ['out of memory', (worker: FakeWorker) => worker.emit('error', new Error('heap limit'))],
  ['gone', (worker: FakeWorker) => worker.emit('exit', 1)],
])('a worker that is %s fails its own chat only', async (_, breakIt) => {
  const { timers, workers, template } = fakes();
  const first = template.render({ messages, variables: {} });
  await created();
  workers[0]!.emit('message', { type: 'ready' });
  const second = template.render({ messages, variables: {} });
  breakIt(workers[0]!, timers);
  await expect(first).rejects.toMatchObject({ code: 'TEMPLATE_FAILED' });
  expect(workers[0]!.terminated).toBe(true);
  workers[0]!.emit('message', { type: 'text', text: 'late' });
  await created();
  workers[1]!.emit('message', { type: 'ready' });
  workers[0]!.emit('message', { type: 'text', text: 'late too' });
  workers[1]!.emit('message', { type: 'text', text: 'two' });
  expect(await second).toMatchObject({ text: 'two' });
});

test('a worker that does not start fails the chat; a full queue is BUSY; close rejects what waits', async () => {
  const { timers, workers, template } = fakes();
  const first = template.render({ messages, variables: {} });
  await created();
  timers.fire(LIMITS.startMs);
  await expect(first).rejects.toMatchObject({ code: 'TEMPLATE_FAILED' });
  const second = template.render({ messages, variables: {} });
  await created();
  workers[1]!.emit('message', { type: 'ready' });
  const waiting = [
    template.render({ messages, variables: {} }),
    template.render({ messages, variables: {} }),
  ];
  await expect(template.render({ messages, variables: {} })).rejects.toMatchObject({ code: 'BUSY' });
  const ends = [second, ...waiting].map(promise =>
    expect(promise).rejects.toMatchObject({ code: 'STOPPED' }),
  );
  await template.close();
  await Promise.all(ends);
  expect(workers[1]!.terminated).toBe(true);
  expect(timers.waiting.size).toBe(0);
  await expect(template.render({ messages, variables: {} })).rejects.toMatchObject({ code: 'STOPPED' });
});

test('chats with tools have a template of their own, where the model brings one', async () => {
  const worker = new FakeWorker();
  const timers = new ManualTimers();
  const options = { variables: {}, createWorker: async () => worker, timers, now: () => 0 };
  const template = createChatTemplate({ ...options, source: 'plain', toolSource: 'tools' });
  const rendered = [
    template.render({ messages, variables: {} }),
    template.render({ messages, tools: [], variables: {} }),
    template.render({ messages, tools: [{ type: 'function' }], variables: {} }),
  ];
  await created();
  worker.emit('message', { type: 'ready' });
  for (const _ of rendered) worker.emit('message', { type: 'text', text: 'x' });
  await Promise.all(rendered);
  expect(worker.requests.map(request => request.source)).toEqual(['plain', 'plain', 'tools']);
  await template.close();
});

test('a worker that waits for room is asked for once, fails its chat where there is none, and is ended when it comes too late', async () => {
  const timers = new ManualTimers();
  const asked: { resolve(worker: FakeWorker): void; reject(error: Error): void }[] = [];
  const template = createChatTemplate({
    ...{ source: 'x', variables: {}, timers, now: () => 0, limits: LIMITS },
    createWorker: () => new Promise<FakeWorker>((resolve, reject) => asked.push({ resolve, reject })),
  });
  const render = () => template.render({ messages, variables: {} });
  const [first, second] = [render(), render()];
  expect(asked).toHaveLength(1);
  asked[0]!.reject(new PotluckError('DEADLINE', 'no room'));
  await expect(first).rejects.toMatchObject({ code: 'DEADLINE' });
  expect(asked).toHaveLength(2);
  const worker = new FakeWorker();
  asked[1]!.resolve(worker);
  await Promise.resolve();
  worker.emit('message', { type: 'ready' });
  worker.emit('message', { type: 'text', text: 'two' });
  expect(await second).toMatchObject({ text: 'two' });
  worker.emit('exit', 1);
  const third = render();
  const ended = expect(third).rejects.toMatchObject({ code: 'STOPPED' });
  await template.close();
  await ended;
  const late = new FakeWorker();
  asked[2]!.resolve(late);
  await Promise.resolve();
  expect(late.terminated).toBe(true);
});

test('without a template each message is a line, and the result says so', async () => {
  const template = createChatTemplate({
    source: null,
    variables: {},
    createWorker: () => {
      throw new Error('no worker is needed');
    },
    timers: new ManualTimers(),
    now: () => 0,
  });
  expect(
    await template.render({
      messages: [{ role: 'system', content: 'Be brief.' }, ...messages],
      variables: {},
    }),
  ).toEqual({
    text: 'system: Be brief.\nuser: hi\nassistant:',
    fallback: true,
  });
});

let real: ChatTemplate | null = null;
afterEach(async () => {
  await real?.close();
  real = null;
});

/** The entry imports TypeScript by relative paths; the thread only tests messages, so the library is used directly. */
const ENTRY = `
  import { parentPort } from 'node:worker_threads';
  import { Template } from '@huggingface/jinja';
  parentPort.on('message', ({ source, messages }) =>
    parentPort.postMessage({ type: 'text', text: new Template(source).render({ messages }) }));
  parentPort.postMessage({ type: 'ready' });
`;

test('a real thread: an endless template is ended after its time, and the next chat is served', async () => {
  const sources = [
    '{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}',
    'fine',
  ];
  real = createChatTemplate({
    source: '',
    variables: {},
    createWorker: async () => {
      const worker = new Worker(
        new URL(
          `data:text/javascript,${encodeURIComponent(ENTRY.replaceAll('@huggingface/jinja', import.meta.resolve('@huggingface/jinja')))}`,
        ),
      );
      const source = sources.shift()!;
      return {
        postMessage: request => worker.postMessage({ ...request, source }),
        on: (event: string, listener: (value: never) => void) =>
          worker.on(event, listener as (value: unknown) => void),
        terminate: () => worker.terminate(),
      };
    },
    timers: {
      setTimeout: (callback, ms) => setTimeout(callback, ms),
      clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout),
    },
    now: () => 0,
    limits: { renderMs: 300 },
  });
  await expect(real.render({ messages, variables: {} })).rejects.toMatchObject({ code: 'TEMPLATE_FAILED' });
  expect(await real.render({ messages, variables: {} })).toEqual({ text: 'fine', fallback: false });
});
