import { expect, test } from 'vitest';
import { ClusterGenerator, type GenerateRoute, UNREAD_MS } from '../../src/cluster/cluster-generator.ts';
import type { Member } from '../../src/cluster/members.ts';
import type { Message } from '../../src/cluster/messages.ts';
import { RemoteStreams } from '../../src/cluster/remote-streams.ts';
import { createEngine } from '../../src/engine/engine.ts';
import { type GenerateRequest, GREEDY } from '../../src/engine/generate.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { FakeRunner } from '../engine/fake-runner.ts';
import { ManualTimers } from './manual-timers.ts';
import { deviceInfo } from './ws-devices.ts';

const request: GenerateRequest = {
  prompt: [1],
  generated: [],
  maxTokens: 3,
  stopTokens: [],
  sampling: { ...GREEDY, seed: 1 },
};

/** An answer over `route`. */
function answer(route: GenerateRoute, timers: ManualTimers, asked = request) {
  const generator = new ClusterGenerator({ route: () => route, onRoute: () => () => undefined, timers });
  return generator.generate(asked, new AbortController().signal);
}

test('an answer that is not read is ended for the hub at once, and for its reader when it reads on', async () => {
  const timers = new ManualTimers();
  const signals: AbortSignal[] = [];
  const route: GenerateRoute = {
    hubId: 'hub',
    async *generate(_, signal) {
      signals.push(signal);
      for (let id = 0; id < 3; id++) if (!signal.aborted) yield { type: 'token', id };
    },
  };
  const events = answer(route, timers);
  // a reader that is slow, but reads
  for (let id = 0; id < 2; id++) {
    expect((await events.next()).value).toEqual({ type: 'token', id });
    timers.advance(UNREAD_MS - 1);
  }
  expect(signals[0]!.aborted).toBe(false);
  timers.advance(1);
  expect(signals[0]!.aborted).toBe(true);
  await expect(events.next()).rejects.toMatchObject({ code: 'DEADLINE' });
  expect(signals).toHaveLength(1);
  expect(timers.pending).toBe(0);
});

test('the place that an unread answer has in the engine is free again', async () => {
  const timers = new ManualTimers();
  const engine = createEngine({
    runner: new FakeRunner(),
    logitMath: SCRIPT_LOGIT_MATH,
    limits: { maxSequences: 1, maxQueue: 0 },
  });
  const route: GenerateRoute = { hubId: 'hub', generate: (...args) => engine.generate(...args) };
  const long = { ...request, maxTokens: 200 };
  const events = answer(route, timers, long);
  await events.next();
  const next = () => answer(route, timers).next();
  await expect(next()).rejects.toMatchObject({ code: 'BUSY' });
  timers.advance(UNREAD_MS);
  expect((await next()).value).toMatchObject({ type: 'token' });
  await expect(events.next()).rejects.toMatchObject({ code: 'DEADLINE' });
  await engine.close();
});

test('a finish waits for its reader as long as it takes, and who goes away leaves no timer', async () => {
  const timers = new ManualTimers();
  const route: GenerateRoute = {
    hubId: 'hub',
    async *generate() {
      yield { type: 'token', id: 7 };
      yield { type: 'finish', reason: 'stop' };
    },
  };
  const events = answer(route, timers);
  await events.next();
  expect((await events.next()).value).toEqual({ type: 'finish', reason: 'stop' });
  timers.advance(10 * UNREAD_MS);
  expect((await events.next()).done).toBe(true);
  const left = answer(route, timers);
  await left.next();
  await left.return(undefined);
  expect(timers.pending).toBe(0);
});

/** An answer while the hub is another one at every step of the clock; `hold` of each attempt in milliseconds. */
async function wander(hold: (attempt: number) => number, finishes: (attempt: number) => boolean) {
  const timers = new ManualTimers();
  const changed = new Set<() => void>();
  let attempts = 0;
  let hub = 0;
  const generator = new ClusterGenerator({
    route: () => ({
      hubId: `hub ${hub}`,
      async *generate() {
        attempts += 1;
        if (finishes(attempts)) return yield { type: 'finish', reason: 'stop' };
        timers.advance(hold(attempts));
        hub += 1;
        throw new PotluckError('DEVICE_LOST', 'The hub is gone.');
      },
    }),
    onRoute: call => {
      changed.add(call);
      return () => changed.delete(call);
    },
    timers,
  });
  const events = generator.generate(request, new AbortController().signal);
  const result = await events.next().then(
    ({ value }) => value,
    (error: unknown) => error,
  );
  await events.return(undefined);
  expect([changed.size, timers.pending]).toEqual([0, 0]);
  return { result, waited: timers.now() };
}

test('hubs that come and go without a token do not keep an answer waiting for ever', async () => {
  const { result, waited } = await wander(
    () => 5000,
    attempt => attempt > 30,
  );
  expect(result).toMatchObject({ code: 'DEVICE_LOST' });
  expect(waited).toBe(65_000);
});

test("an answer that waited long for its model's turn moves on when its hub is lost", async () => {
  const { result } = await wander(
    attempt => (attempt === 1 ? 200_000 : 20_000),
    attempt => attempt === 3,
  );
  expect(result).toEqual({ type: 'finish', reason: 'stop' });
});

test('another device is told at once that nobody reads its answer', async () => {
  const timers = new ManualTimers();
  const sent: Message[] = [];
  const link = { isOpen: true, send: (message: Message) => void sent.push(message) };
  const member = { device: deviceInfo(1), link } as unknown as Member;
  const streams = new RemoteStreams();
  const events = answer(
    { hubId: 'hub', generate: (...args) => streams.generate(member, '0123456789abcdef', ...args) },
    timers,
  );
  const first = events.next();
  await expect.poll(() => sent.map(({ type }) => type)).toEqual(['generate']);
  streams.receive(member, { type: 'token', stream: 1, id: 5 });
  expect((await first).value).toEqual({ type: 'token', id: 5 });
  timers.advance(UNREAD_MS);
  expect(sent.at(-1)).toEqual({ type: 'cancel', stream: 1 });
  await expect(events.next()).rejects.toMatchObject({ code: 'DEADLINE' });
  expect(sent).toHaveLength(2);
});
