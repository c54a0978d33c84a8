import { expect, test } from 'vitest';
import { putLine, removeLine, replayJournal } from '../../src/pack/tile-cache-journal.ts';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);
const C = 'c'.repeat(64);
const slot = (offset: number, bytes = 4096) => ({ offset, bytes, crc32c: 5 });
const replay = (text: string) => {
  const { slots, torn } = replayJournal(text, ({ offset }) => offset < 1e6);
  return { slots: [...slots], torn };
};

test('tiles that were put and not removed', () => {
  const text = putLine(A, slot(0)) + putLine(B, slot(4096)) + removeLine(A) + putLine(C, slot(0));
  expect(replay(text)).toEqual({
    slots: [
      [B, slot(4096)],
      [C, slot(0)],
    ],
    torn: false,
  });
  expect(replay('')).toEqual({ slots: [], torn: false });
});

test('a torn last line counts for nothing, wherever it was torn', () => {
  const whole = putLine(A, slot(0));
  const last = putLine(B, slot(4096));
  for (let cut = 1; cut < last.length; cut++)
    expect(replay(whole + last.slice(0, cut))).toEqual({ slots: [[A, slot(0)]], torn: true });
});

test('lines that are no lines are passed over', () => {
  for (const line of [
    'garbage\n',
    '\n',
    '\0\0\0\n',
    `+ ${A} 0 4096\n`,
    `+ ${A} -1 4096 5\n`,
    `+ ${A} 0 4096 5 6\n`,
    `- ${A.slice(1)}\n`,
  ])
    expect(replay(line + putLine(B, slot(0)))).toEqual({ slots: [[B, slot(0)]], torn: true });
});

test('slots that cannot be are left out', () => {
  const text = putLine(A, slot(2e6)) + putLine(B, slot(0, 0)) + putLine(C, { ...slot(0), crc32c: 2 ** 33 });
  expect(replay(text).slots).toEqual([]);
});

test('where two tiles claim the same bytes, the later one has them', () => {
  expect(replay(putLine(A, slot(0, 8192)) + putLine(B, slot(4096)) + putLine(C, slot(8192))).slots).toEqual([
    [B, slot(4096)],
    [C, slot(8192)],
  ]);
  expect(replay(putLine(B, slot(4096)) + putLine(C, slot(8192)) + putLine(A, slot(0, 12288))).slots).toEqual([
    [A, slot(0, 12288)],
  ]);
});
