import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeFail, encodeFail, MOST_FAIL_BYTES } from '../../src/allreduce/fail-payload.ts';
import { HEADER_BYTES } from '../../src/allreduce/frame.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { printable } from '../../src/errors/printable.ts';

const roundTrip = (message: string) => {
  const { frame, length } = encodeFail(new PotluckError('DEADLINE', message));
  expect(length).toBeLessThanOrEqual(MOST_FAIL_BYTES);
  return decodeFail(frame.bytes.subarray(HEADER_BYTES, HEADER_BYTES + length));
};

test('code and message come back', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), message => {
      expect(roundTrip(message)).toEqual({ code: 'DEADLINE', message: printable(message) });
    }),
  );
});

test('a long message is cut between characters', () => {
  const message = roundTrip(`x${'é'.repeat(1000)}`)!.message;
  expect(message).toBe(`x${'é'.repeat(511)}`);
});

test('an unknown code reads as INTERNAL', () => {
  const bytes = Buffer.from('\x04\x00\x01\x00NOPE!\0\0\0', 'latin1');
  expect(decodeFail(bytes)).toEqual({ code: 'INTERNAL', message: '!' });
});

test('garbage is refused, not read past its end', () => {
  expect(decodeFail(Buffer.alloc(0))).toBeUndefined();
  expect(decodeFail(Buffer.from([255, 255, 255, 255, 0, 0, 0, 0]))).toBeUndefined();
  expect(decodeFail(Buffer.from([1, 0, 0, 0, 65, 0, 0, 0, 0, 0, 0, 0]))).toBeUndefined();
});
