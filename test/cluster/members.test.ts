import { describe, expect, it } from 'vitest';
import type { WebSocketLike } from '../../src/cluster/control-link.ts';
import { Members } from '../../src/cluster/members.ts';
import { ManualTimers } from './manual-timers.ts';
import { deliverAll, type PairSocket, socketPair } from './socket-pair.ts';
import { deviceInfo, idOf } from './ws-devices.ts';

interface Side {
  readonly members: Members;
  readonly events: string[];
  readonly lines: string[];
}

/** Devices in memory that dial each other by port number. */
class Net {
  readonly timers = new ManualTimers();
  readonly sides = new Map<number, Side>();
  readonly sockets: PairSocket[] = [];
  readonly dialed: string[] = [];

  /** A device at port `n`, with an id of that number unless `id` says otherwise. */
  add(n: number, startedAt = n, id = n): Side {
    const events: string[] = [];
    const lines: string[] = [];
    let side: Side | null = null;
    const log = { info: () => undefined, warn: (line: string) => void lines.push(line) };
    const members = new Members({
      self: () => deviceInfo(id, { name: `device-${n}`, linkPort: n, startedAt }),
      cluster: 'test',
      timers: this.timers,
      log,
      // a device that was started anew has replaced the one before
      dial: (_, port) =>
        this.sides.get(n) === side ? this.#dial(n, port) : Promise.reject(new Error('ended')),
      state: () => ({ type: 'state', hubId: null, epoch: 0, clusterSize: 0, choice: null, peers: [] }),
      joined: m => events.push(`+${Number(`0x${m.id}`)}`),
      left: m => events.push(`-${Number(`0x${m.id}`)}`),
      changed: () => undefined,
      received: () => undefined,
    });
    side = { members, events, lines };
    this.sides.set(n, side);
    return side;
  }

  async run(milliseconds: number): Promise<void> {
    for (let t = 0; t < milliseconds; t += 50) {
      this.timers.advance(50);
      await new Promise(resolve => setImmediate(resolve));
      deliverAll(...this.sockets);
    }
  }

  links(): number {
    return this.sockets.filter(s => s.closedWith === null && s.other !== null).length / 2;
  }

  #dial(from: number, port: number): Promise<WebSocketLike> {
    this.dialed.push(`${from}>${port}`);
    const target = this.sides.get(port);
    if (target === undefined) return Promise.reject(new Error('refused'));
    const [a, b] = socketPair();
    this.sockets.push(a, b);
    target.members.accept(b, '::ffff:10.0.0.1');
    return Promise.resolve(a);
  }
}

describe('members', () => {
  it('keep one link of a pair that dials each other at once', async () => {
    const net = new Net();
    const a = net.add(1);
    const b = net.add(2);
    a.members.add('10.0.0.1', 2, null, 'user');
    b.members.add('10.0.0.1', 1, null, 'user');
    await net.run(5000);
    expect(net.dialed.slice(0, 2).sort()).toEqual(['1>2', '2>1']);
    expect(net.links()).toBe(1);
    expect([a.events, b.events]).toEqual([['+2'], ['+1']]);
    expect(b.members.get(idOf(1))?.device.host).toBe('10.0.0.1');
  });

  it('keep the link that is in use when the same device is dialed by another address', async () => {
    const net = new Net();
    const a = net.add(1);
    const b = net.add(2);
    b.members.add('10.0.0.1', 1, null, 'user');
    await net.run(500);
    b.members.add('192.168.0.1', 1, null, 'user');
    await net.run(20_000);
    expect(net.links()).toBe(1);
    expect([a.events, b.events]).toEqual([['+2'], ['+1']]);
    expect(net.dialed).toHaveLength(2);
  });

  it('let the lower id dial where both are known', async () => {
    const net = new Net();
    const a = net.add(1);
    const b = net.add(2);
    b.members.add('10.0.0.1', 1, idOf(1), 'network');
    await net.run(100);
    a.members.add('10.0.0.1', 2, idOf(2), 'network');
    await net.run(5000);
    expect(net.dialed).toEqual(['1>2']);
  });

  it('drop a link to this device itself, and do not dial it again', async () => {
    const net = new Net();
    const a = net.add(1);
    a.members.add('10.0.0.1', 1, null, 'user');
    await net.run(60_000);
    expect(net.dialed).toEqual(['1>1']);
    expect(a.events).toEqual([]);
    expect(a.lines).toEqual([]);
  });

  it('dial again with growing pauses, for ever where the user named the address', async () => {
    const net = new Net();
    const a = net.add(1);
    a.members.add('10.0.0.1', 2, null, 'user');
    a.members.add('10.0.0.1', 3, null, 'network');
    await net.run(60_000);
    const tries = (port: number) => net.dialed.filter(d => d === `1>${port}`).length;
    expect(tries(3)).toBe(6);
    expect(tries(2)).toBeGreaterThan(8);
    expect(tries(2)).toBeLessThan(14);
    expect(a.lines).toEqual(['refused']);
    net.add(2);
    await net.run(11_000);
    expect(a.events).toEqual(['+2']);
  });

  it('take the new link of a device that started anew', async () => {
    const net = new Net();
    const a = net.add(1);
    const old = net.add(2, 100);
    old.members.add('10.0.0.1', 1, null, 'user');
    await net.run(500);
    const anew = net.add(2, 200);
    anew.members.add('10.0.0.1', 1, null, 'user');
    await net.run(500);
    expect(a.events).toEqual(['+2', '-2', '+2']);
    expect(a.members.get(idOf(2))?.device.startedAt).toBe(200);
    expect(anew.events).toEqual(['+1']);
  });

  it.each([
    ['lower', 1],
    ['higher', 9],
  ])('keep the first of two devices with one identity, and say so on both sides (%s id)', async (_, own) => {
    const net = new Net();
    const a = net.add(own);
    const first = net.add(5, 100);
    const copy = net.add(6, 200, 5);
    for (const side of [first, copy]) side.members.add('10.0.0.1', own, null, 'user');
    await net.run(20_000);
    const joins = a.events.length;
    await net.run(100_000);
    expect(a.events).toHaveLength(joins);
    expect(joins).toBeLessThan(8);
    expect(a.members.get(idOf(5))?.device.startedAt).toBe(100);
    const note = expect.stringMatching(/^device-6 at 10.0.0.1 has the identity of device-5 .* device.json/);
    expect([a.members.notes, a.lines]).toEqual([[note], [note]]);
    expect([first.members.notes, first.lines]).toEqual([[], []]);
    const own2 = expect.stringContaining('another device with the identity of this one');
    expect([copy.members.notes, copy.lines]).toEqual([[own2], [own2]]);
    expect(copy.members.all).toEqual([]);
    // without the first one, the copy is as good
    first.members.stop();
    await net.run(40_000);
    expect(a.members.get(idOf(5))?.device.startedAt).toBe(200);
    expect([a.members.notes, copy.members.notes]).toEqual([[], []]);
  });

  it('dial a device again after its link broke, also where that one had dialed', async () => {
    const net = new Net();
    const a = net.add(1);
    const b = net.add(2);
    b.members.add('10.0.0.1', 1, null, 'user');
    await net.run(500);
    for (const socket of net.sockets) socket.close(1006);
    await net.run(3000);
    expect(net.links()).toBe(1);
    expect(a.events).toEqual(['+2', '-2', '+2']);
    expect(b.events).toEqual(['+1', '-1', '+1']);
    expect(net.dialed.length).toBeGreaterThan(1);
  });

  it('end all links and timers when they stop', async () => {
    const net = new Net();
    const a = net.add(1);
    const b = net.add(2);
    a.members.add('10.0.0.1', 2, null, 'user');
    a.members.add('10.0.0.1', 3, null, 'user');
    await net.run(500);
    a.members.stop();
    b.members.stop();
    await net.run(100);
    expect(net.links()).toBe(0);
    const dials = net.dialed.length;
    await net.run(20_000);
    expect(net.dialed).toHaveLength(dials);
    expect(net.timers.pending).toBe(0);
  });
});
