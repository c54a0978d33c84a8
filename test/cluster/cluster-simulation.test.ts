import { EventEmitter } from 'node:events';
import { describe, expect, it } from 'vitest';
import { type Cluster, createCluster } from '../../src/cluster/cluster.ts';
import type { WebSocketLike } from '../../src/cluster/control-link.ts';
import type { DeviceInfo } from '../../src/cluster/device.ts';
import type { Discovery, FoundDevice } from '../../src/discovery/discovery.ts';
import { type GenerateRequest, GREEDY } from '../../src/engine/generate.ts';
import { asPotluckError } from '../../src/errors/errors.ts';
import { FakeHost, FakeNetwork, MODEL, OTHER_MODEL, promptFor } from './fake-host.ts';
import { ManualTimers } from './manual-timers.ts';
import { seeded } from './random.ts';
import { deviceInfo, idOf } from './ws-devices.ts';

/** One end of a link: ordered, with random delays. A cut link says nothing to either side. */
class SimSocket extends EventEmitter implements WebSocketLike {
  readonly bufferedAmount = 0;
  other: SimSocket | null = null;
  cut = false;
  readonly #world: World;
  #lastAt = 0;
  #closed = false;

  constructor(world: World) {
    super();
    this.#world = world;
  }

  send(text: string): void {
    this.#later(other => other.emit('message', Buffer.from(text), false));
  }

  close(code = 1000): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#later(other => other.closedByPeer(code));
    this.#world.after(1, () => this.emit('close', code, Buffer.from('')));
  }

  terminate(): void {
    this.close(1006);
  }

  closedByPeer(code: number): void {
    if (this.#closed) return;
    this.#closed = true;
    this.emit('close', code, Buffer.from(''));
  }

  #later(call: (other: SimSocket) => void): void {
    const { timers, random } = this.#world;
    this.#lastAt = Math.max(this.#lastAt, timers.now() + 1 + random() * 30);
    this.#world.after(this.#lastAt - timers.now(), () => {
      if (!this.cut && this.other !== null && !this.other.cut) call(this.other);
    });
  }
}

interface SimDevice {
  readonly n: number;
  readonly port: number;
  readonly cluster: Cluster;
  readonly host: FakeHost;
  readonly sockets: SimSocket[];
  alive: boolean;
  leaving: boolean;
}

const REQUEST: GenerateRequest = {
  prompt: [],
  generated: [],
  maxTokens: 1,
  stopTokens: [],
  sampling: { ...GREEDY, seed: 1 },
};

/** Devices in one process, with a clock that the test moves. */
class World {
  readonly timers = new ManualTimers();
  readonly random: () => number;
  readonly network = new FakeNetwork();
  readonly devices: SimDevice[] = [];
  /** Links that were made, and pairs of devices that cannot reach each other. */
  readonly #links: { readonly pair: string; readonly sockets: readonly SimSocket[] }[] = [];
  readonly #apart = new Set<string>();
  answered = 0;
  readonly failed: string[] = [];

  constructor(seed: number) {
    this.random = seeded(seed);
  }

  after(milliseconds: number, call: () => void): void {
    this.timers.setTimeout(call, milliseconds);
  }

  get alive(): SimDevice[] {
    return this.devices.filter(d => d.alive);
  }

  /** A device asks for a model; the answer may come, fail or be cut off. */
  ask(device: SimDevice, model: typeof MODEL, signal: AbortSignal): void {
    const maxTokens = 1 + Math.floor(this.random() * 6);
    const request = { ...REQUEST, prompt: promptFor(model), maxTokens };
    const answer = device.cluster.generator(model.id).generate(request, signal);
    void (async () => {
      for await (const event of answer) if (event.type === 'finish') this.answered++;
    })().catch((error: unknown) => this.failed.push(asPotluckError(error).code));
  }

  join(models: DeviceInfo['models']): SimDevice {
    const n = this.devices.length + 1;
    const port = 1000 + n;
    const peers = this.alive.filter(() => this.random() < 0.6);
    const host = new FakeHost(idOf(n), this.network, {
      prepare: () => this.wait(this.random() * 400),
      activate: async () => {
        await this.wait(this.random() * 100);
        if (this.random() < 0.05) throw new Error('bad luck');
      },
      beforeToken: () => this.wait(this.random() * 60),
    });
    const sockets: SimSocket[] = [];
    const cluster = createCluster({
      self: deviceInfo(n, {
        linkPort: port,
        startedAt: Math.floor(this.random() * 1e6),
        models,
      }),
      clusterName: 'test',
      discovery: this.#discovery(),
      peers: peers.map(p => ({ host: '10.0.0.1', port: p.port })),
      dial: (_, to) => this.#dial(n, sockets, to),
      timers: this.timers,
      host,
    });
    const device: SimDevice = { n, port, cluster, host, sockets, alive: true, leaving: false };
    this.devices.push(device);
    cluster.start();
    return device;
  }

  async wait(milliseconds: number): Promise<void> {
    await new Promise<void>(resolve => this.after(milliseconds, resolve));
  }

  /** No goodbye. A cut device does not even close its links. */
  kill(device: SimDevice): void {
    device.alive = false;
    this.network.set(idOf(device.n), null);
    const silent = this.random() < 0.5;
    for (const socket of device.sockets) {
      if (silent) socket.cut = true;
      else socket.terminate();
    }
    void device.cluster.stop({ leave: false });
  }

  /** From now on nothing gets from one to the other; what was a link falls silent. */
  keepApart(n: number, m: number): void {
    this.#apart.add(pairOf(n, m));
    for (const { pair, sockets } of this.#links)
      if (pair === pairOf(n, m)) for (const socket of sockets) socket.cut = true;
  }

  reach(n: number, m: number): boolean {
    return n === m || !this.#apart.has(pairOf(n, m));
  }

  leave(device: SimDevice): void {
    device.leaving = true;
    void device.cluster.stop({ leave: true }).then(() => {
      device.alive = false;
    });
  }

  /** Moves the clock in small steps, so that promises settle between them. */
  async run(milliseconds: number, until: () => boolean = () => false): Promise<boolean> {
    const end = this.timers.now() + milliseconds;
    while (this.timers.now() < end) {
      this.timers.advance(20);
      await new Promise(resolve => setImmediate(resolve));
      if (until()) return true;
    }
    return false;
  }

  settled(): boolean {
    const { alive } = this;
    const views = alive.map(d => d.cluster.view());
    const [first] = views;
    if (first === undefined || first.plan === null || first.plan.devices.length !== alive.length)
      return false;
    const { epoch } = first.plan;
    return alive.every((d, i) => {
      const { plan, hubId } = views[i]!;
      return hubId === first.hubId && plan?.epoch === epoch && d.host.active?.epoch === epoch;
    });
  }

  /** Every device that reaches a hub computes its plan, and no other; one that holds a model always has a hub. */
  settledInParts(): boolean {
    const hubs = this.alive.filter(d => d.cluster.view().role === 'hub');
    return this.alive.every(device => {
      const { hubId, plan } = device.cluster.view();
      if (hubId === null)
        return modelsOf(device.n).length === 0 && !hubs.some(hub => this.reach(hub.n, device.n));
      const hub = hubs.find(d => idOf(d.n) === hubId);
      const epoch = hub?.host.serving?.epoch;
      return (
        hub !== undefined &&
        this.reach(hub.n, device.n) &&
        epoch !== undefined &&
        plan?.epoch === epoch &&
        device.host.active?.epoch === epoch
      );
    });
  }

  /** Some of the devices are found now and then. */
  #discovery(): Discovery {
    const callbacks: ((found: FoundDevice) => void)[] = [];
    let stopped = false;
    const scan = (): void => {
      if (stopped) return;
      for (const { n, port } of this.alive) {
        const found = { id: idOf(n), host: '10.0.0.1', port, cluster: 'test', version: '0.1.0' };
        if (this.random() < 0.5) for (const callback of callbacks) callback(found);
      }
      this.after(2000, scan);
    };
    return {
      start: scan,
      onFound: callback => callbacks.push(callback),
      stop: () => {
        stopped = true;
        return Promise.resolve();
      },
      note: () => null,
    };
  }

  async #dial(n: number, mine: SimSocket[], port: number): Promise<WebSocketLike> {
    await this.wait(this.random() * 20);
    const target = this.devices.find(d => d.port === port);
    if (!target?.alive || this.#apart.has(pairOf(n, target.n))) throw new Error(`nobody listens on ${port}`);
    const [a, b] = [new SimSocket(this), new SimSocket(this)];
    a.other = b;
    b.other = a;
    this.#links.push({ pair: pairOf(n, target.n), sockets: [a, b] });
    mine.push(a);
    target.sockets.push(b);
    target.cluster.acceptLink(b, '10.0.0.1');
    return a;
  }
}

const pairOf = (n: number, m: number): string => [n, m].sort((a, b) => a - b).join(' ');

/** One device in three has no model; the others have one or the other. */
const modelsOf = (n: number): DeviceInfo['models'] =>
  n % 3 === 0 ? [] : [n % 3 === 1 ? MODEL : OTHER_MODEL];

async function live(seed: number): Promise<{ answered: number }> {
  const world = new World(seed);
  const questions = new AbortController();
  world.join(modelsOf(1));
  for (let event = 0; event < 12; event++) {
    const { alive, random } = world;
    const holders = alive.filter(d => d.n % 3 !== 0 && !d.leaving);
    const victim = alive[Math.floor(random() * alive.length)]!;
    const mayGo = alive.length > 2 && !victim.leaving && (victim.n % 3 === 0 || holders.length > 1);
    if (mayGo && random() < 0.5) {
      if (random() < 0.5) world.kill(victim);
      else world.leave(victim);
    } else if (alive.length < 7) {
      world.join(modelsOf(world.devices.length + 1));
    }
    for (const device of world.alive)
      if (!device.leaving && random() < 0.4)
        world.ask(device, random() < 0.5 ? MODEL : OTHER_MODEL, questions.signal);
    await world.run(random() * 1500);
  }
  // those that leave are gone, and those that were killed are noticed
  await world.run(8000);
  questions.abort();
  const ok = await world.run(60_000, () => world.settled());
  const report = world.alive.map(d => ({
    n: d.n,
    ...d.cluster.view(),
    plan: d.cluster.view().plan?.epoch,
    active: d.host.active?.epoch,
    lines: d.host.lines.slice(-8),
  }));
  expect(ok, `seed ${seed}: no single cluster\n${ok ? '' : JSON.stringify(report, null, 1)}`).toBe(true);
  // it stays so
  const { epoch } = world.alive[0]!.cluster.view();
  await world.run(5000);
  expect(world.settled(), `seed ${seed}`).toBe(true);
  expect(world.alive[0]!.cluster.view().epoch, `seed ${seed}`).toBe(epoch);
  for (const d of world.devices) expect(d.host.overlaps, `seed ${seed}`).toEqual([]);
  const hubs = world.alive.filter(d => d.host.serving !== null);
  expect(
    hubs.map(d => idOf(d.n)),
    `seed ${seed}`,
  ).toEqual([world.alive[0]!.cluster.view().hubId]);
  for (const d of world.alive) await d.cluster.stop({ leave: false });
  const wrong = world.failed.filter(code => !MAY_FAIL.has(code));
  expect(wrong, `seed ${seed}`).toEqual([]);
  return { answered: world.answered };
}

/** The model's device left, the asking device itself stops, or the hub had bad luck as it loaded the model. */
const MAY_FAIL = new Set(['UNKNOWN_MODEL', 'STOPPED', 'NOT_READY', 'DEVICE_LOST', 'INTERNAL']);

describe('cluster with delays, failures, joins and leaves', () => {
  it('always ends as one cluster that serves on every device', async () => {
    let answers = 0;
    for (let seed = 1; seed <= 20; seed++) answers += (await live(seed)).answered;
    expect(answers).toBeGreaterThan(200);
  }, 60_000);

  it('ends with a hub for every device that holds a model where some devices do not reach each other', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const world = new World(seed);
      const { random } = world;
      const size = 3 + Math.floor(random() * 4);
      const apart = (): void => {
        for (let n = 1; n <= size; n++) for (let m = 1; m < n; m++) if (random() < 0.3) world.keepApart(n, m);
      };
      // before they meet, or while they serve
      if (random() < 0.5) apart();
      for (let n = 1; n <= size; n++) {
        world.join(modelsOf(n));
        await world.run(random() * 1000);
      }
      await world.run(5000);
      apart();
      await world.run(30_000);
      const ok = await world.run(60_000, () => world.settledInParts());
      const report = world.alive.map(d => ({ n: d.n, ...d.cluster.view(), lines: d.host.lines.slice(-8) }));
      expect(ok, `seed ${seed}: not settled\n${ok ? '' : JSON.stringify(report, null, 1)}`).toBe(true);
      const epochs = (): (number | undefined)[] => world.alive.map(d => d.host.active?.epoch);
      const before = epochs();
      await world.run(20_000);
      expect(world.settledInParts(), `seed ${seed}`).toBe(true);
      expect(epochs(), `seed ${seed}`).toEqual(before);
      for (const d of world.alive) await d.cluster.stop({ leave: false });
    }
  }, 60_000);

  it('lets a device go as soon as there is a plan without it', async () => {
    const world = new World(1);
    const [a, b, c] = [world.join([MODEL]), world.join([MODEL]), world.join([])];
    expect(await world.run(20_000, () => world.settled())).toBe(true);
    // a spoke, then the hub
    const hubFirst = [a, b].sort((x, y) => Number(y.host.serving !== null) - Number(x.host.serving !== null));
    world.leave(c!);
    expect(await world.run(3000, () => !c!.alive)).toBe(true);
    world.leave(hubFirst[0]!);
    expect(await world.run(3000, () => !hubFirst[0]!.alive)).toBe(true);
    expect(world.settled()).toBe(true);
    world.kill(hubFirst[1]!);
  });
});
