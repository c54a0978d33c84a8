import { expect, test } from 'vitest';
import { freeFrame } from '../../src/allreduce/frame.ts';
import {
  frameBytes,
  hubFrames,
  LogitMemory,
  logitFrameBytes,
  spokeFrames,
} from '../../src/allreduce/frame-memory.ts';
import { passBytes } from '../../src/allreduce/pass-payload.ts';

const limits = { width: 512, maxTokens: 256, maxLogitRows: 20 };

test('the account has every frame of the largest pass, and such a pass needs no other', () => {
  const { pass, sums } = hubFrames(limits, [1000]);
  const spoke = spokeFrames(limits, 1000);
  expect(frameBytes(limits, 'hub')).toBe(pass.capacity + sums[0].capacity + sums[1].capacity);
  expect(frameBytes(limits, 'spoke')).toBe(spoke.pass.length + spoke.partial.capacity);
  expect(frameBytes(limits, 'alone')).toBe(0);
  const tokens = new Int32Array(limits.maxTokens);
  const batch = {
    ...{ positions: tokens, sequences: tokens, lengths: tokens },
    pageTables: [Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7)],
    logitRows: Int32Array.of(255),
  };
  expect(freeFrame(pass, passBytes(batch, limits.width))).toBe(pass);
  expect(spoke.pass.length).toBeGreaterThanOrEqual(passBytes(batch, limits.width));
  for (const frame of [...sums, spoke.partial])
    expect(freeFrame(frame, limits.maxTokens * limits.width * 4)).toBe(frame);
});

test('logits have memory for the rows that were ever asked for, as the account says', () => {
  const logits = new LogitMemory(1000, 20);
  let most = 0;
  for (const rows of [0, 1, 1, 3, 2, 4, 9, 20, 7]) {
    most = Math.max(most, rows);
    const frame = logits.frame(rows);
    expect(frame.floats.length).toBeGreaterThanOrEqual(rows * 1000);
    expect(logits.bytes).toBe(frame.capacity);
    expect(logits.bytes).toBe(logitFrameBytes(4000, most, 20));
    expect(logits.frame(rows)).toBe(frame);
  }
  expect(logits.bytes).toBe(80_000);
});

test('logits that are still going out are not written over', () => {
  const logits = new LogitMemory(10, 4);
  const frame = logits.frame(3);
  frame.inFlight = 1;
  const other = logits.frame(1);
  expect(other).not.toBe(frame);
  expect(other.capacity).toBe(frame.capacity);
});
