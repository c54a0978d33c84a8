import { describe, expect, it } from 'vitest';
import { ControlLink, type LinkEnd } from '../../src/cluster/control-link.ts';
import type { DeviceInfo } from '../../src/cluster/device.ts';
import type { Message } from '../../src/cluster/messages.ts';
import { ManualTimers } from './manual-timers.ts';
import { deliverAll, type PairSocket, socketPair } from './socket-pair.ts';
import { deviceInfo } from './ws-devices.ts';

interface Side {
  link: ControlLink;
  socket: PairSocket;
  opened: DeviceInfo[];
  received: Message[];
  ends: LinkEnd[];
}

function side(
  socket: PairSocket,
  timers: ManualTimers,
  self: DeviceInfo,
  dialed: boolean,
  cluster = 'test',
): Side {
  const opened: DeviceInfo[] = [];
  const received: Message[] = [];
  const ends: LinkEnd[] = [];
  const link = new ControlLink({
    socket,
    dialed,
    remoteHost: '10.0.0.9',
    cluster,
    self,
    timers,
    opened: (_, device) => opened.push(device),
    received: (_, message) => received.push(message),
    closed: (_, end) => ends.push(end),
  });
  return { link, socket, opened, received, ends };
}

function linkPair(other: Partial<DeviceInfo> = {}, cluster = 'test') {
  const timers = new ManualTimers();
  const [s, t] = socketPair();
  const b = side(t, timers, deviceInfo(2, other), false, cluster);
  const a = side(s, timers, deviceInfo(1), true);
  return { timers, a, b, flow: () => deliverAll(s, t) };
}

describe('control link', () => {
  it('opens on both sides, with the address that was seen', () => {
    const { a, b, flow } = linkPair({ host: 'relay.local' });
    flow();
    expect(a.opened).toEqual([deviceInfo(2, { host: 'relay.local' })]);
    expect(b.opened).toEqual([deviceInfo(1, { host: '10.0.0.9' })]);
    expect(a.link.isOpen && b.link.isOpen).toBe(true);
  });

  it('says nothing to who dialed before that one has said hello', () => {
    const { b, a } = linkPair();
    expect(b.socket.sent).toEqual([]);
    expect(a.socket.sent).toHaveLength(1);
  });

  it.each([
    ['version', { version: '9.9.9' }, 'VERSION_MISMATCH', 'foreign'],
    ['device itself', { id: deviceInfo(1).id, startedAt: deviceInfo(1).startedAt }, 'PROTOCOL', 'self'],
    ['device of the same identity', { id: deviceInfo(1).id }, 'IDENTITY_TAKEN', 'twin'],
  ] as const)('refuses another %s on both sides', (_, other, code, refusal) => {
    const { a, b, flow } = linkPair(other);
    flow();
    for (const s of [a, b]) {
      expect(s.opened).toEqual([]);
      expect(s.ends[0]).toMatchObject({ error: { code }, refusal });
    }
    expect(a.ends).toHaveLength(1);
  });

  it('refuses another cluster on both sides', () => {
    const { a, b, flow } = linkPair({}, 'other');
    flow();
    expect(a.ends[0]).toMatchObject({ refusal: 'foreign' });
    expect(b.ends[0]).toMatchObject({ refusal: 'foreign' });
  });

  it('gives up a side that does not say hello', () => {
    const { timers, b } = linkPair();
    timers.advance(5000);
    expect(b.ends[0]?.error.code).toBe('DEADLINE');
  });

  it('measures the way there and back, and loses a silent side after 3 s', () => {
    const { timers, a, b, flow } = linkPair();
    flow();
    timers.advance(5);
    flow();
    expect(a.link.roundTripMs).toBe(0);
    timers.advance(495);
    timers.advance(7.25);
    flow();
    expect(a.link.roundTripMs).toBe(7.25);
    timers.advance(2600);
    expect(a.ends).toEqual([]);
    timers.advance(900);
    expect(a.ends[0]?.error).toMatchObject({
      code: 'DEVICE_LOST',
      message: expect.stringMatching(/not answered for \d+ ms/),
    });
    expect(b.ends[0]?.error.code).toBe('DEVICE_LOST');
    timers.advance(1000);
    expect(a.socket.terminated).toBe(true);
    expect(timers.pending).toBe(0);
  });

  it('does not take its own sleep for silence of the other side', () => {
    const { timers, a, flow } = linkPair();
    flow();
    timers.advance(600);
    flow();
    timers.sleep(60_000);
    timers.advance(0);
    expect(a.ends).toEqual([]);
    timers.advance(4000);
    expect(a.ends).toHaveLength(1);
  });

  it.each([
    ['no JSON', '{'],
    ['unknown type', '{"type":"explode"}'],
    ['missing field', '{"type":"activate"}'],
    ['negative epoch', '{"type":"activate","epoch":-1}'],
    ['an epoch that no frame can carry', `{"type":"activate","epoch":${2 ** 32}}`],
    [
      'second hello',
      JSON.stringify({
        type: 'hello',
        protocol: 1,
        version: '0.1.0',
        cluster: 'test',
        device: deviceInfo(1),
      }),
    ],
    ['too large', `{"type":"leave","x":"${'y'.repeat(1 << 20)}"}`],
  ])('closes on a message that is not valid: %s', (_, text) => {
    const { a, b, flow } = linkPair();
    flow();
    a.socket.sent.push(text);
    flow();
    expect(b.ends[0]?.error.code).toBe('PROTOCOL');
    expect(b.socket.closedWith).toBe(1002);
    expect(b.received).toEqual([]);
    expect(a.ends[0]?.error.code).toBe('DEVICE_LOST');
  });

  it('closes on a binary message and on a message before hello', () => {
    const { a, b, flow } = linkPair();
    b.socket.emit('message', Buffer.from('{}'), true);
    expect(b.ends[0]?.error.code).toBe('PROTOCOL');
    a.socket.emit('message', Buffer.from('{"type":"leave"}'), false);
    expect(a.ends[0]?.error.code).toBe('PROTOCOL');
    flow();
    expect(a.opened).toEqual([]);
  });

  it('gives up a side that does not read', () => {
    const { a, flow } = linkPair();
    flow();
    a.socket.bufferedAmount = 9 << 20;
    a.link.send({ type: 'leave' });
    expect(a.ends[0]?.error.message).toMatch(/too slowly/);
  });

  it('answers requests, or says that no answer came', async () => {
    const { timers, a, b, flow } = linkPair();
    flow();
    const ask = (n: number) =>
      a.link.request({ type: 'status-request', n }, m => m.type === 'status-reply' && m.n === n, 1000);
    const first = ask(1);
    const second = ask(2);
    flow();
    b.link.send({ type: 'status-reply', n: 2, status: 'two' });
    flow();
    expect(await second).toMatchObject({ status: 'two' });
    timers.advance(1000);
    await expect(first).rejects.toMatchObject({ code: 'DEADLINE' });
    const third = ask(3);
    a.socket.emit('close', 1006, Buffer.from(''));
    await expect(third).rejects.toMatchObject({ code: 'DEVICE_LOST' });
    await expect(ask(4)).rejects.toMatchObject({ code: 'DEVICE_LOST' });
  });

  it('does not let a device change its id', () => {
    const { a, b, flow } = linkPair();
    flow();
    a.link.send({ type: 'device', device: deviceInfo(1, { share: 4 }) });
    flow();
    expect(b.link.device?.share).toBe(4);
    a.link.send({ type: 'device', device: deviceInfo(7) });
    flow();
    expect(b.ends[0]?.error.code).toBe('PROTOCOL');
  });
});
