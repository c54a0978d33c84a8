import { expect, test } from 'vitest';
import { checkCaller } from '../../src/api/local-only.ts';

test.each([
  undefined,
  '',
  ' ',
  'user@localhost',
  'localhost/x',
  'localhost?x',
  'a b',
  '[::1',
  'localhost:99999',
])('the Host header %j is refused', host => {
  expect(() => checkCaller(host, undefined)).toThrow(expect.objectContaining({ code: 'FORBIDDEN' }));
});

test('a short or hexadecimal IPv4 address is still an address, a name of digits is not', () => {
  expect(() => checkCaller('0x7f.1:80', 'http://127.1')).not.toThrow();
  expect(() => checkCaller('1.2.3.4.example', undefined)).toThrow();
});
