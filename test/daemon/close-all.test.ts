import { expect, test } from 'vitest';
import { closeAfter, closeAll } from '../../src/daemon/close-all.ts';
import { PotluckError } from '../../src/errors/errors.ts';

/** Four things of which the second and third cannot be closed; `closed` says in which order they were tried. */
function opened() {
  const closed: string[] = [];
  const fails = (name: string) => () => {
    closed.push(name);
    throw new Error(`${name} failed`);
  };
  const list = [() => closed.push('a'), async () => fails('b')(), fails('c'), async () => closed.push('d')];
  return { closed, list };
}

test('what fails to close does not keep the rest open', async () => {
  const { closed, list } = opened();
  await expect(closeAll(list)).rejects.toThrow('c failed b failed');
  expect(closed).toEqual(['d', 'c', 'b', 'a']);
  expect(list).toEqual([]);
});

test('a failure stays what is told, with what could not be closed behind it', async () => {
  const failure = new PotluckError('MEMORY_TOO_SMALL', 'Too small.');
  const one = new Error('alone');
  await expect(closeAll([() => Promise.reject(one)])).rejects.toBe(one);
  await expect(closeAfter(failure, [() => undefined])).rejects.toBe(failure);
  await expect(closeAfter(failure, opened().list)).rejects.toMatchObject({
    code: 'MEMORY_TOO_SMALL',
    message: expect.stringMatching(/Too small.*c failed/),
  });
});
