import { expect, test } from 'vitest';
import { freeFrame } from '../../src/allreduce/frame.ts';
import { frameBytes, hubFrames, spokeFrames } from '../../src/allreduce/frame-memory.ts';
import { passBytes } from '../../src/allreduce/pass-payload.ts';

const limits = { width: 512, maxTokens: 256 };

test('the account has every frame of the largest pass, and such a pass needs no other', () => {
  const { pass, sums } = hubFrames(limits);
  const spoke = spokeFrames(limits);
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
