import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import type { Allreduce } from '../../src/allreduce/allreduce.ts';
import { decodeFail, encodeFail } from '../../src/allreduce/fail-payload.ts';
import {
  ALIVE,
  FAIL,
  HEADER_BYTES,
  LOGITS,
  OutgoingFrame,
  PARTIAL,
  PASS,
  TOTAL,
} from '../../src/allreduce/frame.ts';
import { spokeFrames } from '../../src/allreduce/frame-memory.ts';
import { logitColumnCount } from '../../src/allreduce/logit-columns.ts';
import { encodePass, passBytes } from '../../src/allreduce/pass-payload.ts';
import {
  createStarSpoke,
  type PassHandler,
  type SpokePass,
  type StarSpoke,
} from '../../src/allreduce/star-spoke.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import type { Batch } from '../../src/kernels/backend.ts';
import { ManualTimers } from './manual-timers.ts';
import { frameBytes, Received, tcpPair } from './stream-pair.ts';

const EPOCH = 5;
const LIMITS = { epoch: EPOCH, width: 2, maxTokens: 4, maxLogitRows: 2, context: 64, kvPages: 4 };
const COLUMNS = [
  { start: 4, count: 2 },
  { start: 0, count: 1 },
];
const batch: Batch = {
  positions: Int32Array.of(0, 1),
  sequences: Int32Array.of(0, 0),
  pageTables: [Int32Array.of(3)],
  logitRows: Int32Array.of(0, 1),
  lengths: Int32Array.of(1, 2),
};
const residual = Float32Array.of(1, 2, 3, 4);
const FRAME_BYTES = HEADER_BYTES + 16;

let spoke: StarSpoke;
let socket: Socket;
let received: Received;
let closed: Promise<void>;
let timers: ManualTimers;
let lost: string[] = [];

afterEach(() => {
  spoke.close();
  socket.destroy();
});

async function open(handler: PassHandler): Promise<void> {
  const [stream, far] = await tcpPair();
  socket = far;
  received = new Received(far);
  closed = new Promise<void>(resolve => far.once('close', () => resolve()));
  timers = new ManualTimers();
  lost = [];
  spoke = createStarSpoke({
    ...LIMITS,
    hub: 'the-hub',
    stream,
    logitColumns: COLUMNS,
    frames: spokeFrames(LIMITS, logitColumnCount(COLUMNS)),
    timers,
    deadlines: { sum: 1000 },
  });
  spoke.onLost(error => lost.push(error.code));
  spoke.onPass(handler);
}

function sendPass(pass: number, change: (ints: Int32Array) => void = () => undefined): void {
  const length = passBytes(batch, 2);
  const frame = new OutgoingFrame(length);
  encodePass(frame, batch, residual, 2);
  change(frame.ints);
  socket.write(frame.seal({ type: PASS, epoch: EPOCH, pass, step: 0, length }));
}

const sendTotal = (pass: number, step: number, words: number[]): boolean =>
  socket.write(frameBytes({ type: TOTAL, epoch: EPOCH, pass, step }, words));

function sendFail(pass: number, error: PotluckError): void {
  const { frame, length } = encodeFail(error);
  socket.write(frame.seal({ type: FAIL, epoch: EPOCH, pass, step: 0, length }));
}

async function takeFail(): Promise<{ pass: number; code: string; message: string }> {
  const header = await received.take(HEADER_BYTES);
  expect(header[5]).toBe(FAIL);
  return { pass: header.readUInt32LE(12), ...decodeFail(await received.take(header.readUInt32LE(20)))! };
}

const logits = { logits: Float32Array.of(0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15), rowLength: 6 };
const settled = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 20));
const code = (code: string) => expect.objectContaining({ code });

/** A promise that the test resolves. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>(resolve => (open = resolve));
  return { opened, open };
}

test('handles passes: partial out, total in, logits out', async () => {
  const seen: SpokePass[] = [];
  const sums: number[][] = [];
  await open(async (pass, allreduce) => {
    seen.push(structuredClone(pass));
    for (const step of [0, 1]) {
      const partial = Int32Array.of(step, 2, 3, 4);
      await allreduce.sum(step, partial);
      sums.push([...partial]);
    }
    return logits;
  });
  for (const pass of [1, 2]) {
    sendPass(pass);
    for (const step of [0, 1]) {
      const partial = await received.take(FRAME_BYTES);
      expect(partial).toEqual(frameBytes({ type: PARTIAL, epoch: EPOCH, pass, step }, [step, 2, 3, 4]));
      sendTotal(pass, step, [pass, step, -1, 0]);
    }
    const packed = await received.take(HEADER_BYTES + 24);
    const words = new Int32Array(Float32Array.of(4, 5, 0, 14, 15, 10).buffer);
    expect(packed).toEqual(frameBytes({ type: LOGITS, epoch: EPOCH, pass, step: 2 }, words));
  }
  expect(seen).toEqual([
    { batch, residual },
    { batch, residual },
  ]);
  expect(sums).toEqual([
    [1, 0, -1, 0],
    [1, 1, -1, 0],
    [2, 0, -1, 0],
    [2, 1, -1, 0],
  ]);
});

test('an invalid batch fails the pass before the handler sees it, and the stream goes on', async () => {
  let calls = 0;
  await open(async () => {
    calls++;
    return logits;
  });
  sendPass(1, ints => ints.fill(4, 10, 11));
  expect(await takeFail()).toMatchObject({ pass: 1, code: 'PROTOCOL' });
  expect(calls).toBe(0);
  sendPass(2);
  expect((await received.take(HEADER_BYTES))[5]).toBe(LOGITS);
});

test('an error of the handler is sent to the hub', async () => {
  await open(() => Promise.reject(new PotluckError('DISK_READ', 'tile 7 is gone')));
  sendPass(1);
  expect(await takeFail()).toEqual({ pass: 1, code: 'DISK_READ', message: 'tile 7 is gone' });
  expect(lost).toEqual([]);
});

test('a total that does not come in time ends the pass; when it comes late it is dropped', async () => {
  const partial = Int32Array.of(1, 2, 3, 4);
  const errors: unknown[] = [];
  await open(async (_, allreduce) => {
    await allreduce.sum(0, partial).catch(error => {
      errors.push(error);
      throw error;
    });
    return logits;
  });
  sendPass(1);
  await received.take(FRAME_BYTES);
  timers.advance(1000);
  expect(await takeFail()).toMatchObject({ pass: 1, code: 'DEADLINE' });
  expect(errors).toEqual([code('DEADLINE')]);
  sendTotal(1, 0, [9, 9, 9, 9]);
  sendPass(2);
  await received.take(FRAME_BYTES);
  expect([...partial]).toEqual([1, 2, 3, 4]);
  sendTotal(2, 0, [5, 5, 5, 5]);
  expect((await received.take(HEADER_BYTES))[5]).toBe(LOGITS);
  expect([...partial]).toEqual([5, 5, 5, 5]);
});

test('a total that is half here when its pass ends is not written any further', async () => {
  const partial = Int32Array.of(1, 2, 3, 4);
  await open(async (_, allreduce) => {
    await allreduce.sum(0, partial);
    return logits;
  });
  sendPass(1);
  await received.take(FRAME_BYTES);
  const total = frameBytes({ type: TOTAL, epoch: EPOCH, pass: 1, step: 0 }, [9, 9, 9, 9]);
  socket.write(total.subarray(0, HEADER_BYTES + 8));
  await settled();
  timers.advance(1000);
  await takeFail();
  socket.write(total.subarray(HEADER_BYTES + 8));
  sendPass(2);
  await received.take(FRAME_BYTES);
  expect([...partial]).toEqual([9, 9, 3, 4]);
});

test('a pass that the hub failed is over; the next one waits for the handler and has its own memory', async () => {
  const first = gate();
  const seen: { allreduce: Allreduce; pass: SpokePass }[] = [];
  await open(async (pass, allreduce) => {
    seen.push({ pass, allreduce });
    if (seen.length === 1) {
      await first.opened;
      await allreduce.sum(0, new Int32Array(4));
    }
    return logits;
  });
  sendPass(1);
  await settled();
  for (const pass of [1, 2, 3]) {
    sendFail(pass, new PotluckError('BUSY', 'enough'));
    sendPass(pass + 1, ints => ints.set([7], ints.length - 1));
  }
  await settled();
  expect(seen.length).toBe(1);
  expect([...seen[0]!.pass.residual]).toEqual([1, 2, 3, 4]);
  await expect(seen[0]!.allreduce.sum(0, new Int32Array(4))).rejects.toMatchObject({
    code: 'BUSY',
    message: 'enough',
  });
  first.open();
  const answer = await received.take(HEADER_BYTES);
  expect([answer[5], answer.readUInt32LE(12)]).toEqual([LOGITS, 4]);
  expect(seen.length).toBe(2);
  expect(seen[1]!.pass.residual[3]).not.toBe(4);
  expect(received.waiting).toBe(24);
});

test('a pass that arrives in pieces while the handler is busy starts only when it is whole', async () => {
  const first = gate();
  const residuals: number[][] = [];
  await open(async ({ residual }) => {
    residuals.push([...residual]);
    if (residuals.length === 1) await first.opened;
    return logits;
  });
  sendPass(1);
  await settled();
  const length = passBytes(batch, 2);
  const frame = new OutgoingFrame(length);
  encodePass(frame, batch, Float32Array.of(5, 6, 7, 8), 2);
  const bytes = frame.seal({ type: PASS, epoch: EPOCH, pass: 2, step: 0, length });
  socket.write(bytes.subarray(0, bytes.length - 4));
  await settled();
  first.open();
  await settled();
  expect(residuals.length).toBe(1);
  socket.write(bytes.subarray(bytes.length - 4));
  await received.take(2 * (HEADER_BYTES + 24));
  expect(residuals[1]).toEqual([5, 6, 7, 8]);
});

test('a lost hub rejects the sum with its name', async () => {
  let failed: unknown;
  await open(async (_, allreduce) => {
    await allreduce.sum(0, new Int32Array(4)).catch(error => {
      failed = error;
      throw error;
    });
    return logits;
  });
  sendPass(1);
  await received.take(FRAME_BYTES);
  socket.destroy();
  await settled();
  expect(failed).toMatchObject({ code: 'DEVICE_LOST', message: expect.stringContaining('the-hub') });
  expect(lost).toEqual(['DEVICE_LOST']);
  expect(timers.pending).toBe(0);
});

test('a hub may take its time before it uses a stream; one whose stream falls silent afterwards is lost', async () => {
  await open(async () => logits);
  const alive = frameBytes({ type: ALIVE, epoch: EPOCH, pass: 0, step: 0 });
  const silent = async (milliseconds: number): Promise<void> => {
    for (let passed = 0; passed < milliseconds; passed += 2000) {
      timers.advance(2000);
      expect(await received.take(HEADER_BYTES)).toEqual(alive);
    }
  };
  await silent(60_000);
  socket.write(alive);
  await settled();
  await silent(8000);
  expect(lost).toEqual([]);
  timers.advance(2000);
  expect(lost).toEqual(['DEVICE_LOST']);
  await closed;
});

test('closing rejects the sum with STOPPED and reports no loss', async () => {
  let failed: unknown;
  await open(async (_, allreduce) => {
    await allreduce.sum(0, new Int32Array(4)).catch(error => {
      failed = error;
      throw error;
    });
    return logits;
  });
  sendPass(1);
  await received.take(FRAME_BYTES);
  spoke.close();
  await closed;
  expect(failed).toEqual(code('STOPPED'));
  expect(lost).toEqual([]);
});

const offences: [string, () => unknown][] = [
  [
    'another epoch',
    () => socket.write(frameBytes({ type: TOTAL, epoch: 6, pass: 1, step: 0 }, [1, 1, 1, 1])),
  ],
  [
    'a frame of a spoke',
    () => socket.write(frameBytes({ type: PARTIAL, epoch: EPOCH, pass: 1, step: 0 }, [1, 1, 1, 1])),
  ],
  [
    'an oversized total',
    () => socket.write(frameBytes({ type: TOTAL, epoch: EPOCH, pass: 1, step: 0, length: 36 })),
  ],
  [
    'an oversized pass',
    () => socket.write(frameBytes({ type: PASS, epoch: EPOCH, pass: 2, step: 0, length: 1 << 20 })),
  ],
  ['a total of another step', () => sendTotal(1, 1, [1, 1, 1, 1])],
  ['a total of another size', () => sendTotal(1, 0, [1])],
  ['a total of a pass that did not begin', () => sendTotal(2, 0, [1, 1, 1, 1])],
  ['a pass number that does not rise', () => sendPass(1)],
  ['a pass before the last one is over', () => sendPass(2)],
];
test.each(offences)('%s is a PROTOCOL error and ends the stream', async (_, offend) => {
  let failed: unknown;
  await open(async (_pass, allreduce) => {
    await allreduce.sum(0, new Int32Array(4)).catch(error => {
      failed = error;
      throw error;
    });
    return logits;
  });
  sendPass(1);
  await received.take(FRAME_BYTES);
  offend();
  await closed;
  expect(failed).toMatchObject({ code: 'PROTOCOL', message: expect.stringContaining('the-hub') });
  expect(lost).toEqual(['PROTOCOL']);
});
