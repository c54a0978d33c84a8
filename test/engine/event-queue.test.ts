import { describe, expect, it } from 'vitest';
import { EventQueue } from '../../src/engine/event-queue.ts';
import { PotluckError } from '../../src/errors/errors.ts';

describe('EventQueue', () => {
  it('hands items over in order, then the end, and says when one was taken', async () => {
    let taken = 0;
    const queue = new EventQueue<number>(() => taken++);
    queue.push(1);
    queue.push(2);
    expect(queue.size).toBe(2);
    expect([await queue.next(), await queue.next()]).toEqual([1, 2]);
    const next = queue.next();
    queue.push(3);
    queue.end();
    queue.push(4);
    expect([await next, await queue.next(), await queue.next()]).toEqual([3, undefined, undefined]);
    expect(taken).toBe(3);
  });

  it('wakes its reader when it is told to', async () => {
    const calls: (() => void)[] = [];
    const queue = new EventQueue<number>(
      () => undefined,
      call => calls.push(call),
    );
    const taken: (number | undefined)[] = [];
    const reading = queue.next().then(item => taken.push(item));
    queue.push(1);
    queue.push(2);
    await new Promise(setImmediate);
    expect([taken.length, calls.length]).toEqual([0, 1]);
    calls[0]!();
    await reading;
    expect([taken[0], await queue.next(), calls.length]).toEqual([1, 2, 1]);
  });

  it('throws its error after the items that wait', async () => {
    const queue = new EventQueue<number>(() => undefined);
    queue.push(1);
    queue.end(new PotluckError('STOPPED', 'x'));
    queue.end();
    expect(await queue.next()).toBe(1);
    await expect(queue.next()).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('drops what waits when it is cancelled, and wakes its reader', async () => {
    const queue = new EventQueue<number>(() => undefined);
    const waiting = queue.next();
    await expect(queue.next()).rejects.toMatchObject({ code: 'INTERNAL' });
    queue.cancel();
    expect(await waiting).toBeUndefined();
    const full = new EventQueue<number>(() => undefined);
    full.push(1);
    full.cancel();
    expect([full.size, await full.next()]).toEqual([0, undefined]);
  });
});
