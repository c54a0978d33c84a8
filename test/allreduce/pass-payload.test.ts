import { expect, test } from 'vitest';
import { OutgoingFrame, PASS } from '../../src/allreduce/frame.ts';
import { decodePass, encodePass, mostPassBytes, passBytes } from '../../src/allreduce/pass-payload.ts';
import type { Batch } from '../../src/kernels/backend.ts';

const limits = { width: 2, maxTokens: 4, maxLogitRows: 2, context: 64, kvPages: 8 };
const batch: Batch = {
  positions: Int32Array.of(15, 16, 3),
  sequences: Int32Array.of(0, 0, 1),
  pageTables: [Int32Array.of(7, 2), Int32Array.of(5)],
  logitRows: Int32Array.of(1, 2),
  lengths: Int32Array.of(17, 17, 40),
};
const residual = Float32Array.of(1, 2, 3, 4, 5, -6);

function encoded(change: (ints: Int32Array) => void = () => undefined): Uint8Array {
  const frame = new OutgoingFrame(passBytes(batch, 2));
  encodePass(frame, batch, residual, 2);
  change(frame.ints);
  return new Uint8Array(frame.ints.buffer, frame.ints.byteOffset);
}

test('a PASS frame has the bytes of docs/wire-format.md', () => {
  const length = passBytes(batch, 2);
  const frame = new OutgoingFrame(length);
  encodePass(frame, batch, residual, 2);
  const hex = frame.seal({ type: PASS, epoch: 3, pass: 1, step: 0, length }).toString('hex');
  const words = hex.match(/.{8}/g)!.join(' ');
  expect(words).toBe(
    '50544c4b 01010000 03000000 01000000 00000000 68000000 00000000 00000000 ' +
      '03000000 02000000 02000000 02000000 ' + // tokens, sequences, rows, width
      '0f000000 10000000 03000000 00000000 00000000 01000000 ' + // positions, sequences
      '11000000 11000000 28000000 ' + // lengths
      '02000000 01000000 07000000 02000000 05000000 ' + // pages
      '01000000 02000000 ' + // logit rows
      '0000803f 00000040 00004040 00008040 0000a040 0000c0c0',
  );
});

test('batch and residual come back', () => {
  expect(decodePass(encoded(), limits)).toEqual({ batch, residual });
  expect(mostPassBytes(limits)).toBeGreaterThanOrEqual(passBytes(batch, 2));
});

const wrong: [string, (ints: Int32Array) => void][] = [
  ['no tokens', ints => ints.fill(0, 0, 1)],
  ['more tokens than allowed', ints => ints.fill(5, 0, 1)],
  ['negative tokens', ints => ints.fill(-3, 0, 1)],
  ['no sequence', ints => ints.fill(0, 1, 2)],
  ['more sequences than tokens', ints => ints.fill(4, 1, 2)],
  ['more rows than allowed', ints => ints.fill(3, 2, 3)],
  ['another width', ints => ints.fill(4, 3, 4)],
  ['a position over the context', ints => ints.fill(64, 5, 6)],
  ['a position over its pages', ints => ints.fill(32, 5, 6)],
  ['a position that does not rise', ints => ints.fill(15, 5, 6)],
  ['a negative position', ints => ints.fill(-1, 4, 5)],
  ['a sequence that is not there', ints => ints.fill(2, 9, 10)],
  ['a length under its position', ints => ints.fill(16, 11, 12)],
  ['a length over the context', ints => ints.fill(65, 12, 13)],
  ['a page count over the context', ints => ints.fill(5, 13, 14)],
  ['a negative page count', ints => ints.fill(-1, 13, 14)],
  ['page counts that do not fit the length', ints => ints.fill(3, 13, 14)],
  ['a page that is not there', ints => ints.fill(8, 15, 16)],
  ['a negative page', ints => ints.fill(-1, 17, 18)],
  ['a logit row over the tokens', ints => ints.fill(3, 19, 20)],
  ['logit rows that do not rise', ints => ints.fill(2, 18, 19)],
  ['a residual that is no number', ints => ints.fill(0x7fc00000, 20, 21)],
  ['a residual that is infinite', ints => ints.fill(0xff800000 | 0, 25, 26)],
];
test.each(wrong)('a payload with %s is refused', (_, change) => {
  expect(() => decodePass(encoded(change), limits)).toThrowError(
    expect.objectContaining({ code: 'PROTOCOL' }),
  );
});

test('a truncated payload is refused', () => {
  const whole = encoded();
  for (let bytes = 0; bytes < whole.length; bytes += 4)
    expect(() => decodePass(whole.subarray(0, bytes), limits)).toThrowError(
      expect.objectContaining({ code: 'PROTOCOL' }),
    );
});
