import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import WebSocket, { WebSocketServer } from 'ws';
import { type Cluster, createCluster } from '../../src/cluster/cluster.ts';
import type { WebSocketLike } from '../../src/cluster/control-link.ts';
import { type DeviceInfo, PROTOCOL_VERSION } from '../../src/cluster/device.ts';
import type { Timers } from '../../src/discovery/timers.ts';
import { FakeHost, type FakeHostBehaviour, type FakeNetwork, MODEL } from './fake-host.ts';

export const realTimers: Timers = {
  now: () => performance.now(),
  setTimeout: (call, milliseconds) => setTimeout(call, milliseconds),
  clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout | undefined),
};

/** A device id: the number, padded to 32 digits. */
export const idOf = (n: number): string => n.toString(16).padStart(32, '0');

export function deviceInfo(n: number, change: Partial<DeviceInfo> = {}): DeviceInfo {
  return {
    id: idOf(n),
    name: `device-${n}`,
    version: '0.1.0',
    protocol: PROTOCOL_VERSION,
    startedAt: 1000 + n,
    host: '',
    linkPort: 1,
    apiPort: 1,
    threads: 1,
    kernel: 'fake',
    exact: true,
    memoryBytes: 2 ** 30,
    share: 1,
    models: [MODEL],
    ...change,
  };
}

export interface TestDevice {
  readonly id: string;
  readonly port: number;
  readonly cluster: Cluster;
  readonly host: FakeHost;
  /** Sockets of both directions. */
  readonly sockets: Set<WebSocket>;
  /** As if the machine lost its power: no goodbye. */
  kill(): void;
  close(): Promise<void>;
}

export interface TestDeviceOptions {
  readonly n: number;
  readonly network: FakeNetwork;
  readonly peers?: readonly number[];
  readonly clusterName?: string;
  readonly info?: Partial<DeviceInfo>;
  readonly behaviour?: FakeHostBehaviour;
  /** Clock of this device; the real one where nothing is said. */
  readonly timers?: Timers;
}

/** One device on loopback, with a real WebSocket server. */
export async function startDevice(options: TestDeviceOptions): Promise<TestDevice> {
  const { n, network } = options;
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 2 ** 20 });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const sockets = new Set<WebSocket>();
  let dead = false;
  const dial = (host: string, to: number): Promise<WebSocketLike> =>
    new Promise((resolve, reject) => {
      if (dead) return reject(new Error('dead'));
      const socket = new WebSocket(`ws://${host}:${to}`);
      sockets.add(socket);
      socket.once('open', () => resolve(socket));
      socket.once('error', reject);
      socket.once('close', () => sockets.delete(socket));
    });
  const host = new FakeHost(idOf(n), network, options.behaviour ?? {});
  const cluster = createCluster({
    self: deviceInfo(n, { linkPort: port, ...options.info }),
    clusterName: options.clusterName ?? 'test',
    discovery: null,
    peers: (options.peers ?? []).map(p => ({ host: '127.0.0.1', port: p })),
    dial,
    timers: options.timers ?? realTimers,
    host,
  });
  server.on('connection', (socket, request) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    cluster.acceptLink(socket, request.socket.remoteAddress ?? '');
  });
  cluster.start();
  const closeServer = (): Promise<void> => new Promise(resolve => server.close(() => resolve()));
  return {
    id: idOf(n),
    port,
    cluster,
    host,
    sockets,
    kill: () => {
      dead = true;
      network.set(idOf(n), null);
      server.close();
      for (const socket of sockets) socket.terminate();
      void cluster.stop({ leave: false });
    },
    close: async () => {
      dead = true;
      await cluster.stop({ leave: false });
      for (const socket of sockets) socket.terminate();
      await closeServer();
    },
  };
}

/** Resolves when `done` holds; looks after every change of a cluster, and now and then. Fails after 15 s, saying what is. */
export async function until(
  what: string,
  devices: readonly TestDevice[],
  done: () => boolean,
): Promise<void> {
  const end = Date.now() + 15_000;
  while (!done()) {
    if (Date.now() > end) {
      const views = devices.map(d => ({ ...d.cluster.view(), lines: d.host.lines }));
      throw new Error(`Not reached: ${what}\n${JSON.stringify(views, null, 1)}`);
    }
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

/** All devices serve one plan of exactly these devices. */
export function oneCluster(devices: readonly TestDevice[]): boolean {
  const views = devices.map(d => d.cluster.view());
  const plan = views[0]?.plan;
  if (!plan || plan.devices.length !== devices.length) return false;
  const hubs = devices.filter(d => d.cluster.view().role === 'hub');
  return (
    hubs.length === 1 &&
    hubs[0]!.host.serving?.epoch === plan.epoch &&
    views.every(
      (v, i) => v.plan?.epoch === plan.epoch && v.hubId === hubs[0]!.id && devices[i]!.host.active !== null,
    )
  );
}
