import * as v from 'valibot';
import { expect, test } from 'vitest';
import { localStatus, localStatusSchema } from '../../src/daemon/local-status.ts';
import type { MemoryKeeper } from '../../src/daemon/memory-keeper.ts';
import type { PlanHost } from '../../src/daemon/plan-host.ts';

const told = (notes: readonly string[]) => {
  const host = { current: null } as PlanHost;
  return localStatus(host, { budget: null, account: {} } as MemoryKeeper, notes, null);
};

test('other devices understand a status, however many notes there are and however long', () => {
  const notes = Array.from({ length: 40 }, (_, i) => `${i} `.padEnd(990 + i, 'x'));
  const parsed = v.parse(localStatusSchema, JSON.parse(JSON.stringify(told(notes))));
  expect(parsed.notes).toHaveLength(32);
  expect(parsed.notes.slice(0, 11)).toEqual(notes.slice(0, 11));
  expect(parsed.notes[11]).toBe(`${notes[11]!.slice(0, 999)}…`);
  expect(parsed.notes[31]).toBe('There are 9 more notes.');
  expect(told(notes.slice(0, 11)).notes).toEqual(notes.slice(0, 11));
});
