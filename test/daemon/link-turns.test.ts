import { expect, test } from 'vitest';
import { LinkTurns } from '../../src/daemon/link-turns.ts';
import { ManualTimers } from '../cluster/manual-timers.ts';

const here = () => new AbortController().signal;

test('turns go to those that wait, in line; who left is passed over, and no turn is lost', async () => {
  const timers = new ManualTimers();
  const turns = new LinkTurns(1, 1000, timers);
  const first = await turns.take(here());
  const gone = new AbortController();
  const second = turns.take(gone.signal);
  const third = turns.take(here());
  gone.abort();
  expect(await second).toBeNull();
  turns.giveBack(first!);
  expect(await third).toBe(first);
  expect(timers.pending).toBe(0);
  turns.giveBack(first!);
  expect(await turns.take(gone.signal)).toBeNull();
  expect(await turns.take(here())).toBe(first);
});

test('a wait has its deadline', async () => {
  const timers = new ManualTimers();
  const turns = new LinkTurns(1, 1000, timers);
  const first = await turns.take(here());
  const second = turns.take(here());
  timers.advance(500);
  const third = turns.take(here());
  timers.advance(500);
  await expect(second).rejects.toMatchObject({ code: 'BUSY' });
  turns.giveBack(first!);
  expect(await third).toBe(first);
});

test('a turn that hangs is replaced, as often as there are turns, and no turn is lost or doubled', async () => {
  const turns = new LinkTurns(1, 1000, new ManualTimers());
  const ends: (() => void)[] = [];
  const hanging = () => new Promise<void>(resolve => ends.push(resolve));
  const first = (await turns.take(here()))!;
  turns.giveBackHanging(first, hanging());
  const second = (await turns.take(here()))!;
  expect(second).not.toBe(first);
  // One more hangs than there are turns: that one is waited for.
  turns.giveBackHanging(second, hanging());
  const third = turns.take(here());
  ends[0]!();
  await Promise.resolve();
  expect(await Promise.race([third, 'waits'])).toBe('waits');
  ends[1]!();
  expect(await third).toBe(second);
  // The first has ended: again one may be replaced, and only one.
  turns.giveBackHanging(second, Promise.reject(new Error('EIO')));
  const fourth = await turns.take(here());
  expect(await Promise.race([turns.take(here()), 'waits'])).toBe('waits');
  expect(fourth).not.toBe(second);
});

test('memory of a turn is used again', async () => {
  const turns = new LinkTurns(1, 1000, new ManualTimers());
  const turn = (await turns.take(here()))!;
  const bytes = turn.take(100);
  expect(bytes).toHaveLength(100);
  expect(turn.take(50).buffer).toBe(bytes.buffer);
  expect(turn.take(200)).toHaveLength(200);
});
