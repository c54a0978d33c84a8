import { expect, test } from 'vitest';
import { eventStreamResponse } from '../../src/api/event-stream.ts';

/** Timers that fire when told to. */
function manualTimers() {
  const waiting = new Map<unknown, () => void>();
  return {
    waiting,
    setTimeout(callback: () => void) {
      const key = {};
      waiting.set(key, callback);
      return key;
    },
    clearTimeout: (key: unknown) => void waiting.delete(key),
    async fire() {
      await new Promise(resolve => setImmediate(resolve));
      expect(waiting.size).toBe(1);
      for (const callback of [...waiting.values()]) callback();
    },
  };
}

/** Events that the test gives one by one. */
function manualEvents() {
  let give: (event: string | Error | null) => void = () => undefined;
  async function* events(): AsyncGenerator<string, void> {
    for (;;) {
      const event = await new Promise<string | Error | null>(resolve => {
        give = resolve;
      });
      if (event === null) return;
      if (event instanceof Error) throw event;
      yield event;
    }
  }
  return {
    events: events(),
    async give(event: string | Error | null) {
      await new Promise(resolve => setImmediate(resolve));
      give(event);
    },
  };
}

function start() {
  const timers = manualTimers();
  const source = manualEvents();
  const aborts: string[] = [];
  const described: unknown[] = [];
  const response = eventStreamResponse({
    events: source.events,
    describe(error) {
      described.push(error);
      return 'late error';
    },
    abort() {
      aborts.push('abort');
      void source.give(new Error('torn down'));
    },
    timers,
  });
  return { timers, source, aborts, described, response };
}

test('an error before the first event rejects, so that it has its status', async () => {
  const { source, response, timers } = start();
  await source.give(new Error('early'));
  await expect(response).rejects.toThrow('early');
  expect(timers.waiting.size).toBe(0);
});

test('when the first event takes long, the stream begins, keeps alive, and tells a late error', async () => {
  const { timers, source, described, response } = start();
  await timers.fire();
  const text = (await response).text();
  await timers.fire();
  await timers.fire();
  await source.give('one');
  await timers.fire();
  await source.give(new Error('late'));
  expect(await text).toBe(': working\n\n: working\n\ndata: one\n\n: working\n\ndata: late error\n\n');
  expect(described).toEqual([new Error('late')]);
  expect(timers.waiting.size).toBe(0);
});

test('a reader that leaves aborts, and what comes after is nobody’s error', async () => {
  const { timers, source, aborts, described, response } = start();
  await source.give('one');
  const reader = (await response).body!.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe('data: one\n\n');
  // The stream is reading ahead: what it waits for fails because of the abort.
  await new Promise(resolve => setImmediate(resolve));
  await reader.cancel();
  expect(aborts).toEqual(['abort']);
  await new Promise(resolve => setImmediate(resolve));
  expect(described).toEqual([]);
  expect(timers.waiting.size).toBe(0);
});
