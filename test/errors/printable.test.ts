import { expect, test } from 'vitest';
import { printable } from '../../src/errors/printable.ts';

test('text of others is one line without control characters or marks that hide or turn text', () => {
  expect(printable('a\r\nb\t\tc\u2028d')).toBe('a b c d');
  expect(printable('\u001b[31mred\u0007\u009b')).toBe('\uFFFD[31mred\uFFFD\uFFFD');
  expect(printable('left\u202Etfel\u200B')).toBe('left\uFFFDtfel\uFFFD');
});

test('names keep their letters, and emoji that are joined', () => {
  for (const name of ['Küche', '居間の Mac', '👩‍👧 laptop', 'می‌خواهم']) expect(printable(name)).toBe(name);
});
