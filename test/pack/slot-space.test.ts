import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SlotSpace } from '../../src/pack/slot-space.ts';

test('gaps are joined and used again, the lowest first', () => {
  const space = new SlotSpace([]);
  const [a, b, c, d] = [4, 4, 4, 4].map(bytes => ({ offset: space.take(bytes), bytes })) as [
    Slot,
    Slot,
    Slot,
    Slot,
  ];
  expect([a, b, c, d].map(slot => slot.offset)).toEqual([0, 4, 8, 12]);
  space.free(a);
  space.free(c);
  space.free(b);
  expect(space.used).toBe(4);
  expect(space.take(12)).toBe(0);
  expect(space.take(4)).toBe(16);
});

interface Slot {
  offset: number;
  bytes: number;
}

test('slots never overlap, and when all are freed the space is empty', () => {
  const action = fc.record({ take: fc.integer({ min: 1, max: 5 }), free: fc.boolean(), which: fc.nat(20) });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), actions => {
      let space = new SlotSpace([]);
      const taken: Slot[] = [];
      for (const { take, free, which } of actions) {
        if (free && taken.length > 0) space.free(taken.splice(which % taken.length, 1)[0]!);
        else {
          const slot = { offset: space.take(take), bytes: take };
          for (const other of taken)
            expect(
              slot.offset + slot.bytes <= other.offset || other.offset + other.bytes <= slot.offset,
            ).toBe(true);
          taken.push(slot);
        }
        if (which === 3) space = new SlotSpace(taken);
        expect(space.used).toBe(taken.reduce((sum, slot) => sum + slot.bytes, 0));
      }
      for (const slot of taken) space.free(slot);
      expect(space.take(1000)).toBe(0);
    }),
    { numRuns: 200, seed: 1 },
  );
});
