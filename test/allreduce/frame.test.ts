import { expect, test } from 'vitest';
import { encodeFail } from '../../src/allreduce/fail-payload.ts';
import {
  FAIL,
  freeFrame,
  OutgoingFrame,
  PARTIAL,
  requireLittleEndian,
  TOTAL,
} from '../../src/allreduce/frame.ts';
import { PotluckError } from '../../src/errors/errors.ts';

const hex = (text: string): string => text.replace(/\s+/g, '');

test('a PARTIAL frame has the bytes of docs/wire-format.md', () => {
  const frame = new OutgoingFrame(16);
  frame.ints.set([1, -2, 0x01020304]);
  const bytes = frame.seal({ type: PARTIAL, epoch: 0x0a0b0c0d, pass: 7, step: 0x102, length: 12 });
  expect(bytes.toString('hex')).toBe(
    hex(`50544c4b 01 02 0000 0d0c0b0a 07000000 02010000 0c000000 0000000000000000
         01000000 feffffff 04030201`),
  );
});

test('a sealed frame may be sealed again with another length', () => {
  const frame = new OutgoingFrame(8);
  expect(frame.seal({ type: TOTAL, epoch: 1, pass: 1, step: 0, length: 4 }).length).toBe(36);
  const longer = frame.seal({ type: TOTAL, epoch: 1, pass: 0xffffffff, step: 1, length: 8 });
  expect(longer.toString('hex')).toBe(
    hex('50544c4b 01 03 0000 01000000 ffffffff 01000000 08000000 0000000000000000 0000000000000000'),
  );
});

test('a FAIL frame has the bytes of docs/wire-format.md', () => {
  const { frame, length } = encodeFail(new PotluckError('BUSY', 'é!'));
  const bytes = frame.seal({ type: FAIL, epoch: 1, pass: 2, step: 0, length });
  expect(bytes.toString('hex')).toBe(
    hex(
      '50544c4b 01 05 0000 01000000 02000000 00000000 0c000000 0000000000000000 0400 0300 42555359 c3a921 00',
    ),
  );
});

test('a frame is used again only when it is large enough and nothing of it is going out', () => {
  const frame = new OutgoingFrame(64);
  expect(freeFrame(frame, 64)).toBe(frame);
  expect(freeFrame(frame, 68)).not.toBe(frame);
  frame.inFlight = 1;
  expect(freeFrame(frame, 4)).not.toBe(frame);
});

test('a big-endian processor is refused', () => {
  expect(() => requireLittleEndian(0)).toThrowError(expect.objectContaining({ code: 'PROTOCOL' }));
  expect(() => requireLittleEndian()).not.toThrow();
});
