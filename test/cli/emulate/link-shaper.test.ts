import { expect, test } from 'vitest';
import { LinkShaper } from '../../../src/cli/emulate/link-shaper.ts';

test('latency alone delays and nothing more', () => {
  const shaper = new LinkShaper({ latencyMilliseconds: 5, bytesPerSecond: null });
  expect(shaper.schedule(1e6, 100)).toBe(105);
  expect(shaper.schedule(1, 100)).toBe(105);
});

test('a rate makes pieces queue, whoever sends them', () => {
  const shaper = new LinkShaper({ latencyMilliseconds: 1, bytesPerSecond: 1_000_000 });
  expect(shaper.schedule(1000, 0)).toBe(2);
  expect(shaper.schedule(1000, 0)).toBe(3);
  expect(shaper.schedule(500, 1)).toBe(3.5);
});

test('an idle link saves nothing up', () => {
  const shaper = new LinkShaper({ latencyMilliseconds: 0, bytesPerSecond: 1_000_000 });
  shaper.schedule(1000, 0);
  expect(shaper.schedule(1000, 1000)).toBe(1001);
  expect(shaper.schedule(1000, 1000)).toBe(1002);
});

test('long fat links may have more under way', () => {
  const small = new LinkShaper({ latencyMilliseconds: 1, bytesPerSecond: 1e6 }).queueLimit;
  expect(new LinkShaper({ latencyMilliseconds: 100, bytesPerSecond: 125e6 }).queueLimit).toBe(25e6);
  expect(small).toBe(256 * 1024);
});
