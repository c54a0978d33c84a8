import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { HostAndPort } from '../option-values.ts';
import { type LinkLimits, LinkShaper } from './link-shaper.ts';
import { preciseClock, type RelayClock } from './precise-timer.ts';
import { ShapedPipe } from './shaped-pipe.ts';

/** Connections that a relay carries at once: a cluster has a few for each device. */
const CONNECTION_LIMIT = 1024;

/** Stands in front of one device's link port, so that its link is as slow as asked. Listens on 127.0.0.1. */
export class Relay {
  readonly port: number;
  readonly #server: Server;
  /** Ends a connection, each. */
  readonly #connections = new Set<() => void>();
  /** Where connections go; null until the device listens, and connections are closed at once. */
  target: HostAndPort | null = null;

  private constructor(server: Server, port: number, limits: LinkLimits, clock: RelayClock) {
    this.#server = server;
    this.port = port;
    const shaper = new LinkShaper(limits);
    server.on('connection', socket => this.#connect(socket, shaper, clock));
  }

  /** Rejects where no port can be had. */
  static async open(limits: LinkLimits, clock: RelayClock = preciseClock): Promise<Relay> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.maxConnections = CONNECTION_LIMIT;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has an address');
    return new Relay(server, address.port, limits, clock);
  }

  #connect(near: Socket, shaper: LinkShaper, clock: RelayClock): void {
    if (this.target === null) {
      near.destroy();
      return;
    }
    const far = createConnection({ ...this.target, allowHalfOpen: true, noDelay: true });
    near.setNoDelay(true);
    const pipes = [new ShapedPipe(near, far, shaper, clock), new ShapedPipe(far, near, shaper, clock)];
    // A paused socket does not say that its other end is gone; so when one breaks, both go.
    const close = (): void => {
      this.#connections.delete(close);
      for (const pipe of pipes) pipe.close();
      near.destroy();
      far.destroy();
    };
    this.#connections.add(close);
    for (const socket of [near, far]) {
      socket.once('error', close);
      socket.once('close', () => {
        if (near.destroyed && far.destroyed) close();
      });
    }
    near.resume();
  }

  /** Breaks all connections and stops listening. */
  async close(): Promise<void> {
    for (const close of [...this.#connections]) close();
    await new Promise<void>(resolve => this.#server.close(() => resolve()));
  }
}
