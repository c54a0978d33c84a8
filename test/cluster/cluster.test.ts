import { afterEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { type Message, messageText } from '../../src/cluster/messages.ts';
import { tilesOf } from '../../src/cluster/plan.ts';
import { type GenerateRequest, GREEDY } from '../../src/engine/generate.ts';
import { FakeNetwork, fakeToken, MODEL, TILES } from './fake-host.ts';
import {
  deviceInfo,
  oneCluster,
  realTimers,
  startDevice,
  type TestDevice,
  type TestDeviceOptions,
  until,
} from './ws-devices.ts';

let network = new FakeNetwork();
let devices: TestDevice[] = [];

async function start(options: Omit<TestDeviceOptions, 'network'>): Promise<TestDevice> {
  const device = await startDevice({ ...options, network });
  devices.push(device);
  return device;
}

afterEach(async () => {
  await Promise.all(devices.map(d => d.close()));
  const overlaps = devices.flatMap(d => d.host.overlaps);
  devices = [];
  network = new FakeNetwork();
  expect(overlaps).toEqual([]);
});

const request = (maxTokens: number): GenerateRequest => ({
  prompt: [1, 2, 3],
  generated: [],
  maxTokens,
  stopTokens: [0],
  sampling: { ...GREEDY, seed: 1, logitBias: new Map([[5, -1]]) },
});
const answer = (maxTokens: number): number[] =>
  Array.from({ length: maxTokens }, (_, n) => fakeToken([1, 2, 3], n));

async function collect(
  device: TestDevice,
  maxTokens: number,
  onToken?: (n: number) => void,
): Promise<number[]> {
  const tokens: number[] = [];
  for await (const event of device.cluster
    .generator(MODEL.id)
    .generate(request(maxTokens), new AbortController().signal)) {
    if (event.type === 'finish') return tokens;
    tokens.push(event.id);
    onToken?.(tokens.length);
  }
  throw new Error('ended without finish');
}

describe('cluster', () => {
  it('serves alone', async () => {
    const a = await start({ n: 1 });
    await until('alone', devices, () => oneCluster([a]));
    expect(a.host.served.at(-1)?.kvPages).toEqual([100]);
    expect(await collect(a, 5)).toEqual(answer(5));
  });

  it('joins three devices that know one of them, and spreads the tiles', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port], info: { models: [] } });
    const c = await start({ n: 3, peers: [a.port] });
    await until('three', devices, () => oneCluster([a, b, c]));
    const { plan } = a.cluster.view();
    const parts = plan!.devices.map((_, i) => tilesOf(plan!, i));
    expect(parts.flat().sort((x, y) => x - y)).toEqual(TILES.map((_, i) => i));
    expect(parts.every(p => p.length >= 14)).toBe(true);
    // b and c know each other only by a's word
    await until('mesh', devices, () => b.cluster.view().members.length === 2);
    expect(a.host.served.at(-1)?.kvPages).toEqual([100, 101, 102]);
    expect(b.host.hubs.at(-1)).toMatchObject({ host: '127.0.0.1', linkPort: a.port });
    expect(await a.cluster.deviceStatus(b.id)).toEqual({ of: b.id });
  });

  it('lets an older device join without a new hub', async () => {
    const b = await start({ n: 2 });
    const c = await start({ n: 3, peers: [b.port] });
    await until('two', devices, () => oneCluster([b, c]));
    const a = await start({ n: 1, peers: [c.port] });
    await until('three', devices, () => oneCluster([b, c, a]));
    expect(a.cluster.view().hubId).toBe(b.id);
  });

  it('merges two clusters that meet', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    const c = await start({ n: 3 });
    const d = await start({ n: 4, peers: [c.port] });
    await until('two clusters', devices, () => oneCluster([a, b]) && oneCluster([c, d]));
    const e = await start({ n: 5, peers: [b.port, d.port], info: { models: [] } });
    await until('one', devices, () => oneCluster([a, b, c, d, e]));
    expect(a.cluster.view().hubId).toBe(a.id);
  });

  it('goes on serving the old plan while a device that joins prepares', async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>(resolve => {
      release = resolve;
    });
    const a = await start({ n: 1 });
    await until('alone', devices, () => oneCluster([a]));
    const b = await start({
      n: 2,
      peers: [a.port],
      behaviour: {
        prepare: async (_, onProgress) => {
          onProgress(10, 100);
          await gate;
        },
      },
    });
    const progress = { deviceId: b.id, bytes: 10, total: 100 };
    await until('preparing', devices, () => {
      return a.cluster.view().next?.progress.some(p => p.deviceId === b.id && p.bytes === 10) ?? false;
    });
    expect(b.cluster.view()).toMatchObject({
      role: 'spoke',
      state: 'preparing',
      next: { progress: [progress] },
    });
    expect(a.cluster.view().state).toBe('serving');
    expect(await collect(b, 4)).toEqual(answer(4));
    expect(a.host.served).toHaveLength(1);
    release();
    await until('two', devices, () => oneCluster([a, b]));
  });

  it('plans without a device before that device leaves in peace', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    await until('two', devices, () => oneCluster([a, b]));
    await b.cluster.stop({ leave: true });
    expect(a.host.serving?.devices).toHaveLength(1);
    expect(a.host.lines.filter(line => line.includes('broken'))).toEqual([]);
    expect(b.host.active).toBeNull();
  });

  it('hands the cluster over when the hub leaves in peace', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    const c = await start({ n: 3, peers: [a.port] });
    await until('three', devices, () => oneCluster([a, b, c]));
    await a.cluster.stop({ leave: true });
    expect(b.host.serving?.devices.map(d => d.id)).toEqual([b.id, c.id]);
    await until('two', devices, () => oneCluster([b, c]));
  });

  it('recovers when a spoke disappears', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    const c = await start({ n: 3, peers: [a.port] });
    await until('three', devices, () => oneCluster([a, b, c]));
    b.kill();
    await until('two', devices, () => oneCluster([a, c]));
    const again = await start({ n: 2, peers: [a.port], info: { startedAt: 5000 } });
    await until('three again', devices, () => oneCluster([a, again, c]));
  });

  it('plans anew at once when a device disappears while it prepares', async () => {
    const a = await start({ n: 1 });
    const b = await start({
      n: 2,
      peers: [a.port],
      behaviour: { prepare: () => new Promise(() => undefined) },
    });
    const preparing = () =>
      a.cluster.view().next?.phase === 'prepare' && a.host.prepared.at(-1)?.devices.length === 2;
    await until('preparing', devices, preparing);
    b.kill();
    await until('given up', devices, () => a.cluster.view().next === null);
    expect(a.cluster.view().failures.map(f => f.deviceId)).toEqual([b.id]);
    expect(oneCluster([a])).toBe(true);
  });

  it('continues an answer of a spoke when the hub disappears, with the same tokens', async () => {
    const slow = { beforeToken: () => new Promise<void>(resolve => setTimeout(resolve, 2)) };
    const a = await start({ n: 1, behaviour: slow });
    const b = await start({ n: 2, peers: [a.port], behaviour: slow });
    const c = await start({ n: 3, peers: [a.port], behaviour: slow });
    await until('three', devices, () => oneCluster([a, b, c]));
    const tokens = await collect(c, 200, n => {
      if (n === 80) a.kill();
    });
    expect(tokens).toEqual(answer(200));
    expect(a.host.tokens).toBeGreaterThanOrEqual(80);
    expect(b.host.tokens).toBeGreaterThanOrEqual(100 - 64);
    expect(b.host.tokens).toBeLessThan(200);
  });

  it('holds the engine back when nobody takes the tokens, and stops it when the request is cancelled', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    await until('two', devices, () => oneCluster([a, b]));
    const cancel = new AbortController();
    const events = b.cluster
      .generator(MODEL.id)
      .generate(request(10_000), cancel.signal)
      [Symbol.asyncIterator]();
    await events.next();
    await until('the window is full', devices, () => a.host.tokens >= 65);
    await new Promise(resolve => setTimeout(resolve, 100));
    expect(a.host.tokens).toBe(65);
    cancel.abort();
    expect((await events.next()).done).toBe(true);
    expect(await collect(b, 3)).toEqual(answer(3));
    expect(a.host.tokens).toBe(68);
  });

  it('leaves out a device that fails, says so, and takes it again later', async () => {
    let failures = 0;
    const a = await start({ n: 1 });
    const b = await start({
      n: 2,
      peers: [a.port],
      behaviour: {
        activate: async () => {
          if (failures++ < 1) throw new Error('no memory');
        },
      },
      info: { models: [] },
    });
    await until('failure', devices, () => a.cluster.view().failures.length === 1);
    expect(a.cluster.view().failures[0]).toMatchObject({ deviceId: b.id, message: 'no memory', count: 1 });
    await until('alone', devices, () => a.host.serving?.devices.length === 1);
    await until('two', devices, () => oneCluster([a, b]));
  });

  it('takes a device again whose time is over between two looks at the clock', async () => {
    // When the timer of that moment comes, the first look at the clock is a millisecond before it, the next ones are not.
    const clock = { until: Number.POSITIVE_INFINITY, before: false };
    const timers = {
      ...realTimers,
      now: () => {
        const { before } = clock;
        clock.before = false;
        return before ? clock.until - 1 : realTimers.now();
      },
      setTimeout: (call: () => void, milliseconds: number) =>
        realTimers.setTimeout(() => {
          clock.before = realTimers.now() >= clock.until;
          call();
          clock.before = false;
        }, milliseconds + 1),
    };
    let failures = 0;
    const a = await start({ n: 1, timers });
    const activate = async () => {
      if (failures++ < 1) throw new Error('no memory');
    };
    const b = await start({ n: 2, peers: [a.port], behaviour: { activate }, info: { models: [] } });
    await until('failure', devices, () => a.cluster.view().failures.length === 1);
    clock.until = a.cluster.view().failures[0]!.until;
    await until('two', devices, () => oneCluster([a, b]));
  });

  it('closes the link of a device that sends garbage, and no other', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    await until('two', devices, () => oneCluster([a, b]));
    const { epoch } = a.cluster.view();
    for (const garbage of ['{', '{"type":"hello"}', Buffer.alloc(100), '[]', `"${'x'.repeat(1000)}"`]) {
      const socket = new WebSocket(`ws://127.0.0.1:${a.port}`);
      const code = await new Promise(resolve => {
        socket.on('open', () => socket.send(garbage));
        socket.on('close', resolve);
        socket.on('error', resolve);
      });
      expect(code).toBe(1002);
    }
    expect(oneCluster([a, b])).toBe(true);
    expect(a.cluster.view().epoch).toBe(epoch);
  });

  it('does not give a plan up because a device that is not in it says so', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port] });
    await until('two', devices, () => oneCluster([a, b]));
    const { epoch } = a.cluster.view();
    const stranger = new WebSocket(`ws://127.0.0.1:${a.port}`);
    const device = deviceInfo(9, { models: [] });
    const { protocol, version } = device;
    const messages: Message[] = [
      { type: 'hello', protocol, version, cluster: 'test', device },
      { type: 'plan-failed', epoch, code: 'INTERNAL', message: 'It does not work.' },
      { type: 'status-request', n: 1 },
    ];
    const answered = new Promise(resolve => {
      stranger.on('message', data => String(data).includes('status-reply') && resolve(true));
      stranger.on('close', () => resolve(false));
    });
    stranger.on('open', () => {
      for (const message of messages) stranger.send(messageText(message));
    });
    expect(await answered).toBe(true);
    expect(oneCluster([a, b])).toBe(true);
    expect(a.cluster.view().epoch).toBe(epoch);
    stranger.terminate();
  });

  it('does not join another version, and both sides say why, once', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port], info: { version: '0.2.0' } });
    const says = (d: TestDevice) => d.host.lines.filter(l => /0\.1\.0/.test(l) && /0\.2\.0/.test(l));
    await until('both say', devices, () => says(a).length > 0 && says(b).length > 0);
    await until('each alone', devices, () => oneCluster([a]) && oneCluster([b]));
    expect(says(a)).toHaveLength(1);
    expect(says(b)).toHaveLength(1);
  });

  it('does not join another cluster', async () => {
    const a = await start({ n: 1 });
    const b = await start({ n: 2, peers: [a.port], clusterName: 'other' });
    await until('each alone', devices, () => oneCluster([a]) && oneCluster([b]));
    await until('said', devices, () =>
      b.host.lines.some(l => l.includes('cluster other') || l.includes('cluster test')),
    );
    expect(a.cluster.view().members).toEqual([]);
  });

  it('waits where nobody holds a model', async () => {
    const a = await start({ n: 1, info: { models: [] } });
    const b = await start({ n: 2, peers: [a.port], info: { models: [] } });
    await until('linked', devices, () => a.cluster.view().members.length === 1);
    expect(b.cluster.view()).toMatchObject({ role: 'none', state: 'waiting', hubId: null });
    const c = await start({ n: 3, peers: [a.port] });
    await until('three', devices, () => oneCluster([c, a, b]));
  });
});
