import { describe, expect, it } from 'vitest';
import { DraftLookup } from '../../src/engine/draft-lookup.ts';
import { Drafts, MOST_DRAFTED } from '../../src/engine/drafts.ts';
import { createEngine, type Engine } from '../../src/engine/engine.ts';
import { GREEDY } from '../../src/engine/generate.ts';
import { PassCost } from '../../src/engine/pass-cost.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { type FakeOptions, FakeRunner } from './fake-runner.ts';
import { collect, expectedEvents, request } from './requests.ts';

describe('the lookup', () => {
  it('gives what followed the last three tokens when they stood there last', () => {
    const lookup = new DraftLookup();
    expect(lookup.find([1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 8, 1, 2, 3], 3)).toEqual([7, 8, 1]);
    expect(lookup.find([1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 8, 1, 2, 3, 4], 2)).toEqual([5, 9]);
  });

  it('gives nothing where they are new, or too few', () => {
    expect(new DraftLookup().find([1, 2, 3, 4, 5], 4)).toEqual([]);
    expect(new DraftLookup().find([1, 2, 1, 2], 4)).toEqual([]);
    expect(new DraftLookup().find([1, 1], 4)).toEqual([]);
    expect(new DraftLookup().find([], 4)).toEqual([]);
    expect(new DraftLookup().find([1, 2, 3, 1, 2, 3], 0)).toEqual([]);
  });

  it('goes on behind the end of a text that repeats itself', () => {
    expect(new DraftLookup().find([5, 1, 2, 1, 2, 1], 5)).toEqual([2, 1, 2, 1, 2]);
    expect(new DraftLookup().find([7, 7, 7, 7], 4)).toEqual([7, 7, 7, 7]);
  });

  it('is right about texts of any length, asked at every token or seldom', () => {
    const text: number[] = [];
    const often = new DraftLookup();
    for (let i = 0; i < 3000; i++) {
      text.push((i * i) % 11);
      const found = often.find(text, 4);
      const same = (at: number) => [1, 2, 3].every(back => text[at - back] === text[text.length - back]);
      let last = text.length - 1;
      while (last >= 3 && !same(last)) last--;
      if (text.length < 3 || last < 3) expect(found).toEqual([]);
      else if (found.length > 0) expect(found[0]).toBe(text[last]);
      if (i % 500 === 499) expect(new DraftLookup().find(text, 4)).toEqual(found);
    }
    expect(often.find(text, 4)).not.toEqual([]);
  });
});

describe('how much is drafted', () => {
  const TEXT = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3];
  /** Drafts of a text whose next tokens come as found `right` times of all. */
  function after(results: readonly boolean[], cost = new PassCost()): number {
    const drafts = new Drafts();
    for (const right of results) {
      drafts.next(TEXT, MOST_DRAFTED, cost);
      drafts.drawn(right ? 4 : 0);
    }
    return drafts.next(TEXT, MOST_DRAFTED, cost).length;
  }

  it('is nothing until what was found comes', () => {
    expect(after([])).toBe(0);
    expect(after([false, false, false])).toBe(0);
    expect(after([true, true, true])).toBeGreaterThan(0);
  });

  it('grows as more comes, and is nothing again when it does not', () => {
    const sure = Array.from({ length: 30 }, () => true);
    expect(after(sure)).toBeGreaterThan(MOST_DRAFTED - 3);
    expect(after(sure.slice(0, 6))).toBeLessThan(after(sure));
    expect(after([...sure, ...Array.from({ length: 12 }, () => false)])).toBe(0);
  });

  it('depends on what a further token costs', () => {
    const cost = (further: number) => {
      const passes = new PassCost();
      for (let i = 0; i < 40; i++) {
        passes.note(1, 10);
        passes.note(5, 10 * (1 + 4 * further));
      }
      return passes;
    };
    const results = Array.from({ length: 8 }, () => true);
    expect(cost(0.5).of(3)).toBeCloseTo(2, 1);
    expect(after(results, cost(0.02))).toBeGreaterThan(after(results, cost(0.3)));
    expect(after(results, cost(1))).toBe(0);
  });

  it('is tried again some time after it was too dear, and not given up for one slow pass', () => {
    const results = Array.from({ length: 8 }, () => true);
    const cost = new PassCost();
    const passes = (count: number, tokens: number, milliseconds: number) => {
      for (let i = 0; i < count; i++) cost.note(tokens, milliseconds);
    };
    passes(5, 1, 10);
    passes(1, 4, 10_000);
    expect(after(results, cost)).toBeGreaterThan(0);
    passes(40, 4, 40);
    expect(after(results, cost)).toBe(0);
    passes(100, 1, 10);
    expect(after(results, cost)).toBeGreaterThan(0);
  });

  it('counts each token of a draft that came', () => {
    const drafts = new Drafts();
    const cost = new PassCost();
    drafts.next(TEXT, MOST_DRAFTED, cost);
    for (const id of [4, 5, 6, 7, 8]) drafts.drawn(id);
    const many = drafts.next(TEXT, MOST_DRAFTED, cost).length;
    expect(many).toBe(after([true, true, true, true, true]));
    for (const id of [4, 0, 6, 7, 8]) drafts.drawn(id); // what follows a wrong one says nothing
    expect(drafts.next(TEXT, MOST_DRAFTED, cost).length).toBe(after([...Array(6).fill(true), false]));
  });
});

describe('an engine with drafts', () => {
  function start(options: FakeOptions = {}): { runner: FakeRunner; engine: Engine } {
    const runner = new FakeRunner({ repeats: true, maxLogitRows: 16, ...options });
    const limits = { maxSequences: 4, maxQueue: 8 };
    return { runner, engine: createEngine({ runner, logitMath: SCRIPT_LOGIT_MATH, limits, drafts: true }) };
  }

  it('gives the same answers in fewer passes', async () => {
    const { runner, engine } = start();
    for (const r of [
      request(1, 5, { sampling: GREEDY, maxTokens: 300 }),
      request(2, 100, { maxTokens: 200, sampling: { ...GREEDY, temperature: 0.3, seed: 3 } }),
      request(3, 60, {
        maxTokens: 250,
        sampling: { ...GREEDY, repetitionPenalty: 1.01, frequencyPenalty: 0.01 },
      }),
    ])
      expect(await collect(engine, r)).toEqual(expectedEvents(r, 512, true));
    const { passes, generatedTokens, draftedTokens, acceptedTokens } = engine.stats();
    expect(generatedTokens).toBe(750);
    expect(passes).toBeLessThan(generatedTokens * 0.6);
    expect(acceptedTokens).toBeLessThanOrEqual(draftedTokens);
    // Four passes have the beginnings of the two longer prompts; each other one gives a token and what it accepts.
    expect(passes).toBe(generatedTokens - acceptedTokens + 4);
    for (const [s] of runner.passes.filter(pass => pass[0]!.start >= 100))
      expect(s!.logitsAt.length).toBe(s!.tokens.length);
    expect(runner.passes.some(pass => pass[0]!.tokens.length > 8)).toBe(true);
    expect(engine.stats().pagesFree).toBe(engine.stats().pagesTotal);
  });

  it('counts prompt tokens once, and ends at the limit in the middle of a draft', async () => {
    const { engine } = start();
    const whole = request(1, 5, { sampling: GREEDY, maxTokens: 300 });
    const events = expectedEvents(whole, 512, true);
    for (const maxTokens of [150, 151, 157]) {
      expect(await collect(engine, { ...whole, maxTokens })).toEqual([
        ...events.slice(0, maxTokens),
        { type: 'finish', reason: 'length' },
      ]);
    }
    expect(engine.stats().promptTokens).toBe(5 * 3);
  });

  it('ends at a stop token of a draft, which the prompt had too', async () => {
    const { runner, engine } = start();
    let within = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const told = request(seed, 5, { sampling: GREEDY, maxTokens: 200 });
      const ids = expectedEvents(told, 512, true).flatMap(e => (e.type === 'token' ? [e.id] : []));
      // Goes on with the answer from its middle, up to what it last had far ahead.
      const prompt = [...told.prompt, ...ids.slice(0, 100)];
      const stop = prompt.findLast(id => ids.slice(100, 112).every(other => other !== id));
      if (stop === undefined) continue;
      const r = { ...told, prompt, stopTokens: [stop] };
      const passes = runner.passes.length;
      expect(await collect(engine, r)).toEqual(expectedEvents(r, 512, true));
      const last = runner.passes.slice(passes).at(-1)![0]!;
      if (last.tokens.indexOf(stop, 1) > 0) within++;
    }
    expect(within).toBeGreaterThan(0);
    expect(engine.stats().pagesFree).toBe(engine.stats().pagesTotal);
  });

  it('keeps within the context, the pages, the rows and the length at which rotations change', async () => {
    const { runner, engine } = start({ context: 128, kvPages: 4, maxTokens: 12, maxLogitRows: 9 });
    runner.rotationSwitch = 100;
    const r = request(1, 5, { sampling: GREEDY, maxTokens: 500 });
    expect(await collect(engine, r)).toEqual(expectedEvents(r, 128, true));
    const longest = Math.max(
      ...runner.passes.filter(p => p[0]!.logitsAt.length > 1).map(p => p[0]!.tokens.length),
    );
    expect(longest).toBe(9);
    const before = runner.passes.flatMap(pass => (pass[0]!.length <= 100 ? [pass[0]!] : []));
    expect(before.some(s => s.tokens.length > 1 && s.start > 5)).toBe(true);
    for (const s of before) expect(s.start + s.tokens.length).toBeLessThanOrEqual(100);
  });

  it('has none while several generate', async () => {
    const { runner, engine } = start();
    const both = [1, 2].map(n => request(n, 5, { sampling: GREEDY, maxTokens: 120 }));
    const answers = await Promise.all(both.map(r => collect(engine, r)));
    expect(answers).toEqual(both.map(r => expectedEvents(r, 512, true)));
    for (const pass of runner.passes.filter(p => p.length > 1 && p.every(s => s.start > 5)))
      expect(pass.every(s => s.tokens.length === 1)).toBe(true);
  });
});
