import { expect, test } from 'vitest';
import { errorText, readErrorText } from '../../src/cli/print-error.ts';
import { PotluckError } from '../../src/errors/errors.ts';

test('one line, without a stack', () => {
  const error = new PotluckError('PORT_IN_USE', 'Port 80 is taken:\n  give --port', {
    cause: new Error('EADDRINUSE'),
  });
  expect(errorText(error, false)).toBe('potluck: Port 80 is taken: give --port (PORT_IN_USE)');
});

test('with stacks of all causes where that is asked for', () => {
  const text = errorText(new PotluckError('DISK_READ', 'No', { cause: new Error('EIO') }), true);
  expect(text.split('\n')[0]).toBe('potluck: No (DISK_READ)');
  expect(text).toContain('print-error.test.ts');
  expect(text).toContain('EIO');
});

test('anything that was thrown is an error of code INTERNAL', () => {
  expect(errorText(new TypeError('x is not a function'), false)).toBe(
    'potluck: x is not a function (INTERNAL)',
  );
  expect(errorText('broken', false)).toBe('potluck: broken (INTERNAL)');
});

test('the line of a child process is read back, and nothing else is', () => {
  const error = new PotluckError('PORT_IN_USE', 'Port 80 is taken (by another)');
  expect(readErrorText(errorText(error, false))).toEqual(error);
  for (const line of ['', 'Port 80 is taken (PORT_IN_USE)', 'potluck: Port 80 is taken (HELLO)'])
    expect(readErrorText(line)).toBeNull();
});
