import { beforeEach, expect, test } from 'vitest';
import { betterChoice, modelsOf } from '../../src/cluster/model-choice.ts';
import { MOST_WAITING, ModelQueue, STALL_MS, TURN_MS } from '../../src/cluster/model-queue.ts';
import type { GenerateRequest } from '../../src/engine/generate.ts';
import { asPotluckError, PotluckError } from '../../src/errors/errors.ts';
import { ManualTimers } from './manual-timers.ts';

let timers: ManualTimers;
/** The model that the hub makes plans for, and that whose plan the engine has. */
let target: string | null;
let planned: string | null;
let chosen: string[];
/** 'NAME on MODEL' where a request enters the engine; 'NAME end' or 'NAME CODE' where its answer ends. */
let events: string[];
let finish: Map<string, () => void>;
let work: { calls: number; computing: boolean };
let queue: ModelQueue;

beforeEach(() => {
  timers = new ManualTimers();
  [target, planned] = ['a', null];
  chosen = [];
  events = [];
  finish = new Map();
  work = { calls: 0, computing: false };
  queue = new ModelQueue({
    generator: {
      async *generate({ prompt }, signal) {
        const name = String.fromCharCode(...prompt);
        events.push(`${name} on ${planned}`);
        await new Promise<void>(resolve => {
          finish.set(name, resolve);
          signal.addEventListener('abort', () => resolve(), { once: true });
        });
        if (!signal.aborted) yield { type: 'finish', reason: 'stop' };
      },
    },
    work: () => work,
    timers,
    target: () => target,
    previous: () => planned,
    choose: modelId => {
      if (!'abc'.includes(modelId)) return false;
      chosen.push(modelId);
      target = modelId;
      return true;
    },
  });
});

const promptOf = (name: string) =>
  ({ prompt: [...name].map(letter => letter.charCodeAt(0)) }) as unknown as GenerateRequest;

/** Asks for the model that is the first letter of `name`. */
async function ask(name: string, signal = new AbortController().signal): Promise<void> {
  try {
    for await (const event of queue.generate(name[0]!, promptOf(name), signal))
      expect(event.type).toBe('finish');
    events.push(`${name} end`);
  } catch (error) {
    events.push(`${name} ${asPotluckError(error).code}`);
  }
}

function serve(modelId: string): Promise<void> {
  planned = modelId;
  queue.begins(modelId);
  queue.serving(modelId);
  return settled();
}

const settled = () => new Promise<void>(resolve => setTimeout(resolve, 0));
const end = (name: string) => {
  finish.get(name)!();
  return settled();
};
/** What happened since the last call. */
const news = () => events.splice(0);

test('before the first plan requests wait; then they go in at once', async () => {
  void ask('a1');
  await settled();
  expect(news()).toEqual([]);
  await serve('a');
  void ask('a2');
  await settled();
  expect(news()).toEqual(['a1 on a', 'a2 on a']);
  expect(chosen).toEqual([]);
});

test('another model comes when nothing runs any more, and with it all that wait for it; later ones wait behind others', async () => {
  await serve('a');
  for (const name of ['a1', 'b1', 'a2', 'b2']) void ask(name);
  await settled();
  expect(news()).toEqual(['a1 on a']);
  expect(chosen).toEqual([]);
  await end('a1');
  expect(news()).toEqual(['a1 end']);
  expect(chosen).toEqual(['b']);
  // the old plan is there until the new one is
  void ask('b3');
  await settled();
  expect(news()).toEqual([]);
  await serve('b');
  expect(news()).toEqual(['b1 on b', 'b2 on b', 'b3 on b']);
  void ask('b4');
  for (const name of ['b1', 'b2', 'b3']) await end(name);
  expect(chosen).toEqual(['b', 'a']);
  await serve('a');
  expect(news()).toEqual(['b1 end', 'b2 end', 'b3 end', 'a2 on a']);
  await end('a2');
  expect(chosen).toEqual(['b', 'a', 'b']);
  await serve('b');
  expect(news()).toEqual(['a2 end', 'b4 on b']);
});

test('a new plan of the same model leaves answers alone; one of another model ends them to be asked again', async () => {
  await serve('a');
  void ask('a1');
  await serve('a');
  expect(news()).toEqual(['a1 on a']);
  target = 'b';
  await serve('b');
  expect(news()).toEqual(['a1 NOT_READY']);
});

test('a request that goes away makes room, in the engine and in the queue', async () => {
  await serve('a');
  const [first, second] = [new AbortController(), new AbortController()];
  void ask('a1', first.signal);
  void ask('b1', second.signal);
  void ask('c1');
  await settled();
  second.abort();
  await settled();
  expect(chosen).toEqual([]);
  first.abort();
  await settled();
  expect(chosen).toEqual(['c']);
});

test('a request that is cancelled while nobody reads its answer makes room at once', async () => {
  await serve('a');
  const given = new AbortController();
  const unread = queue.generate('a', promptOf('a1'), given.signal);
  const first = unread.next();
  await settled();
  await end('a1');
  await first;
  void ask('b1');
  await settled();
  expect(chosen).toEqual([]);
  given.abort();
  expect(chosen).toEqual(['b']);
});

test('the queue has a limit, and a wait an end', async () => {
  await serve('a');
  void ask('a1');
  for (let i = 0; i < MOST_WAITING; i++) void ask(`b${i % 10}`);
  await ask('bx');
  expect(news()).toEqual(['a1 on a', 'bx BUSY']);
  work.computing = true;
  timers.advance(TURN_MS - 1);
  await settled();
  expect(news()).toEqual([]);
  timers.advance(1);
  await settled();
  expect(news()).toHaveLength(MOST_WAITING);
  await end('a1');
  expect(news()).toEqual(['a1 end']);
  expect(timers.pending).toBe(0);
  void ask('a2');
  await settled();
  expect(news()).toEqual(['a2 on a']);
});

test('a model that cannot be loaded fails for those that wait, and the one before comes back', async () => {
  await serve('a');
  void ask('b1');
  await settled();
  expect(chosen).toEqual(['b']);
  queue.failed('b', new PotluckError('MEMORY_TOO_SMALL', 'too small'));
  await settled();
  expect(news()).toEqual(['b1 MEMORY_TOO_SMALL']);
  expect(chosen).toEqual(['b', 'a']);
  void ask('b2');
  void ask('c1');
  await settled();
  queue.failed('b', new PotluckError('MEMORY_TOO_SMALL', 'too small'));
  await settled();
  expect(news()).toEqual(['b2 MEMORY_TOO_SMALL']);
  expect(chosen).toEqual(['b', 'a', 'b', 'c']);
});

test('an answer ends where the engine does nothing for it, and goes on as long as it works', async () => {
  await serve('a');
  void ask('a1');
  await settled();
  news();
  // a pass of many calls, and then one of a single call that takes long
  for (const step of [{ calls: 1 }, { calls: 2 }, { computing: true }, {}, { calls: 3, computing: false }]) {
    work = { ...work, ...step };
    timers.advance(STALL_MS);
    await settled();
    expect(news()).toEqual([]);
  }
  timers.advance(STALL_MS);
  await settled();
  expect(news()).toEqual(['a1 DEADLINE']);
  expect(timers.pending).toBe(0);
});

test('other work on the engine keeps its model until it ends, and has its turn behind those that wait', async () => {
  await serve('a');
  const ends = new Map<string, () => void>();
  const hold = async (name: string, signal = new AbortController().signal) => {
    try {
      await queue.hold(either => {
        events.push(`${name} on ${planned}`);
        return new Promise<void>((resolve, reject) => {
          ends.set(name, resolve);
          either.addEventListener('abort', () => reject(either.reason));
        });
      }, signal);
    } catch (error) {
      events.push(`${name} ${asPotluckError(error).code}`);
    }
  };
  void hold('first');
  void ask('b1');
  void hold('second');
  await settled();
  expect(news()).toEqual(['first on a']);
  expect(chosen).toEqual([]);
  ends.get('first')!();
  await settled();
  expect(chosen).toEqual(['b']);
  await serve('b');
  await end('b1');
  expect(chosen).toEqual(['b', 'a']);
  await serve('a');
  expect(news()).toEqual(['b1 on b', 'b1 end', 'second on a']);
  // the word of another device
  target = 'b';
  await serve('b');
  expect(news()).toEqual(['second NOT_READY']);
  void hold('third');
  timers.advance(STALL_MS);
  await settled();
  expect(news()).toEqual(['third on b', 'third DEADLINE']);
  const gone = new AbortController();
  void hold('fourth', gone.signal);
  gone.abort(new PotluckError('STOPPED', 'gone'));
  await settled();
  expect(news()).toEqual(['fourth on b', 'fourth STOPPED']);
  expect(timers.pending).toBe(0);
});

test('a model that no device has any more is unknown', async () => {
  await serve('a');
  await ask('x1');
  expect(news()).toEqual(['x1 UNKNOWN_MODEL']);
});

test('who waits behind a model that is unknown goes in with it out of the way', async () => {
  await serve('a');
  void ask('a1');
  void ask('x1');
  void ask('a2');
  await settled();
  expect(news()).toEqual(['a1 on a']);
  await end('a1');
  expect(news().sort()).toEqual(['a1 end', 'a2 on a', 'x1 UNKNOWN_MODEL']);
});

test('who waits behind a request that was given up goes in at once', async () => {
  await serve('a');
  void ask('a1');
  const given = new AbortController();
  void ask('b1', given.signal);
  void ask('a2');
  await settled();
  expect(news()).toEqual(['a1 on a']);
  given.abort();
  await settled();
  expect(news().sort()).toEqual(['a2 on a', 'b1 end']);
});

test('a device that is hub no more sends everybody to the new one', async () => {
  await serve('a');
  void ask('a1');
  void ask('b1');
  await settled();
  queue.stop();
  await settled();
  expect(news()).toEqual(['a1 on a', 'b1 NOT_READY', 'a1 NOT_READY']);
});

test('the later choice wins, whoever hears it first', () => {
  const [a, b, later] = [
    { turn: 1, modelId: 'aa' },
    { turn: 1, modelId: 'bb' },
    { turn: 2, modelId: 'bb' },
  ];
  expect(betterChoice(null, null)).toBeNull();
  expect(betterChoice(a, null)).toBe(a);
  expect(betterChoice(null, a)).toBe(a);
  expect([betterChoice(a, b), betterChoice(b, a)]).toEqual([a, a]);
  expect([betterChoice(a, later), betterChoice(later, a)]).toEqual([later, later]);
});

test('models of one name are told apart', () => {
  const models = modelsOf([
    { id: 'one', models: [{ id: 'ffffffff11', name: 'qwen' }] },
    {
      id: 'two',
      models: [
        { id: '0000000022', name: 'qwen' },
        { id: 'ffffffff11', name: 'qwen' },
      ],
    },
  ]);
  expect(models).toEqual([
    { id: '0000000022', name: 'qwen', holders: ['two'] },
    { id: 'ffffffff11', name: 'qwen@ffffffff', holders: ['one', 'two'] },
  ]);
});
