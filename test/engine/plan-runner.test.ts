import { expect, test } from 'vitest';
import { DevicePass, type DevicePassOptions } from '../../src/engine/device-pass.ts';
import { type ActivePlan, type HubStar, makeBatch, PlanRunner } from '../../src/engine/plan-runner.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import type { Step } from '../../src/kernels/backend.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';

const timers = {
  setTimeout: (call: () => void, ms: number) => setTimeout(call, ms),
  clearTimeout: () => undefined,
};

/** A device of one layer without tiles that writes down what it is told to run. */
function fakePlan(epoch: number, star: HubStar | null = null, run = async (_: readonly Step[]) => undefined) {
  const ran: string[] = [];
  const pass = {
    maxTokens: 8,
    maxLogitRows: 4,
    residual: new Float32Array(16),
    partial: new Int32Array(16),
    logits: Float32Array.from({ length: 64 }, (_, i) => i),
  };
  const device = {
    shape: {
      ...plainFeatures(1, 2, [1]),
      ...{ layers: 1, width: 2, vocabulary: 10, context: 32, tiling: { headRows: 16 } },
    },
    tiles: { attention: [[]], ffn: [[]], expert: [[]], head: [], order: [] },
    slots: new Map(),
    window: {
      ...{ resident: true, pressed: false, has: () => true, take: () => [] },
      ...{ skip: () => undefined, release: () => undefined, pass: (work: () => Promise<void>) => work() },
    },
    wholePass: {},
    begin: () => ran.push('batch'),
    model: {
      pass,
      run: async (steps: readonly Step[]) => {
        ran.push(steps.map(step => ('half' in step ? `${step.op} ${step.half}` : step.op)).join(', '));
        await run(steps);
        return { computeMicroseconds: 1, saturated: 0 };
      },
    },
    run: (steps: readonly Step[]) => device.model.run(steps),
  } as unknown as DevicePass;
  const embed = async (ids: readonly number[]) => void ran.push(`embed ${ids.join(' ')}`);
  return { plan: { epoch, device, star, kvPages: 7, embed } satisfies ActivePlan, ran };
}

const sequences = [
  { pages: Int32Array.of(3, 5, 9), length: 16, start: 31, tokens: [1, 2], logitsAt: [1] },
  { pages: Int32Array.of(4), length: 40, start: 0, tokens: [7, 8, 9], logitsAt: [0, 2] },
];

test('sequences become one flat batch', () => {
  const { ids, batch } = makeBatch(sequences);
  expect(ids).toEqual([1, 2, 7, 8, 9]);
  expect([...batch.positions]).toEqual([31, 32, 0, 1, 2]);
  expect([...batch.sequences]).toEqual([0, 0, 1, 1, 1]);
  expect(batch.pageTables.map(table => [...table])).toEqual([[3, 5], [4]]);
  expect([...batch.logitRows]).toEqual([1, 2, 4]);
  expect([...batch.lengths]).toEqual([32, 33, 40, 40, 40]);
});

test('a device alone with its weights in memory runs a pass in one native call', async () => {
  const runner = new PlanRunner(timers);
  const { plan, ran } = fakePlan(3);
  runner.begin(plan);
  const rows = await runner.run(sequences);
  expect(ran).toEqual([
    'embed 1 2 7 8 9',
    'batch',
    'begin attention, end attention, begin ffn, end ffn, head-begin',
  ]);
  expect(rows.map(row => [row.length, row[0]])).toEqual([
    [10, 0],
    [10, 16],
    [10, 32],
  ]);
  expect(runner).toMatchObject({ epoch: 3, kvPages: 7, tokens: 5 });
});

test('its steps are made once: with logits, and without', async () => {
  const runner = new PlanRunner(timers);
  const { plan, ran } = fakePlan(3);
  runner.begin(plan);
  const silent = sequences.map(sequence => ({ ...sequence, logitsAt: [] }));
  for (const pass of [sequences, silent, sequences, silent]) await runner.run(pass);
  const runs = ran.filter(line => line.includes('attention'));
  expect(runs[1]).not.toContain('head');
  expect(runs.slice(2)).toEqual(runs.slice(0, 2));
  expect(plan.device.wholePass.withLogits).toHaveLength(5);
  expect(plan.device.wholePass.bare).toHaveLength(4);
});

test('with others, each half layer is summed between its tiles and its end', async () => {
  const order: string[] = [];
  const star: HubStar = {
    alone: false,
    beginPass: () => void order.push('begin pass'),
    sum: async step => void order.push(`sum ${step}`),
    collectLogits: async rows => void order.push(`collect ${rows}`),
    abortPass: () => void order.push('abort'),
  };
  const { plan } = fakePlan(1, star, async steps => void order.push(steps.map(s => s.op).join('+')));
  const runner = new PlanRunner(timers);
  runner.begin(plan);
  await runner.run(sequences);
  expect(order).toEqual([
    'begin pass',
    'begin',
    'sum 0',
    'end+begin',
    'sum 1',
    'end+head-begin',
    'collect 3',
  ]);
});

test('suspend aborts the pass in flight and waits for it; then there is no plan', async () => {
  let fail: (error: Error) => void = () => undefined;
  const aborted: string[] = [];
  const star: HubStar = {
    alone: false,
    beginPass: () => undefined,
    sum: () =>
      new Promise((_, reject) => {
        fail = reject;
      }),
    collectLogits: async () => undefined,
    abortPass: error => {
      aborted.push(error.code);
      fail(error);
    },
  };
  const runner = new PlanRunner(timers);
  runner.begin(fakePlan(1, star).plan);
  const pass = runner.run(sequences);
  const failed = expect(pass).rejects.toMatchObject({ code: 'NOT_READY' });
  await new Promise(resolve => setTimeout(resolve, 5));
  await runner.suspend(new PotluckError('NOT_READY', 'Another plan begins.'));
  await failed;
  expect(aborted[0]).toBe('NOT_READY');
  expect(runner.epoch).toBe(-1);
  expect(() => runner.run(sequences)).toThrow(/no plan/);
  const ready = runner.ready(new AbortController().signal);
  runner.begin(fakePlan(2).plan);
  await ready;
  expect(runner.epoch).toBe(2);
});

test('what passes did is told while kernels run, and goes on rising in the next plan', async () => {
  let end: () => void = () => undefined;
  const run = () =>
    new Promise(resolve => {
      end = () => resolve({ saturated: 0, computeMicroseconds: 1 });
    });
  const tiles = { attention: [], ffn: [], expert: [], head: [], order: [] };
  const device = new DevicePass({
    backend: { openModel: () => ({ run }) },
    manifest: { shape: fakePlan(1).plan.device.shape },
    tiles,
  } as unknown as DevicePassOptions);
  const runner = new PlanRunner(timers);
  expect(runner.work).toEqual({ calls: 0, computing: false });
  runner.begin({ ...fakePlan(1).plan, device });
  const first = device.run([]);
  expect(runner.work).toEqual({ calls: 0, computing: true });
  end();
  await first;
  expect(runner.work).toEqual({ calls: 1, computing: false });
  await runner.suspend(new PotluckError('NOT_READY', 'Another plan begins.'));
  runner.begin({ ...fakePlan(2).plan, device });
  expect(runner.work).toEqual({ calls: 2, computing: false });
});

test('a wait for a plan ends with its signal, and leaves no timer', async () => {
  const pending = new Set<unknown>();
  const runner = new PlanRunner({
    setTimeout: call => {
      pending.add(call);
      return call;
    },
    clearTimeout: timer => pending.delete(timer),
  });
  const closing = new AbortController();
  const ready = runner.ready(closing.signal);
  expect(pending.size).toBe(1);
  closing.abort(new PotluckError('STOPPED', 'The engine is stopping.'));
  await expect(ready).rejects.toMatchObject({ code: 'STOPPED' });
  expect(pending.size).toBe(0);
  await expect(runner.ready(closing.signal)).rejects.toMatchObject({ code: 'STOPPED' });
});
