import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { LinkShaper } from '../../../src/cli/emulate/link-shaper.ts';
import type { RelayClock } from '../../../src/cli/emulate/precise-timer.ts';
import { ShapedPipe } from '../../../src/cli/emulate/shaped-pipe.ts';

/** A clock that stands still until it is told. */
class FakeClock implements RelayClock {
  time = 0;
  #calls = new Set<{ time: number; fire: () => void }>();

  now(): number {
    return this.time;
  }

  at(time: number, fire: () => void): () => void {
    const call = { time, fire };
    this.#calls.add(call);
    return () => this.#calls.delete(call);
  }

  advance(to: number): void {
    this.time = to;
    for (const call of [...this.#calls]) {
      if (call.time > to) continue;
      this.#calls.delete(call);
      call.fire();
    }
  }
}

/** An end of a connection: what is pushed is what its peer sent, what is written lands in `written`. */
class End extends Duplex {
  written: Buffer[] = [];
  ended = false;
  /** While set, writes do not finish. */
  stuck = false;
  #unstick: (() => void)[] = [];

  constructor() {
    super({ highWaterMark: 64 * 1024, allowHalfOpen: true });
  }

  override _read(): void {
    return;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written.push(chunk);
    if (this.stuck) this.#unstick.push(done);
    else done();
  }

  override _final(done: () => void): void {
    this.ended = true;
    done();
  }

  unstick(): void {
    this.stuck = false;
    for (const done of this.#unstick.splice(0)) done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.written);
  }
}

function pipe(limits: { latencyMilliseconds: number; bytesPerSecond: number | null }) {
  const clock = new FakeClock();
  const [source, destination] = [new End(), new End()];
  const shaper = new LinkShaper(limits);
  return { clock, source, destination, shaper, pipe: new ShapedPipe(source, destination, shaper, clock) };
}

const bytesFrom = (start: number, count: number): Buffer =>
  Buffer.from(Uint8Array.from({ length: count }, (_, i) => (start + i) & 255));

/** Lets streams pass on what they have. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await turn();
}

test('bytes come out in order, not before their time', async () => {
  const { clock, source, destination } = pipe({ latencyMilliseconds: 10, bytesPerSecond: null });
  source.push(bytesFrom(0, 100));
  await settle();
  clock.advance(9);
  await settle();
  expect(destination.bytes.length).toBe(0);
  source.push(bytesFrom(100, 100));
  await settle();
  clock.advance(10);
  await settle();
  expect(destination.bytes).toEqual(bytesFrom(0, 100));
  clock.advance(19);
  await settle();
  expect(destination.bytes).toEqual(bytesFrom(0, 200));
});

test('a rate spreads bytes over time', async () => {
  const { clock, source, destination } = pipe({ latencyMilliseconds: 0, bytesPerSecond: 4_096_000 });
  source.push(bytesFrom(0, 40_960));
  await settle();
  const seen: number[] = [];
  for (let time = 1; time <= 10; time++) {
    clock.advance(time);
    await settle();
    seen.push(destination.bytes.length);
  }
  expect(seen).toEqual([4096, 8192, 12_288, 16_384, 20_480, 24_576, 28_672, 32_768, 36_864, 40_960]);
  expect(destination.bytes).toEqual(bytesFrom(0, 40_960));
});

test('two pipes share one link', async () => {
  const { clock, source, destination, shaper } = pipe({ latencyMilliseconds: 0, bytesPerSecond: 4_096_000 });
  const [back, front] = [new End(), new End()];
  new ShapedPipe(back, front, shaper, clock);
  source.push(bytesFrom(0, 4096));
  back.push(bytesFrom(0, 4096));
  await settle();
  clock.advance(1);
  await settle();
  expect(destination.bytes.length + front.bytes.length).toBe(4096);
  clock.advance(2);
  await settle();
  expect(destination.bytes.length + front.bytes.length).toBe(8192);
});

test('what is held is bounded; the source waits and goes on', async () => {
  const {
    clock,
    source,
    destination,
    shaper,
    pipe: shaped,
  } = pipe({ latencyMilliseconds: 1, bytesPerSecond: 1e6 });
  const total = 3_000_000;
  let pushed = 0;
  // As a socket does: read on only while the stream asks for more.
  source._read = () => {
    if (pushed >= total) return;
    const size = Math.min(16_384, total - pushed);
    const chunk = bytesFrom(pushed, size);
    pushed += size;
    setImmediate(() => source.push(chunk));
  };
  source.read(0);
  let most = 0;
  for (let time = 0; destination.bytes.length < total && time < 20_000; time += 50) {
    clock.advance(time);
    await settle();
    most = Math.max(most, shaped.queued);
  }
  expect(destination.bytes.equals(bytesFrom(0, total))).toBe(true);
  expect(most).toBeGreaterThan(shaper.queueLimit / 2);
  expect(most).toBeLessThanOrEqual(shaper.queueLimit + 64 * 1024);
});

test('a destination that does not take more pauses the source', async () => {
  const {
    clock,
    source,
    destination,
    shaper,
    pipe: shaped,
  } = pipe({ latencyMilliseconds: 0, bytesPerSecond: null });
  destination.stuck = true;
  for (let i = 0; i < 40; i++) {
    source.push(bytesFrom(i * 65_536, 65_536));
    await settle();
    clock.advance(i + 1);
  }
  await settle();
  expect(source.isPaused()).toBe(true);
  expect(shaped.queued).toBeLessThanOrEqual(shaper.queueLimit + 64 * 1024);
  destination.unstick();
  for (let i = 0; i < 80; i++) {
    await settle();
    clock.advance(100 + i);
  }
  expect(destination.bytes.equals(bytesFrom(0, 40 * 65_536))).toBe(true);
});

test('the end comes after the last byte, also from a source that was paused', async () => {
  const { clock, source, destination } = pipe({ latencyMilliseconds: 5, bytesPerSecond: null });
  source.push(bytesFrom(0, 300_000));
  source.push(null);
  await settle();
  expect(destination.ended).toBe(false);
  for (let time = 5; time < 100; time += 5) {
    clock.advance(time);
    await settle();
  }
  expect(destination.bytes.length).toBe(300_000);
  expect(destination.ended).toBe(true);
});

test('a closed pipe writes nothing more', async () => {
  const { clock, source, destination, pipe: shaped } = pipe({ latencyMilliseconds: 5, bytesPerSecond: null });
  source.push(bytesFrom(0, 10));
  await settle();
  shaped.close();
  clock.advance(10);
  source.push(bytesFrom(0, 10));
  await settle();
  clock.advance(20);
  await settle();
  expect(destination.bytes.length).toBe(0);
});
