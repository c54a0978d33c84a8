import { expect, test } from 'vitest';
import { hubFrames, spokeFrames } from '../../src/allreduce/frame-memory.ts';
import { createStarHub } from '../../src/allreduce/star-hub.ts';
import { createStarSpoke, type StarSpoke } from '../../src/allreduce/star-spoke.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import type { Batch } from '../../src/kernels/backend.ts';
import { tcpPair } from './stream-pair.ts';

const timers = {
  now: () => performance.now(),
  setTimeout: (call: () => void, milliseconds: number) => setTimeout(call, milliseconds),
  clearTimeout: (timer: unknown) => clearTimeout(timer as NodeJS.Timeout),
};
const STEPS = 6;

/** Words that depend on device, pass and step only (xorshift), over the whole int32 range. */
function words(count: number, device: number, pass: number, step: number): Int32Array {
  let state = (device + 1) * 2_654_435_761 + pass * 40_503 + step * 977 + 1;
  return Int32Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  });
}

function batchOf(tokens: number): Batch {
  return {
    positions: Int32Array.from({ length: tokens }, (_, i) => i),
    sequences: new Int32Array(tokens),
    pageTables: [Int32Array.of(0)],
    logitRows: Int32Array.of(0, tokens - 1).slice(tokens === 1 ? 1 : 0),
    lengths: new Int32Array(tokens).fill(tokens),
  };
}

/** A hub with `spokes` spokes over TCP. Each device's head tile is one column: its number. */
async function star(spokes: number, width: number, maxTokens: number) {
  const limits = { epoch: 3, width, maxTokens, maxLogitRows: 2, context: 16, kvPages: 1, timers };
  const pairs = await Promise.all(Array.from({ length: spokes }, () => tcpPair()));
  const columns = pairs.map((_, i) => [{ start: i + 1, count: 1 }]);
  const far: StarSpoke[] = pairs.map(([, stream], i) => {
    const spoke = createStarSpoke({
      ...limits,
      hub: 'hub',
      stream,
      logitColumns: columns[i]!,
      frames: spokeFrames(limits, 1),
    });
    let pass = 0;
    spoke.onPass(async ({ batch, residual }, allreduce) => {
      pass++;
      const tokens = batch.positions.length;
      for (let step = 0; step < STEPS; step++) {
        // Some devices are slower, and not always the same.
        if ((i + step) % 3 === 0) await new Promise(setImmediate);
        if (residual[0] === -1 && step === 2 && i === 0)
          throw new PotluckError('KERNEL_FAILED', 'on purpose');
        await allreduce.sum(step, words(tokens * width, i, pass, step));
      }
      const logits = new Float32Array(2 * (spokes + 1)).fill(residual[tokens * width - 1]! + i);
      return { logits, rowLength: spokes + 1 };
    });
    return spoke;
  });
  const received = { bytes: 0 };
  const frames = hubFrames(
    limits,
    columns.map(() => 1),
  );
  const hub = createStarHub({
    ...limits,
    frames,
    onReceived: bytes => {
      received.bytes += bytes;
    },
    spokes: pairs.map(([stream], i) => ({ id: `spoke-${i}`, stream, logitColumns: columns[i]! })),
  });
  return {
    hub,
    received,
    close: () => {
      hub.close();
      for (const spoke of far) spoke.close();
    },
  };
}

/** toEqual takes long on so many words. */
const same = (a: Int32Array, b: Int32Array): boolean =>
  Buffer.from(a.buffer).equals(Buffer.from(b.buffer)) && a.length === b.length;

function expectedSum(spokes: number, count: number, pass: number, step: number): Int32Array {
  const sum = words(count, 99, pass, step);
  for (let device = 0; device < spokes; device++) {
    const part = words(count, device, pass, step);
    for (let i = 0; i < count; i++) sum[i] = (sum[i]! + part[i]!) | 0;
  }
  return sum;
}

test.each([
  [1, 512, 1],
  [3, 512, 5],
  [3, 4096, 16],
  [15, 64, 3],
])('%i spokes, width %i: sums of %i tokens are exact, pass after pass', async (spokes, width, tokens) => {
  const { hub, received, close } = await star(spokes, width, tokens);
  for (let pass = 1; pass <= 4; pass++) {
    const residual = new Float32Array(tokens * width).fill(pass * 10);
    hub.beginPass(batchOf(tokens), residual);
    for (let step = 0; step < STEPS; step++) {
      const partial = words(tokens * width, 99, pass, step);
      await hub.sum(step, partial);
      expect(same(partial, expectedSum(spokes, tokens * width, pass, step))).toBe(true);
    }
    const rows = batchOf(tokens).logitRows.length;
    const logits = new Float32Array(rows * (spokes + 1));
    await hub.collectLogits(rows, logits, spokes + 1);
    const row = [0, ...Array.from({ length: spokes }, (_, i) => pass * 10 + i)];
    expect([...logits]).toEqual(rows === 1 ? row : [...row, ...row]);
  }
  expect(hub.stats().sums).toBe(4 * STEPS);
  expect(received.bytes).toBe(hub.stats().bytesReceived);
  close();
});

test('after a pass that one spoke failed, the next pass is right', async () => {
  const { hub, close } = await star(3, 64, 2);
  const run = async (pass: number, residual: Float32Array): Promise<void> => {
    hub.beginPass(batchOf(2), residual);
    for (let step = 0; step < STEPS; step++) {
      const partial = words(128, 99, pass, step);
      await hub.sum(step, partial);
      expect(same(partial, expectedSum(3, 128, pass, step))).toBe(true);
    }
    await hub.collectLogits(2, new Float32Array(8), 4);
  };
  for (let pass = 1; pass <= 6; pass += 2) {
    await run(pass, new Float32Array(128));
    await expect(run(pass + 1, new Float32Array(128).fill(-1))).rejects.toMatchObject({
      code: 'KERNEL_FAILED',
      message: 'Device spoke-0: on purpose',
    });
  }
  close();
});
