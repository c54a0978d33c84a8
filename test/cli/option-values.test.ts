import { describe, expect, test } from 'vitest';
import {
  parseBytes,
  parseChoice,
  parseDuration,
  parseInteger,
  parseIntegers,
  parseName,
  parsePeer,
  parsePort,
  parsePositive,
  parsePositives,
  parseRate,
  parseUrl,
} from '../../src/cli/option-values.ts';
import { PotluckError } from '../../src/errors/errors.ts';

/** The message of the BAD_OPTION that `call` throws. */
function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(PotluckError);
    expect((error as PotluckError).code).toBe('BAD_OPTION');
    return (error as PotluckError).message;
  }
  throw new Error('nothing was thrown');
}

describe('parseBytes', () => {
  test.each([
    ['1', 1],
    ['4096', 4096],
    ['256M', 256 * 2 ** 20],
    ['256m', 256 * 2 ** 20],
    ['256MB', 256 * 2 ** 20],
    ['256MiB', 256 * 2 ** 20],
    ['1.5G', 1.5 * 2 ** 30],
    ['2t', 2 ** 41],
    ['512k', 512 * 1024],
    ['10b', 10],
  ])('%s', (text, bytes) => expect(parseBytes('--memory', text)).toBe(bytes));

  test.each([
    '',
    '-1',
    '0',
    '0.5',
    '1.5X',
    'M',
    '1e9',
    '1 G',
    ' 1',
    '1..5',
    '99999999999999T',
    '0x10',
    'NaN',
  ])('refuses %j', text =>
    expect(refusal(() => parseBytes('--memory', text))).toMatch(/^--memory .*256M or 1\.5G/),
  );
});

describe('parseDuration', () => {
  test.each([
    ['1ms', 1],
    ['0ms', 0],
    ['250us', 0.25],
    ['2s', 2000],
  ])('%s', (text, milliseconds) =>
    expect(parseDuration('--link-latency', text)).toBeCloseTo(milliseconds, 9),
  );

  test.each(['', '1', '1m', '-1ms', 'ms', '2h', '7200s'])('refuses %j', text =>
    expect(refusal(() => parseDuration('--link-latency', text))).toContain('1ms, 250us or 2s'),
  );
});

describe('parseRate', () => {
  test.each([
    ['100mbit', 12.5e6],
    ['1gbit', 125e6],
    ['8kbit', 1000],
    ['8000bit', 1000],
    ['100Mbit/s', 12.5e6],
    ['100mbitps', 12.5e6],
  ])('%s', (text, rate) => expect(parseRate('--link-rate', text)).toBeCloseTo(rate, 6));

  test.each(['', '100', '100mb', '0mbit', '1bit', '-1mbit'])('refuses %j', text =>
    expect(refusal(() => parseRate('--link-rate', text))).toContain('100mbit'),
  );
});

test('whole numbers, ports, choices', () => {
  expect(parseInteger('--threads', '8', 1, 8)).toBe(8);
  expect(refusal(() => parseInteger('--threads', '9', 1, 8))).toContain('from 1 to 8');
  expect(refusal(() => parseInteger('--threads', '1.0', 1, 8))).toContain('"1.0"');
  expect(parsePort('--port', '0')).toBe(0);
  expect(refusal(() => parsePort('--port', '65536'))).toContain('65535');
  expect(parseChoice('--weights', 'w4', ['w4', 'bf16'])).toBe('w4');
  expect(refusal(() => parseChoice('--weights', 'int8', ['w4', 'bf16']))).toContain('w4 or bf16');
  expect(parseIntegers('--devices', '1,2, 3', 1, 8)).toEqual([1, 2, 3]);
  expect(refusal(() => parseIntegers('--devices', '1,,3', 1, 8))).toContain('--devices');
});

test('shares', () => {
  expect(parsePositives('--shares', '1,2,0.5')).toEqual([1, 2, 0.5]);
  expect(refusal(() => parsePositives('--shares', '1,0'))).toContain('over 0');
  expect(refusal(() => parsePositive('--share', 'Infinity'))).toContain('over 0');
});

test('peers', () => {
  expect(parsePeer('--peer', '192.168.1.20:11501')).toEqual({ host: '192.168.1.20', port: 11501 });
  expect(parsePeer('--peer', 'kitchen.local:1')).toEqual({ host: 'kitchen.local', port: 1 });
  expect(parsePeer('--peer', '[fe80::1]:80')).toEqual({ host: 'fe80::1', port: 80 });
  for (const text of [
    'kitchen',
    ':80',
    'kitchen:0',
    'kitchen:70000',
    'a b:80',
    'fe80::1:80',
    'http://x:80',
  ]) {
    expect(refusal(() => parsePeer('--peer', text))).toContain('host:port');
  }
});

test('names and addresses', () => {
  expect(parseName('--name', 'Küche 2')).toBe('Küche 2');
  for (const text of ['', ' a', 'a ', 'a/b', 'a\nb', 'x'.repeat(64)]) {
    expect(refusal(() => parseName('--name', text))).toContain('at most 63');
  }
  expect(parseUrl('--url', 'http://kitchen:11500/')).toBe('http://kitchen:11500');
  for (const text of ['kitchen:11500', 'ftp://kitchen', '']) {
    expect(refusal(() => parseUrl('--url', text))).toContain('http://127.0.0.1:11500');
  }
});
