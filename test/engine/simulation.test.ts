import { expect, it } from 'vitest';
import { createEngine, type Engine } from '../../src/engine/engine.ts';
import { type GenerateEvent, type GenerateRequest, GREEDY } from '../../src/engine/generate.ts';
import { uniform } from '../../src/engine/random.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { FakeRunner } from './fake-runner.ts';
import { expectedEvents, request, turns } from './requests.ts';

/** Every run has another seed unless POTLUCK_SEED gives one; a failure names it. */
const SEED = Number(process.env.POTLUCK_SEED ?? Math.floor(Math.random() * 1e9));
const REQUESTS = 200;

class Dice {
  #rolls = 0;
  readonly #seed: number;
  constructor(seed: number) {
    this.#seed = seed;
  }
  below(n: number): number {
    return Math.floor(uniform(this.#seed, this.#rolls++) * n);
  }
  chance(p: number): boolean {
    return uniform(this.#seed, this.#rolls++) < p;
  }
}

/** Breaks passes and plans now and then. */
function unreliable(runner: FakeRunner, dice: Dice): void {
  runner.onRun = async () => {
    await turns(dice.below(2));
    if (dice.chance(0.01)) runner.newEpoch({ kvPages: 11 + dice.below(10) });
    if (dice.chance(0.005)) throw new PotluckError('DEVICE_LOST', 'gone');
    if (dice.chance(0.003)) throw new PotluckError('DISK_READ', 'short read');
  };
  runner.onReady = async () => {
    await turns(dice.below(3));
    if (dice.chance(0.01)) throw new PotluckError('NOT_READY', 'no plan');
  };
  runner.onRows = rows => {
    if (dice.chance(0.002)) rows[0]?.fill(Number.NaN);
    if (dice.chance(0.005)) runner.newEpoch();
  };
}

function randomRequest(dice: Dice): GenerateRequest {
  const seed = dice.below(1e6);
  const sampling = { ...GREEDY, temperature: dice.below(3) / 2, seed, topK: dice.below(2) * 20, topP: 0.9 };
  const penalties = dice.chance(0.3) ? { repetitionPenalty: 1.2, frequencyPenalty: 0.2 } : {};
  return request(seed, 1 + dice.below(60), {
    maxTokens: 1 + dice.below(120),
    stopTokens: dice.chance(0.5) ? [dice.below(48)] : [],
    sampling: { ...sampling, ...penalties },
  });
}

type Outcome = { request: GenerateRequest; events: GenerateEvent[]; end: string };

/** Reads one answer, slowly at times, and stops early at times. */
async function consume(engine: Engine, dice: Dice): Promise<Outcome> {
  const r = randomRequest(dice);
  const stop = new AbortController();
  const stopAfter = dice.chance(0.25) ? dice.below(30) : Number.POSITIVE_INFINITY;
  const breakAfter = dice.chance(0.1) ? dice.below(30) : Number.POSITIVE_INFINITY;
  if (dice.chance(0.1)) void turns(dice.below(200)).then(() => stop.abort());
  const slow = dice.chance(0.2);
  const events: GenerateEvent[] = [];
  try {
    for await (const event of engine.generate(r, stop.signal)) {
      events.push(event);
      if (events.length > stopAfter) stop.abort();
      if (events.length > breakAfter) break;
      if (slow) await turns(dice.below(8));
    }
  } catch (error) {
    return { request: r, events, end: error instanceof PotluckError ? error.code : String(error) };
  }
  const whole = events.at(-1)?.type === 'finish';
  return { request: r, events, end: whole ? 'whole' : 'stopped' };
}

it.for([
  [false, 'requests'],
  [true, 'requests of a model that repeats itself, with drafts,'],
] as const)(
  `${REQUESTS} %2$s with cancels and failures end with every page free (POTLUCK_SEED=${SEED})`,
  async ([drafts]) => {
    const dice = new Dice(SEED);
    const runner = new FakeRunner({
      kvPages: 20,
      maxTokens: 24,
      maxLogitRows: 5,
      context: 160,
      repeats: drafts,
    });
    unreliable(runner, dice);
    const engine = createEngine({
      runner,
      logitMath: SCRIPT_LOGIT_MATH,
      limits: { maxSequences: drafts ? 1 : 6, maxQueue: 60 },
      drafts,
    });
    const running: Promise<Outcome>[] = [];
    for (let i = 0; i < REQUESTS; i++) {
      running.push(consume(engine, dice));
      await turns(dice.below(drafts ? 80 : 16));
    }
    const outcomes = await Promise.all(running);

    const ends = new Map<string, number>();
    for (const { request: r, events, end } of outcomes) {
      ends.set(end, (ends.get(end) ?? 0) + 1);
      const expected = expectedEvents(r, 160, drafts);
      if (end === 'whole') expect(events).toEqual(expected);
      else expect(events).toEqual(expected.slice(0, events.length));
    }
    const allowed = ['whole', 'stopped', 'BUSY', 'NOT_READY', 'DEVICE_LOST', 'DISK_READ', 'KERNEL_FAILED'];
    expect([...ends.keys()].filter(end => !allowed.includes(end))).toEqual([]);
    expect(ends.get('whole')).toBeGreaterThan(0);
    const { active, waiting, pagesFree, pagesTotal, acceptedTokens } = engine.stats();
    if (drafts) expect(acceptedTokens).toBeGreaterThan(0);
    else expect(acceptedTokens).toBe(0);
    expect({ active, waiting, pagesFree }).toEqual({ active: 0, waiting: 0, pagesFree: pagesTotal });
    await engine.close();
    console.info(
      `simulation: seed ${SEED}, ${JSON.stringify(Object.fromEntries(ends))}, ${JSON.stringify(engine.stats())}`,
    );
  },
);
