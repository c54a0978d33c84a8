import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { encodeFail } from '../../src/allreduce/fail-payload.ts';
import { ALIVE, FAIL, HEADER_BYTES, LOGITS, PARTIAL, PASS, TOTAL } from '../../src/allreduce/frame.ts';
import { hubFrames } from '../../src/allreduce/frame-memory.ts';
import { logitColumnCount } from '../../src/allreduce/logit-columns.ts';
import { createStarHub, type StarHub } from '../../src/allreduce/star-hub.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import type { Batch } from '../../src/kernels/backend.ts';
import { ManualTimers } from './manual-timers.ts';
import { frameBytes, Received, tcpPair } from './stream-pair.ts';

const EPOCH = 5;
const LIMITS = { epoch: EPOCH, width: 2, maxTokens: 4, maxLogitRows: 2, context: 64, kvPages: 4 };
const COLUMNS = [
  [
    { start: 4, count: 2 },
    { start: 0, count: 1 },
  ],
  [{ start: 2, count: 1 }],
];
const batch: Batch = {
  positions: Int32Array.of(0, 1),
  sequences: Int32Array.of(0, 0),
  pageTables: [Int32Array.of(3)],
  logitRows: Int32Array.of(0, 1),
  lengths: Int32Array.of(1, 2),
};
const residual = Float32Array.of(1, 2, 3, 4);
const PASS_BYTES = HEADER_BYTES + 4 * (4 + 6 + 2 + 2 + 4);
const TOTAL_BYTES = HEADER_BYTES + 16;

interface Peer {
  socket: Socket;
  received: Received;
  closed: Promise<void>;
  send(type: 2 | 4, pass: number, step: number, words: number[]): void;
  fail(pass: number, error: PotluckError): void;
}

let hub: StarHub;
let timers: ManualTimers;
let peers: Peer[] = [];
let lost: [string, string][] = [];

afterEach(() => {
  hub.close();
  for (const { socket } of peers) socket.destroy();
});

async function open(spokes: number, deadlines = { sum: 1000, logits: 2000 }): Promise<void> {
  const pairs = await Promise.all(Array.from({ length: spokes }, () => tcpPair()));
  timers = new ManualTimers();
  lost = [];
  hub = createStarHub({
    ...LIMITS,
    timers,
    deadlines,
    frames: hubFrames(
      LIMITS,
      pairs.map((_, i) => logitColumnCount(COLUMNS[i] ?? [])),
    ),
    spokes: pairs.map(([stream], i) => ({ id: `spoke-${i}`, stream, logitColumns: COLUMNS[i] ?? [] })),
  });
  hub.onLost((id, error) => lost.push([id, error.code]));
  peers = pairs.map(([, socket]) => ({
    socket,
    received: new Received(socket),
    closed: new Promise<void>(resolve => socket.once('close', () => resolve())),
    send: (type, pass, step, words) => socket.write(frameBytes({ type, epoch: EPOCH, pass, step }, words)),
    fail: (pass, error) => {
      const { frame, length } = encodeFail(error);
      socket.write(frame.seal({ type: FAIL, epoch: EPOCH, pass, step: 0, length }));
    },
  }));
}

const floats = (...values: number[]): number[] => [...new Int32Array(Float32Array.from(values).buffer)];
const code = (code: string) => expect.objectContaining({ code });
const settled = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 20));

async function beginPass(): Promise<void> {
  hub.beginPass(batch, residual);
  for (const { received } of peers) await received.take(PASS_BYTES);
}

test('alone, a sum is what it was', async () => {
  await open(0);
  expect(hub.alone).toBe(true);
  hub.beginPass(batch, residual);
  const partial = Int32Array.of(1, 2, 3, 4);
  await hub.sum(0, partial);
  await hub.sum(1, partial);
  expect([...partial]).toEqual([1, 2, 3, 4]);
  await hub.collectLogits(2, new Float32Array(12), 6);
});

test('sends the pass, adds early and late partials, and sends the total', async () => {
  await open(2);
  hub.beginPass(batch, residual);
  const begin = await peers[1]!.received.take(PASS_BYTES);
  expect(begin[5]).toBe(PASS);
  expect(begin.readUInt32LE(12)).toBe(1);
  await peers[0]!.received.take(PASS_BYTES);
  for (const step of [0, 1, 2]) {
    peers[0]!.send(PARTIAL, 1, step, [1, 2, 3, 0x7fffffff]);
    await settled();
    const partial = Int32Array.of(10, 20, 30, 1);
    const sum = hub.sum(step, partial);
    peers[1]!.send(PARTIAL, 1, step, [100, 200, 300, 2]);
    await sum;
    expect([...partial]).toEqual([111, 222, 333, (0x7fffffff + 3) | 0]);
    for (const { received } of peers) {
      const total = await received.take(TOTAL_BYTES);
      expect(total).toEqual(frameBytes({ type: TOTAL, epoch: EPOCH, pass: 1, step }, partial));
    }
  }
  expect(hub.stats()).toMatchObject({ sums: 3, bytesReceived: 2 * 3 * TOTAL_BYTES });
  expect(hub.stats().bytesSent).toBe(2 * (PASS_BYTES + 3 * TOTAL_BYTES));
});

test('puts logits where the head tiles of each spoke are', async () => {
  await open(3);
  await beginPass();
  peers[0]!.send(LOGITS, 1, 0, floats(14, 15, 10, 24, 25, 20));
  await settled();
  const logits = new Float32Array(12).fill(-1);
  const collected = hub.collectLogits(2, logits, 6);
  peers[1]!.send(LOGITS, 1, 0, floats(12, 22));
  await collected;
  expect([...logits]).toEqual([10, -1, 12, -1, 14, 15, 20, -1, 22, -1, 24, 25]);
  expect(lost).toEqual([]);
});

test('a partial that does not come in time ends the pass, and the next pass drops the late one', async () => {
  await open(2);
  await beginPass();
  peers[0]!.send(PARTIAL, 1, 0, [1, 1, 1, 1]);
  await settled();
  const heartbeats = timers.pending;
  const sum = hub.sum(0, Int32Array.of(1, 1, 1, 1));
  timers.advance(999);
  expect(timers.pending).toBe(heartbeats + 1);
  timers.advance(1);
  await expect(sum).rejects.toMatchObject({
    code: 'DEADLINE',
    message: expect.stringContaining('from spoke-1 '),
  });
  await expect(hub.sum(0, new Int32Array(4))).rejects.toEqual(code('DEADLINE'));
  for (const { received } of peers) expect((await received.take(HEADER_BYTES))[5]).toBe(FAIL);

  peers[1]!.send(PARTIAL, 1, 0, [7, 7, 7, 7]);
  peers[1]!.send(LOGITS, 1, 0, floats(7, 7));
  hub.beginPass(batch, residual);
  peers[0]!.send(PARTIAL, 2, 0, [1, 2, 3, 4]);
  peers[1]!.send(PARTIAL, 2, 0, [1, 2, 3, 4]);
  const partial = Int32Array.of(0, 0, 0, 1);
  await hub.sum(0, partial);
  expect([...partial]).toEqual([2, 4, 6, 9]);
  expect(timers.pending).toBe(heartbeats);
  expect(lost).toEqual([]);
});

test('a pass that ends in the middle of a partial leaves nothing of it in the next one', async () => {
  await open(1);
  await beginPass();
  const bytes = frameBytes({ type: PARTIAL, epoch: EPOCH, pass: 1, step: 0 }, [9, 9, 9, 9]);
  peers[0]!.socket.write(bytes.subarray(0, HEADER_BYTES + 6));
  await settled();
  const sum = hub.sum(0, new Int32Array(4));
  hub.abortPass(new PotluckError('BUSY', 'enough'));
  await expect(sum).rejects.toEqual(code('BUSY'));
  hub.beginPass(batch, residual);
  peers[0]!.socket.write(bytes.subarray(HEADER_BYTES + 6));
  peers[0]!.send(PARTIAL, 2, 0, [1, 2, 3, 4]);
  const partial = new Int32Array(4);
  await hub.sum(0, partial);
  expect([...partial]).toEqual([1, 2, 3, 4]);
});

test('a spoke that fails ends the pass for all and stays', async () => {
  await open(2);
  await beginPass();
  const sum = hub.sum(0, new Int32Array(4));
  peers[0]!.fail(1, new PotluckError('DISK_READ', 'tile 7 is gone'));
  await expect(sum).rejects.toMatchObject({ code: 'DISK_READ', message: 'Device spoke-0: tile 7 is gone' });
  expect((await peers[1]!.received.take(HEADER_BYTES))[5]).toBe(FAIL);
  expect(lost).toEqual([]);
  hub.beginPass(batch, residual);
});

test('a lost spoke rejects waits with its name, and the plan is over', async () => {
  await open(2);
  await beginPass();
  const sum = hub.sum(0, new Int32Array(4));
  peers[1]!.socket.destroy();
  await expect(sum).rejects.toMatchObject({
    code: 'DEVICE_LOST',
    message: expect.stringContaining('spoke-1'),
  });
  expect(lost).toEqual([['spoke-1', 'DEVICE_LOST']]);
  expect(() => hub.beginPass(batch, residual)).toThrow(code('DEVICE_LOST'));
  await peers[0]!.received.take(HEADER_BYTES);
});

const alive = frameBytes({ type: ALIVE, epoch: EPOCH, pass: 0, step: 0 });

test('a spoke that computes for long is kept while it gives signs of life; one whose stream is silent is lost', async () => {
  await open(2, { sum: 60_000, logits: 60_000 });
  await beginPass();
  const sum = hub.sum(0, Int32Array.of(1, 1, 1, 1)).catch((error: unknown) => error);
  for (let second = 2; second <= 8; second += 2) {
    timers.advance(2000);
    for (const { received } of peers) expect(await received.take(HEADER_BYTES)).toEqual(alive);
    peers[0]!.socket.write(alive);
    await settled();
  }
  expect(lost).toEqual([]);
  timers.advance(2000);
  expect(await sum).toMatchObject({
    code: 'DEVICE_LOST',
    message: expect.stringContaining('spoke-1 is lost: nothing came on its tensor stream for 10 s'),
  });
  expect(lost).toEqual([['spoke-1', 'DEVICE_LOST']]);
  await peers[1]!.closed;
});

test('a spoke given up from outside is lost with that error', async () => {
  await open(2);
  await beginPass();
  const sum = hub.sum(0, new Int32Array(4));
  hub.fail('spoke-0', new PotluckError('DEVICE_LOST', 'no heartbeat from spoke-0'));
  await expect(sum).rejects.toMatchObject({ message: 'no heartbeat from spoke-0' });
  await peers[0]!.closed;
  expect(lost).toEqual([['spoke-0', 'DEVICE_LOST']]);
});

const offences: [string, (peer: Peer) => void][] = [
  [
    'another epoch',
    p => p.socket.write(frameBytes({ type: PARTIAL, epoch: 6, pass: 1, step: 0 }, [1, 1, 1, 1])),
  ],
  ['garbage', p => p.socket.write(Buffer.alloc(32, 0xaa))],
  [
    'a frame of the hub',
    p => p.socket.write(frameBytes({ type: TOTAL, epoch: EPOCH, pass: 1, step: 0 }, [1])),
  ],
  [
    'an oversized frame',
    p => p.socket.write(frameBytes({ type: PARTIAL, epoch: EPOCH, pass: 1, step: 0, length: 36 })),
  ],
  ['a pass that did not begin', p => p.send(PARTIAL, 2, 0, [1, 1, 1, 1])],
  ['a step that is not due', p => p.send(PARTIAL, 1, 1, [1, 1, 1, 1])],
  ['a partial of another size', p => p.send(PARTIAL, 1, 0, [1, 1])],
  ['logits of another size', p => p.send(LOGITS, 1, 0, [1])],
  [
    'a second partial',
    p => {
      p.send(PARTIAL, 1, 0, [1, 1, 1, 1]);
      p.send(PARTIAL, 1, 0, [1, 1, 1, 1]);
    },
  ],
  [
    'a partial after logits',
    p => {
      p.send(LOGITS, 1, 0, floats(1, 2));
      p.send(PARTIAL, 1, 0, [1, 1, 1, 1]);
    },
  ],
  [
    'a FAIL that contradicts itself',
    p => p.socket.write(frameBytes({ type: FAIL, epoch: EPOCH, pass: 1, step: 0 }, [-1])),
  ],
];
test.each(offences)('%s is a PROTOCOL error and ends the stream', async (_, offend) => {
  await open(2);
  await beginPass();
  const sum = hub.sum(0, new Int32Array(4));
  offend(peers[1]!);
  await expect(sum).rejects.toMatchObject({ code: 'PROTOCOL', message: expect.stringContaining('spoke-1') });
  await peers[1]!.closed;
  expect(lost).toEqual([['spoke-1', 'PROTOCOL']]);
});

test('a spoke that does not read is given up instead of filling memory', async () => {
  await open(1);
  peers[0]!.socket.pause();
  await expect(async () => {
    for (let i = 0; i < 1_000_000; i++) {
      hub.beginPass(batch, residual);
      hub.abortPass(new PotluckError('BUSY', 'x'.repeat(1000)));
      if (i % 1000 === 0) await settled();
    }
  }).rejects.toMatchObject({ code: 'DEVICE_LOST', message: expect.stringContaining('does not read') });
});

test('waits, steps and passes out of turn are defects', async () => {
  await open(1);
  await expect(hub.sum(0, new Int32Array(4))).rejects.toEqual(code('INTERNAL'));
  await beginPass();
  await expect(hub.sum(1, new Int32Array(4))).rejects.toEqual(code('INTERNAL'));
  await expect(hub.sum(0, new Int32Array(3))).rejects.toEqual(code('INTERNAL'));
  const sum = hub.sum(0, new Int32Array(4));
  await expect(hub.sum(0, new Int32Array(4))).rejects.toEqual(code('INTERNAL'));
  expect(() => hub.beginPass(batch, residual)).toThrow(code('INTERNAL'));
  await expect(hub.collectLogits(2, new Float32Array(12), 6)).rejects.toEqual(code('INTERNAL'));
  hub.close();
  await expect(sum).rejects.toEqual(code('STOPPED'));
  expect(lost).toEqual([]);
  await peers[0]!.closed;
});
