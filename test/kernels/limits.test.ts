import { expect, test } from 'vitest';
import { addon } from './addon-under-test.ts';

const MIB = 2 ** 20;
const { read, dot } = addon.limitPrograms();

test('every program has a name of its own, and there is at least one of each kind', () => {
  for (const names of [read, dot.map(({ name }) => name)]) {
    expect(names.length).toBeGreaterThan(0);
    expect(new Set(names).size).toBe(names.length);
  }
});

test.each(read)('reads memory: %s', async program => {
  const memory = addon.allocate(3 * MIB + 5);
  const bytes = new Uint8Array(memory).fill(7);
  const seconds = await addon.measureRead(memory, memory.byteLength, program, 2, 4);
  expect(seconds).toBeGreaterThan(0);
  expect(Number.isFinite(seconds)).toBe(true);
  expect(bytes.every(byte => byte === 7)).toBe(true);
  addon.release(memory);
});

test.each(dot)('multiplies and adds: $name', async ({ name, multiplyAdds }) => {
  expect(multiplyAdds % 8).toBe(0);
  const seconds = await addon.measureDot(name, 2, 3);
  expect(seconds).toBeGreaterThan(0);
  expect(Number.isFinite(seconds)).toBe(true);
});

test('memory is in use while it is read', async () => {
  const memory = addon.allocate(4 * MIB);
  const running = addon.measureRead(memory, memory.byteLength, read[0]!, 1, 50);
  expect(() => addon.release(memory)).toThrow(/in use/);
  await running;
  addon.release(memory);
});

type Call = (...args: unknown[]) => unknown;

const memory = addon.allocate(2 * MIB);
const goodRead = [memory, 2 * MIB, read[0], 1, 1];
const goodDot = [dot[0]!.name, 1, 1];
const NUMBERS = [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 40, '1', null, undefined, {}];
const NAMES = ['', 'no such program', 'x'.repeat(100), 7, null, undefined];

test.each([
  [
    'measureRead',
    goodRead,
    0,
    [new ArrayBuffer(2 * MIB), addon.allocate(4096), new Uint8Array(MIB), null, 5],
  ],
  ['measureRead', goodRead, 1, [...NUMBERS, MIB - 1, 2 * MIB + 1]],
  ['measureRead', goodRead, 2, NAMES],
  ['measureRead', goodRead, 3, [...NUMBERS, 257]],
  ['measureRead', goodRead, 4, NUMBERS],
  ['measureDot', goodDot, 0, NAMES],
  ['measureDot', goodDot, 1, [...NUMBERS, 257]],
  ['measureDot', goodDot, 2, NUMBERS],
] as const)('%s refuses what argument %# cannot be', (name, good, at, values) => {
  const call = addon[name] as unknown as Call;
  for (const value of values) {
    const args: unknown[] = [...good];
    args[at] = value;
    expect(() => call(...args), String(value)).toThrow(RangeError);
  }
  expect(() => call()).toThrow(RangeError);
});
