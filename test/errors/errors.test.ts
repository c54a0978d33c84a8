import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { asPotluckError, ERRORS, PotluckError } from '../../src/errors/errors.ts';

test('docs/errors.md has the rows of the table of errors, in their order, and no others', () => {
  const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
  const rows = page.split('\n').filter(line => line.startsWith('| `'));
  const expected = Object.entries(ERRORS).map(
    ([code, { status, meaning }]) => `| \`${code}\` | ${status} | ${meaning} |`,
  );
  expect(rows).toEqual(expected);
});

test('an error has the status of its code; anything else becomes INTERNAL and keeps its cause', () => {
  const lost = new PotluckError('DEVICE_LOST', 'The device attic left.');
  expect(lost.status).toBe(503);
  expect(asPotluckError(lost)).toBe(lost);
  const defect = new TypeError('x is not a function');
  expect(asPotluckError(defect)).toMatchObject({
    code: 'INTERNAL',
    status: 500,
    message: defect.message,
    cause: defect,
  });
  expect(asPotluckError('text')).toMatchObject({ code: 'INTERNAL', message: 'text' });
});
