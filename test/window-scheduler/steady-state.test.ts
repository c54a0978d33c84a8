import { describe, expect, it } from 'vitest';
import { steadyState } from '../../src/window-scheduler/steady-state.ts';

const half = (computeSeconds: number, allreduceSeconds: number, streamedBytes: number) => ({
  ...{ computeSeconds, allreduceSeconds, streamedBytes },
});

/** A disk that does not mind what the processor does. */
const EVEN = { idle: 100, busy: 100 };

describe('the steady state', () => {
  it('is tight where every half layer hides the reading of the next', () => {
    const state = steadyState([half(2, 1, 300), half(3, 1, 250)], EVEN);
    expect(state).toMatchObject({
      tight: true,
      loose: true,
      computeSeconds: 7,
      diskSeconds: 5.5,
      passSeconds: 7,
    });
  });

  it('is only loose where a half layer is too short for the next, but the pass is long enough', () => {
    // While the first is computed (1 s), the second cannot be read (3 s).
    expect(steadyState([half(1, 0, 100), half(9, 0, 300)], EVEN)).toMatchObject({
      tight: false,
      loose: true,
    });
    // The last is followed by the first.
    expect(steadyState([half(9, 0, 300), half(1, 0, 100)], EVEN)).toMatchObject({
      tight: false,
      loose: true,
    });
  });

  it('has the disk as its floor where neither holds', () => {
    const state = steadyState([half(1, 1, 400), half(1, 1, 400)], EVEN);
    expect(state).toMatchObject({ tight: false, loose: false, passSeconds: 8 });
  });

  it('does not wait for a disk that has nothing to read', () => {
    expect(steadyState([half(1, 0, 0)], EVEN)).toMatchObject({ tight: true, loose: true, passSeconds: 1 });
  });

  it('reads slower while the processor computes, and not while devices sum', () => {
    const rates = { idle: 100, busy: 50 };
    // 4 s of compute hide 200 of the 600 bytes; the other 400 take 4 s more.
    expect(steadyState([half(2, 0, 300), half(2, 0, 300)], rates)).toMatchObject({
      ...{ loose: false, diskSeconds: 6, computeSeconds: 4, passSeconds: 8 },
    });
    // The same time of sums hides 400.
    expect(steadyState([half(0, 2, 300), half(0, 2, 300)], rates)).toMatchObject({ passSeconds: 6 });
    expect(steadyState([half(5, 0, 200), half(5, 0, 300)], rates)).toMatchObject({
      ...{ loose: true, tight: false, passSeconds: 10 },
    });
  });
});
