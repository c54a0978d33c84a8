import { type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Timers } from '../allreduce/deadline.ts';
import { PotluckError } from '../errors/errors.ts';
import { refuseUpgrade } from './refuse-upgrade.ts';

/**
 * The raw streams between hub and spokes: an HTTP upgrade on the link port, then frames (docs/wire-format.md). The
 * spoke connects when it has loaded its part of a plan; the hub waits for all of them.
 */

export const TENSOR_PATH = '/potluck/tensor';
const PROTOCOL = 'potluck-tensor/1';

export interface TensorArrivalsOptions {
  /** Whether that device has a control link to this one: no other can be of a plan. */
  isMember(deviceId: string): boolean;
  readonly timers: Timers;
  /** Milliseconds after which a stream that no plan asked for is closed. */
  readonly patience: number;
}

interface Waiting {
  readonly epoch: number;
  readonly deviceId: string;
  readonly stream: Duplex;
  readonly timer: unknown;
}

/** Streams of spokes on their way into a plan: of each device the one that came last. */
export class TensorArrivals {
  readonly #options: TensorArrivalsOptions;
  #arrived: Waiting[] = [];
  #wanted: { epoch: number; check: () => void } | null = null;
  #closed = false;

  constructor(options: TensorArrivalsOptions) {
    this.#options = options;
  }

  /** Takes an upgrade request of TENSOR_PATH; a wrong one, or a stranger's, is refused and closed. */
  accept(message: IncomingMessage, socket: Duplex, head: Buffer): void {
    const epoch = Number(message.headers['x-potluck-epoch']);
    const deviceId = String(message.headers['x-potluck-device'] ?? '');
    const fits =
      message.headers.upgrade === PROTOCOL && Number.isSafeInteger(epoch) && /^[0-9a-f]{32}$/.test(deviceId);
    if (!fits || this.#closed || !this.#options.isMember(deviceId)) {
      refuseUpgrade(socket, '400 Bad Request');
      return;
    }
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${PROTOCOL}\r\n\r\n`);
    if (head.length > 0) socket.unshift(head);
    tune(socket);
    for (const before of this.#arrived.filter(a => a.deviceId === deviceId)) this.#end(before);
    const { timers, patience } = this.#options;
    const timer = timers.setTimeout(() => this.#end(entry), patience);
    const entry: Waiting = { epoch, deviceId, stream: socket, timer };
    socket.on('error', () => this.#drop(entry));
    socket.on('close', () => this.#drop(entry));
    this.#arrived.push(entry);
    this.#wanted?.check();
  }

  /** The streams of `deviceIds` for `epoch`, in that order. Rejects with DEVICE_LOST naming who did not
   *  come, or with the reason of `signal`. */
  collect(
    epoch: number,
    deviceIds: readonly string[],
    milliseconds: number,
    signal: AbortSignal,
  ): Promise<Duplex[]> {
    for (const old of this.#arrived.filter(a => a.epoch < epoch)) this.#end(old);
    return new Promise((resolve, reject) => {
      const find = (id: string) => this.#arrived.find(a => a.epoch === epoch && a.deviceId === id);
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', aborted);
        this.#wanted = null;
      };
      const check = () => {
        const found = deviceIds.map(find);
        if (!found.every(entry => entry !== undefined)) return;
        end();
        for (const entry of found) this.#drop(entry);
        resolve(found.map(entry => entry.stream));
      };
      const aborted = () => {
        end();
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        end();
        const missing = deviceIds.filter(id => !find(id)).join(', ');
        reject(new PotluckError('DEVICE_LOST', `No tensor link from ${missing} within ${milliseconds} ms.`));
      }, milliseconds);
      if (signal.aborted) return aborted();
      signal.addEventListener('abort', aborted);
      this.#wanted = { epoch, check };
      check();
    });
  }

  /** Closes the streams that wait; others are refused from then on. */
  close(): void {
    this.#closed = true;
    for (const entry of this.#arrived) this.#end(entry);
  }

  #end(entry: Waiting): void {
    this.#drop(entry);
    entry.stream.destroy();
  }

  /** It does not wait any more: it is in a plan, or closed. */
  #drop(entry: Waiting): void {
    this.#options.timers.clearTimeout(entry.timer);
    this.#arrived = this.#arrived.filter(a => a !== entry);
  }
}

/** Connects to the hub's tensor stream. Rejects with DEVICE_LOST; `signal` ends the try. */
export function dialTensorLink(
  hub: { host: string; linkPort: number },
  epoch: number,
  deviceId: string,
  milliseconds: number,
  signal: AbortSignal,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const where = `${hub.host}:${hub.linkPort}`;
    const lost = (reason: string) =>
      reject(new PotluckError('DEVICE_LOST', `Tensor link to the hub at ${where}: ${reason}`));
    const call = request({
      host: hub.host,
      port: hub.linkPort,
      path: TENSOR_PATH,
      timeout: milliseconds,
      agent: false,
      signal,
      headers: {
        Connection: 'Upgrade',
        Upgrade: PROTOCOL,
        'X-Potluck-Epoch': String(epoch),
        'X-Potluck-Device': deviceId,
      },
    });
    call.on('upgrade', (_response, socket, head) => {
      socket.setTimeout(0);
      if (head.length > 0) socket.unshift(head);
      tune(socket);
      resolve(socket);
    });
    call.on('response', response => {
      response.destroy();
      lost(`refused (${response.statusCode})`);
    });
    call.on('timeout', () => call.destroy(new Error('no answer')));
    call.on('error', error => lost(error.message));
    call.end();
  });
}

function tune(socket: Duplex): void {
  if ('setNoDelay' in socket) (socket as Socket).setNoDelay(true);
}
