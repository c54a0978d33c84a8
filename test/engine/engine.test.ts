import { describe, expect, it } from 'vitest';
import { createEngine, type Engine } from '../../src/engine/engine.ts';
import { type GenerateEvent, GREEDY } from '../../src/engine/generate.ts';
import { EVENTS_AHEAD } from '../../src/engine/generation.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { type FakeOptions, FakeRunner, modelLogits, VOCABULARY } from './fake-runner.ts';
import { collect, expectedEvents, request, turns } from './requests.ts';

function start(
  options: FakeOptions = {},
  maxSequences = 8,
  maxQueue = 8,
): { runner: FakeRunner; engine: Engine } {
  const runner = new FakeRunner(options);
  return {
    runner,
    engine: createEngine({ runner, logitMath: SCRIPT_LOGIT_MATH, limits: { maxSequences, maxQueue } }),
  };
}

const idle = (engine: Engine): void => {
  const { active, waiting, pagesFree, pagesTotal } = engine.stats();
  expect({ active, waiting, pagesFree }).toEqual({ active: 0, waiting: 0, pagesFree: pagesTotal });
};

const code = (c: string): unknown => expect.objectContaining({ code: c });

describe('generate', () => {
  it('answers as the model and the sampler define', async () => {
    const { engine } = start();
    for (const r of [
      request(1, 5),
      request(2, 100, { sampling: GREEDY }),
      request(3, 1, { maxTokens: 1 }),
      request(4, 33, {
        sampling: { ...GREEDY, temperature: 0.9, topP: 0.8, repetitionPenalty: 1.2, seed: 9 },
      }),
      request(5, 16, { sampling: { ...GREEDY, presencePenalty: 0.5, frequencyPenalty: 0.5 }, maxTokens: 60 }),
      request(6, 4, { maxTokens: 0 }),
    ]) {
      expect(await collect(engine, r)).toEqual(expectedEvents(r));
    }
    idle(engine);
  });

  it('ends at a stop token without emitting it', async () => {
    const { engine } = start();
    const all = expectedEvents(request(1, 5));
    const stop = all[7] as { type: 'token'; id: number };
    const r = request(1, 5, { stopTokens: [stop.id] });
    const first = all.findIndex(e => e.type === 'token' && e.id === stop.id);
    expect(await collect(engine, r)).toEqual([...all.slice(0, first), { type: 'finish', reason: 'stop' }]);
    idle(engine);
  });

  it('gives interleaved requests the answers they have alone, in shared passes', async () => {
    const { runner, engine } = start();
    const requests = [3, 50, 17, 90, 1, 40].map((n, i) => request(i, n, { maxTokens: 10 + 5 * i }));
    const answers = await Promise.all(requests.map(r => collect(engine, r)));
    expect(answers).toEqual(requests.map(r => expectedEvents(r)));
    expect(runner.passes.some(p => p.length === 6)).toBe(true);
    expect(
      runner.passes.some(p => p.some(s => s.tokens.length > 1) && p.some(s => s.tokens.length === 1)),
    ).toBe(true);
    idle(engine);
  });

  it('continues a request that moved exactly where it was', async () => {
    const { engine } = start();
    const sampling = { ...GREEDY, temperature: 1.2, seed: 4, frequencyPenalty: 0.3, repetitionPenalty: 1.1 };
    const whole = request(8, 20, { sampling });
    const events = expectedEvents(whole);
    const generated = events.slice(0, 7).map(e => (e as { id: number }).id);
    expect(await collect(engine, { ...whole, generated })).toEqual(events.slice(7));
    const all = events.slice(0, 20).map(e => (e as { id: number }).id);
    expect(await collect(engine, { ...whole, generated: all })).toEqual([
      { type: 'finish', reason: 'length' },
    ]);
    idle(engine);
  });

  it('starts over where a sequence grows over a length at which rotations change, once', async () => {
    const { runner, engine } = start();
    runner.rotationSwitch = 20;
    const r = request(1, 15, { maxTokens: 12 });
    expect(await collect(engine, r)).toEqual(expectedEvents(r));
    const passes = runner.passes.map(([s]) => [s!.start, s!.tokens.length, s!.length]);
    expect(passes).toEqual([
      [0, 15, 15],
      ...[15, 16, 17, 18, 19].map(at => [at, 1, 15]),
      [0, 21, 21],
      ...[21, 22, 23, 24, 25].map(at => [at, 1, 21]),
    ]);
    idle(engine);
    runner.passes.length = 0;
    await collect(engine, request(1, 30, { maxTokens: 3 }));
    expect(runner.passes.map(([s]) => [s!.start, s!.length])).toEqual([
      [0, 30],
      [30, 30],
      [31, 30],
    ]);
  });

  it('asks only for the logits it needs', async () => {
    const { runner, engine } = start({ maxTokens: 16 });
    await collect(engine, request(1, 100, { maxTokens: 3 }));
    const rows = runner.passes.flat().map(s => s.logitsAt.length);
    expect(rows).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1]);
    expect(engine.stats()).toMatchObject({
      passes: 9,
      promptTokens: 100,
      generatedTokens: 3,
      tokensPerSecond: null,
    });
  });

  it('counts tokens a second on the clock it was given', async () => {
    const runner = new FakeRunner();
    let now = 50_000;
    runner.onRun = () => {
      now += 500;
    };
    const engine = createEngine({
      runner,
      logitMath: SCRIPT_LOGIT_MATH,
      clock: () => now,
      limits: { maxSequences: 1, maxQueue: 0 },
    });
    await collect(engine, request(1, 3, { maxTokens: 5 }));
    expect(engine.stats().tokensPerSecond).toBe(2.5);
  });
});

describe('limits', () => {
  it('refuses a prompt that leaves no place for an answer, with both numbers', async () => {
    const { engine } = start({ context: 40 });
    await expect(collect(engine, request(1, 40))).rejects.toThrow(
      /prompt has 40 tokens and the context holds 40/,
    );
    await expect(collect(engine, request(1, 40))).rejects.toEqual(code('CONTEXT_TOO_LONG'));
    expect(await collect(engine, request(1, 39))).toEqual(expectedEvents(request(1, 39), 40));
    idle(engine);
  });

  it('cuts answers to the context and to the KV pages', async () => {
    const { engine } = start({ context: 40 });
    const r = request(1, 30, { maxTokens: 1000 });
    expect(await collect(engine, r)).toEqual(expectedEvents(r, 40));
    const { engine: small } = start({ kvPages: 1 });
    const all = await collect(small, r);
    expect(all).toEqual(expectedEvents({ ...r, maxTokens: 3 }));
    await expect(collect(small, request(1, 33))).rejects.toThrow(/33 tokens and the KV memory holds 32/);
    idle(small);
  });

  it('answers BUSY when the queue is full, and takes requests again after', async () => {
    const { engine } = start({}, 2, 1);
    const three = [1, 2, 3].map(i => collect(engine, request(i, 5)));
    await expect(collect(engine, request(4, 5))).rejects.toEqual(code('BUSY'));
    expect(await Promise.all(three)).toEqual([1, 2, 3].map(i => expectedEvents(request(i, 5))));
    expect(await collect(engine, request(4, 5))).toEqual(expectedEvents(request(4, 5)));
    idle(engine);
  });

  it('has no more sequences in passes than allowed', async () => {
    const { runner, engine } = start({}, 2, 10);
    await Promise.all([1, 2, 3, 4, 5].map(i => collect(engine, request(i, 5))));
    expect(Math.max(...runner.passes.map(p => p.length))).toBe(2);
  });

  it.each([
    ['an empty prompt', { prompt: [] }],
    ['a token outside the vocabulary', { prompt: [1, VOCABULARY] }],
    ['a generated token that is no id', { generated: [0.5] }],
    ['a bias outside the vocabulary', { sampling: { ...GREEDY, logitBias: new Map([[VOCABULARY, 1]]) } }],
    ['a bias that is no number', { sampling: { ...GREEDY, logitBias: new Map([[1, Number.NaN]]) } }],
    ['maxTokens below 0', { maxTokens: -1 }],
    ['a negative temperature', { sampling: { ...GREEDY, temperature: -1 } }],
    ['topP over 1', { sampling: { ...GREEDY, topP: 1.5 } }],
    ['a broken seed', { sampling: { ...GREEDY, seed: 0.5 } }],
    ['a repetition penalty of 0', { sampling: { ...GREEDY, repetitionPenalty: 0 } }],
  ])('refuses %s', async (_, more) => {
    const { engine } = start();
    await expect(collect(engine, request(1, 5, more))).rejects.toEqual(code('BAD_REQUEST'));
    idle(engine);
  });

  it('refuses limits that are not counts', () => {
    const runner = new FakeRunner();
    for (const limits of [
      { maxSequences: 0, maxQueue: 1 },
      { maxSequences: 1, maxQueue: Number.NaN },
    ]) {
      expect(() => createEngine({ runner, logitMath: SCRIPT_LOGIT_MATH, limits })).toThrow(
        code('BAD_OPTION'),
      );
    }
  });
});

describe('KV pages', () => {
  it('keeps every answer when pages run out in the middle', async () => {
    const { engine } = start({ kvPages: 9 });
    const requests = [1, 2, 3, 4].map(i => request(i, 32, { maxTokens: 80 + i }));
    const answers = await Promise.all(requests.map(r => collect(engine, r)));
    expect(answers).toEqual(requests.map(r => expectedEvents(r)));
    expect(engine.stats().preemptions).toBeGreaterThan(0);
    idle(engine);
  });

  it('takes the pages of a request whose consumer stalls for one that waits', async () => {
    const { engine } = start({ kvPages: 8 });
    const stalled = engine.generate(request(1, 20, { maxTokens: 100 }), new AbortController().signal);
    const consumer = stalled[Symbol.asyncIterator]();
    const events: GenerateEvent[] = [];
    events.push((await consumer.next()).value);
    await turns(3 * EVENTS_AHEAD);
    const other = request(2, 60, { maxTokens: 60 });
    expect(await collect(engine, other)).toEqual(expectedEvents(other));
    for (let e = await consumer.next(); !e.done; e = await consumer.next()) events.push(e.value);
    expect(events).toEqual(expectedEvents(request(1, 20, { maxTokens: 100 })));
    idle(engine);
  });
});

describe('slow consumers', () => {
  it('pauses a sequence that is not read, and goes on with others and later with it', async () => {
    const { engine } = start();
    const r = request(1, 5, { maxTokens: 200 });
    const consumer = engine.generate(r, new AbortController().signal)[Symbol.asyncIterator]();
    const events: GenerateEvent[] = [(await consumer.next()).value];
    await turns(3 * EVENTS_AHEAD);
    // One was taken, the rest wait; nothing runs.
    expect(engine.stats().generatedTokens).toBe(EVENTS_AHEAD + 1);
    expect(await collect(engine, request(2, 9))).toEqual(expectedEvents(request(2, 9)));
    expect(engine.stats().generatedTokens).toBe(EVENTS_AHEAD + 1 + 20);
    for (let e = await consumer.next(); !e.done; e = await consumer.next()) events.push(e.value);
    expect(events).toEqual(expectedEvents(r));
    idle(engine);
  });
});

describe('cancellation', () => {
  it('frees pages and places at once, in a pass and in the queue', async () => {
    const { runner, engine } = start({}, 1, 1);
    const running = new AbortController();
    const waiting = new AbortController();
    let letGo = (): void => undefined;
    runner.onRun = () => new Promise<void>(resolve => (letGo = resolve));
    const first = collect(engine, request(1, 50), running.signal);
    const second = collect(engine, request(2, 50), waiting.signal);
    await turns(2);
    expect(engine.stats()).toMatchObject({ active: 1, waiting: 1 });
    waiting.abort();
    expect(engine.stats()).toMatchObject({ active: 1, waiting: 0 });
    running.abort();
    idle(engine);
    expect(await Promise.all([first, second])).toEqual([[], []]);
    runner.onRun = () => undefined;
    const third = collect(engine, request(3, 20));
    letGo();
    expect(await third).toEqual(expectedEvents(request(3, 20)));
    expect(engine.stats().promptTokens).toBe(20);
    idle(engine);
  });

  it('stops when the consumer stops iterating', async () => {
    const { engine } = start();
    for await (const _ of engine.generate(request(1, 5), new AbortController().signal)) break;
    idle(engine);
  });

  it('does nothing for a signal that is already aborted, and takes no place before iteration', async () => {
    const { engine } = start({}, 1, 0);
    expect(await collect(engine, request(1, 5), AbortSignal.abort())).toEqual([]);
    engine.generate(request(1, 5), new AbortController().signal);
    expect(engine.stats()).toMatchObject({ active: 0, waiting: 0, passes: 0 });
  });
});

describe('another plan', () => {
  it('keeps answers when the epoch changes between passes and in one', async () => {
    const { runner, engine } = start();
    runner.onRun = pass => {
      if (pass === 6 || pass === 13) runner.newEpoch();
    };
    runner.onRows = () => {
      if (runner.passes.length === 10) runner.newEpoch({ kvPages: 40 });
    };
    const requests = [3, 50, 17].map((n, i) => request(i, n));
    const answers = await Promise.all(requests.map(r => collect(engine, r)));
    expect(answers).toEqual(requests.map(r => expectedEvents(r)));
    expect(runner.epoch).toBe(4);
    expect(engine.stats()).toMatchObject({ promptTokens: 70, generatedTokens: 60, pagesTotal: 40 });
    idle(engine);
  });

  it.each(['DEVICE_LOST', 'NOT_READY'] as const)('waits for a plan after %s and starts over', async error => {
    const { runner, engine } = start();
    runner.onRun = pass => {
      if (pass === 5) throw new PotluckError(error, 'gone');
    };
    expect(await collect(engine, request(1, 40))).toEqual(expectedEvents(request(1, 40)));
    expect(runner.readyCalls).toBe(2);
    idle(engine);
  });

  it('fails all requests with the error of ready(), and takes new ones after', async () => {
    const { runner, engine } = start({}, 1, 5);
    runner.onReady = () => {
      throw new PotluckError('NOT_READY', 'no plan');
    };
    const results = await Promise.allSettled([1, 2].map(i => collect(engine, request(i, 5))));
    expect(results.map(r => r.status === 'rejected' && r.reason.code)).toEqual(['NOT_READY', 'NOT_READY']);
    runner.onReady = () => undefined;
    expect(await collect(engine, request(1, 5))).toEqual(expectedEvents(request(1, 5)));
    idle(engine);
  });

  it('gives up when plan after plan breaks', async () => {
    const { runner, engine } = start();
    runner.onRun = () => {
      throw new PotluckError('DEVICE_LOST', 'gone again');
    };
    await expect(collect(engine, request(1, 5))).rejects.toEqual(code('DEVICE_LOST'));
    expect(runner.readyCalls).toBe(8);
    idle(engine);
  });

  it('does not give up on plans that break one after another as long as passes come through', async () => {
    const { runner, engine } = start();
    runner.onRun = pass => {
      if (pass % 4 === 3) throw new PotluckError('DEVICE_LOST', 'gone again');
    };
    expect(await collect(engine, request(1, 60))).toEqual(expectedEvents(request(1, 60)));
    expect(runner.readyCalls).toBeGreaterThan(9);
    idle(engine);
  });

  it('applies the context and pages of the new plan', async () => {
    const { runner, engine } = start();
    runner.onRun = pass => {
      if (pass === 6) runner.newEpoch({ context: 20 });
    };
    const short = request(1, 10, { maxTokens: 300 });
    const long = collect(engine, request(2, 30, { maxTokens: 300 }));
    const answers = await Promise.allSettled([collect(engine, short), long]);
    expect(answers[0]).toMatchObject({ value: expectedEvents(short, 20) });
    expect(answers[1]).toMatchObject({ reason: { code: 'CONTEXT_TOO_LONG' } });
    idle(engine);
  });
});

describe('failures', () => {
  it('fails the requests of the pass only', async () => {
    const { runner, engine } = start({}, 1, 5);
    runner.onRun = pass => {
      if (pass === 3) throw new PotluckError('DISK_READ', 'short read');
    };
    const both = await Promise.allSettled([1, 2].map(i => collect(engine, request(i, 5))));
    expect(both[0]).toMatchObject({ reason: { code: 'DISK_READ' } });
    expect(both[1]).toMatchObject({ value: expectedEvents(request(2, 5)) });
    idle(engine);
  });

  it('fails only the sequence whose logits are not numbers', async () => {
    const { runner, engine } = start();
    runner.onRows = rows => {
      if (runner.passes.length === 5) rows[0]!.fill(Number.NaN);
    };
    const both = await Promise.allSettled([1, 2].map(i => collect(engine, request(i, 5))));
    expect(both[0]).toMatchObject({ reason: { code: 'KERNEL_FAILED' } });
    expect(both[1]).toMatchObject({ value: expectedEvents(request(2, 5)) });
    idle(engine);
  });

  it('does not take rows that it did not ask for', async () => {
    const { runner, engine } = start();
    runner.onRows = rows => void rows.push(modelLogits([]));
    await expect(collect(engine, request(1, 5))).rejects.toEqual(code('INTERNAL'));
    runner.onRows = rows => void rows.fill(new Float32Array(3));
    await expect(collect(engine, request(1, 5))).rejects.toEqual(code('INTERNAL'));
    idle(engine);
  });

  it('fails everything with STOPPED when it is closed, after the pass in flight', async () => {
    const { runner, engine } = start({}, 1, 5);
    let letGo = (): void => undefined;
    runner.onRun = () => new Promise<void>(resolve => (letGo = resolve));
    const requests = [1, 2].map(i => collect(engine, request(i, 5)));
    const failed = Promise.allSettled([...requests, engine.evaluate([1, 2], [1], () => undefined)]);
    await turns(2);
    let closed = false;
    const closing = engine.close().then(() => (closed = true));
    expect((await failed).map(r => r.status === 'rejected' && r.reason.code)).toEqual(
      Array(3).fill('STOPPED'),
    );
    await turns(2);
    expect(closed).toBe(false);
    letGo();
    await closing;
    idle(engine);
    await expect(collect(engine, request(1, 5))).rejects.toEqual(code('STOPPED'));
  });

  it('does not wait for a plan when it is closed', async () => {
    const { runner, engine } = start();
    runner.onReady = signal =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    const failed = expect(collect(engine, request(1, 5))).rejects.toEqual(code('STOPPED'));
    await turns(2);
    await engine.close();
    await failed;
    expect(runner.readyCalls).toBe(1);
    idle(engine);
  });
});

describe('evaluate', () => {
  it('gives the logits at each position once, beside answers and over a new plan', async () => {
    const { runner, engine } = start({ maxLogitRows: 4, kvPages: 12 });
    runner.onRun = pass => {
      if (pass === 5) runner.newEpoch();
    };
    const text = request(1, 90).prompt;
    const at = text.map((_, i) => i).filter(i => i % 3 !== 1);
    const seen: number[] = [];
    const answer = collect(engine, request(2, 30));
    await engine.evaluate(text, at, (position, row) => {
      expect(row).toEqual(modelLogits(text.slice(0, position + 1)));
      seen.push(position);
    });
    expect(seen).toEqual(at);
    expect(await answer).toEqual(expectedEvents(request(2, 30)));
    idle(engine);
  });

  it('computes nothing after the last position asked for', async () => {
    const { runner, engine } = start();
    await engine.evaluate(request(1, 90).prompt, [4], () => undefined);
    await engine.evaluate([1, 2, 3], [], () => undefined);
    expect(runner.passes.flat().map(s => s.tokens.length)).toEqual([5]);
  });

  it('refuses positions that do not rise, long texts and unknown tokens, and passes on what onRow throws', async () => {
    const { engine } = start({ context: 30 });
    const nothing = (): void => undefined;
    for (const at of [[1, 1], [-1], [3], [0.5]]) {
      await expect(engine.evaluate([1, 2, 3], at, nothing)).rejects.toEqual(code('BAD_REQUEST'));
    }
    for (const at of [[1], [0]])
      await expect(engine.evaluate([1, 99], at, nothing)).rejects.toEqual(code('BAD_REQUEST'));
    await expect(engine.evaluate(request(1, 31).prompt, [30], nothing)).rejects.toEqual(
      code('CONTEXT_TOO_LONG'),
    );
    await engine.evaluate(request(1, 31).prompt, [29], nothing);
    const thrown = engine.evaluate([1, 2], [0], () => {
      throw new Error('no more');
    });
    await expect(thrown).rejects.toThrow('no more');
    idle(engine);
  });

  it('ends with the reason of its signal', async () => {
    const { engine } = start();
    const stop = new AbortController();
    const seen: number[] = [];
    const evaluation = engine.evaluate(
      request(1, 90).prompt,
      [0, 1, 80],
      position => {
        seen.push(position);
        if (position === 0) stop.abort(new Error('enough'));
      },
      stop.signal,
    );
    await expect(evaluation).rejects.toThrow('enough');
    expect(seen).toEqual([0]);
    idle(engine);
    await expect(engine.evaluate([1], [0], () => undefined, stop.signal)).rejects.toThrow('enough');
  });
});
