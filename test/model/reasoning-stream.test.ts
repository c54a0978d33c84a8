import { describe, expect, test } from 'vitest';
import { ReasoningStream } from '../../src/model/reasoning-stream.ts';

/** [reasoning, text] of an answer in these pieces. */
function split(inside: boolean, pieces: readonly string[]): [string, string] {
  const stream = new ReasoningStream(inside);
  const result: [string, string] = ['', ''];
  for (const part of [...pieces.flatMap(piece => stream.push(piece)), ...stream.end()])
    result[part.type === 'reasoning' ? 0 : 1] += part.text;
  return result;
}

describe.each<[boolean, string, [string, string]]>([
  [false, '<think>\nIs it?\n\nYes.\n</think>\n\nIt is.', ['Is it?\n\nYes.', 'It is.']],
  [true, 'Is it?\nYes.\n</think>\n\nIt is.\n', ['Is it?\nYes.', 'It is.\n']],
  [false, '<think>\n\n</think>\n\nIt is.', ['', 'It is.']],
  [false, 'It is. <think> is a word.', ['', 'It is. <think> is a word.']],
  [false, '\n It is.', ['', '\n It is.']],
  [false, '<think>never ends', ['never ends', '']],
  [false, '<think>cut in the mark </thi', ['cut in the mark </thi', '']],
  [false, '<thi', ['', '<thi']],
  [false, '  ', ['', '  ']],
  [false, '', ['', '']],
])('inside %s: %j', (inside, answer, expected) => {
  test('whole, in single characters, and cut anywhere', () => {
    expect(split(inside, [answer])).toEqual(expected);
    expect(split(inside, [...answer])).toEqual(expected);
    for (let cut = 1; cut < answer.length; cut++)
      expect(split(inside, [answer.slice(0, cut), answer.slice(cut)]), `cut at ${cut}`).toEqual(expected);
  });
});
