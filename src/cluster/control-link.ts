import { Buffer } from 'node:buffer';
import { Heartbeat } from '../allreduce/heartbeat.ts';
import type { Timers } from '../discovery/timers.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { printable } from '../errors/printable.ts';
import { type DeviceInfo, PROTOCOL_VERSION } from './device.ts';
import { MAX_MESSAGE_BYTES, type Message, messageText, parseGreeting, parseMessage } from './messages.ts';

/** The part of a WebSocket (of `ws`) that a link uses; it is open when it comes here, and no message was lost. */
export interface WebSocketLike {
  /** Bytes that wait to be sent. */
  readonly bufferedAmount: number;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  terminate(): void;
  on(event: 'message', listener: (data: unknown, isBinary: boolean) => void): unknown;
  on(event: 'close', listener: (code: number, reason: unknown) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** Most bytes that wait for a slow device before its link is given up. */
const MOST_BUFFERED = 8 * MAX_MESSAGE_BYTES;
/** Most requests that wait for a reply. */
const MOST_REQUESTS = 64;
const HEARTBEAT_MS = 500;
/** A device that was not heard for this long is lost. */
const SILENCE_MS = 3000;
const HELLO_MS = 5000;
/** After close() the other side has this long to close too. */
const CLOSE_MS = 1000;
/** Close code of ws for a broken rule; and ours. */
const CLOSE_PROTOCOL = 1002;
const CLOSE_NORMAL = 1000;

/** Why this side does not want a link, so that dialing again soon is of no use: it leads to this device itself, to another
 *  cluster or version, there are too many links, or another device has the identity of this one. */
export type Refusal = 'self' | 'foreign' | 'full' | 'twin';

/** Why a link ended. `refusal`: null where it broke, or the other side closed it. */
export interface LinkEnd {
  readonly error: PotluckError;
  readonly refusal: Refusal | null;
}

export interface ControlLinkOptions {
  readonly socket: WebSocketLike;
  /** True where this side dialed. */
  readonly dialed: boolean;
  /** Address of the other side, as seen here. */
  readonly remoteHost: string;
  readonly cluster: string;
  readonly self: DeviceInfo;
  readonly timers: Timers;
  /** The other side said hello and belongs here. Called once, before any message. */
  readonly opened: (link: ControlLink, device: DeviceInfo) => void;
  readonly received: (link: ControlLink, message: Message) => void;
  /** Called once, also for a link that never opened. */
  readonly closed: (link: ControlLink, end: LinkEnd) => void;
}

interface WaitingRequest {
  readonly isReply: (message: Message) => boolean;
  readonly settle: (result: Message | PotluckError) => void;
}

/**
 * A control link to one device: JSON messages over a WebSocket. The side that dialed says hello, then the other one (so nothing
 * comes before somebody listens), and each checks cluster, protocol and version. A message that is not valid closes this link and no other.
 */
export class ControlLink {
  readonly dialed: boolean;
  readonly remoteHost: string;
  readonly #options: ControlLinkOptions;
  readonly #heartbeat: Heartbeat;
  readonly #requests = new Set<WaitingRequest>();
  #helloTimer: unknown;
  #closeTimer: unknown = null;
  #device: DeviceInfo | null = null;
  #end: LinkEnd | null = null;

  constructor(options: ControlLinkOptions) {
    this.#options = options;
    this.dialed = options.dialed;
    this.remoteHost = options.remoteHost;
    const { socket, timers } = options;
    this.#heartbeat = new Heartbeat({
      timers,
      interval: HEARTBEAT_MS,
      silence: SILENCE_MS,
      ping: n => this.send({ type: 'ping', n }),
      lost: silence =>
        this.close(
          new PotluckError('DEVICE_LOST', `${this.#who()} has not answered for ${Math.round(silence)} ms.`),
        ),
    });
    socket.on('message', (data, isBinary) => this.#receive(data, isBinary));
    socket.on('error', error => this.#finish(this.#lost(error.message)));
    socket.on('close', (code, reason) => {
      timers.clearTimeout(this.#closeTimer);
      const why = Buffer.isBuffer(reason) ? printable(reason.toString()) : '';
      this.#finish(
        why === 'IDENTITY_TAKEN'
          ? this.#twin(`${this.#who()} has a link to another device with the identity of this one`)
          : this.#lost(`the link was closed (${code} ${why})`),
      );
    });
    this.#helloTimer = timers.setTimeout(
      () => this.close(new PotluckError('DEADLINE', `${this.#who()} did not say hello in ${HELLO_MS} ms.`)),
      HELLO_MS,
    );
    if (options.dialed) this.#sendHello();
  }

  /** What the other side said of itself, with the address that it is reached at; null before its hello. */
  get device(): DeviceInfo | null {
    return this.#device;
  }

  get isOpen(): boolean {
    return this.#device !== null && this.#end === null;
  }

  /** Milliseconds of the last ping there and back; null before the first. */
  get roundTripMs(): number | null {
    return this.#heartbeat.roundTripMs;
  }

  /** Sends, or closes the link where the other side does not take what was sent before. Does nothing on a closed link. */
  send(message: Message): void {
    if (this.#end !== null) return;
    const { socket } = this.#options;
    if (socket.bufferedAmount > MOST_BUFFERED) {
      this.close(new PotluckError('DEVICE_LOST', `${this.#who()} takes messages too slowly.`));
      return;
    }
    socket.send(messageText(message));
  }

  /** Sends and resolves to the first message that `isReply` accepts. Rejects with DEADLINE, or why the link ended. */
  request(message: Message, isReply: (message: Message) => boolean, milliseconds: number): Promise<Message> {
    if (this.#end !== null) return Promise.reject(this.#end.error);
    if (this.#requests.size >= MOST_REQUESTS) {
      return Promise.reject(new PotluckError('BUSY', `${this.#who()} has too many requests to answer.`));
    }
    return new Promise((resolve, reject) => {
      const { timers } = this.#options;
      const waiting: WaitingRequest = {
        isReply,
        settle: result => {
          timers.clearTimeout(timer);
          this.#requests.delete(waiting);
          if (result instanceof PotluckError) reject(result);
          else resolve(result);
        },
      };
      const timer = timers.setTimeout(() => {
        waiting.settle(
          new PotluckError(
            'DEADLINE',
            `${this.#who()} did not answer ${message.type} in ${milliseconds} ms.`,
          ),
        );
      }, milliseconds);
      this.#requests.add(waiting);
      this.send(message);
    });
  }

  /** Closes the link; what was sent before still goes out. */
  close(error: PotluckError, refusal: Refusal | null = null): void {
    if (this.#end !== null) return;
    const { socket, timers } = this.#options;
    const code = error.code === 'PROTOCOL' ? CLOSE_PROTOCOL : CLOSE_NORMAL;
    // a reason has at most 123 bytes
    socket.close(code, error.code);
    // a dead peer never closes; the socket's own close event ends this timer
    this.#closeTimer = timers.setTimeout(() => socket.terminate(), CLOSE_MS);
    this.#finish({ error, refusal });
  }

  #sendHello(): void {
    const { self, cluster } = this.#options;
    this.send({ type: 'hello', protocol: PROTOCOL_VERSION, version: self.version, cluster, device: self });
  }

  #who(): string {
    return this.#device === null
      ? `The device at ${this.remoteHost}`
      : `${this.#device.name} at ${this.remoteHost}`;
  }

  #lost(why: string): LinkEnd {
    return { error: new PotluckError('DEVICE_LOST', `${this.#who()} is gone: ${why}.`), refusal: null };
  }

  #twin(what: string): LinkEnd {
    const advice = 'Stop this one, delete device.json in its data folder, and start it again.';
    const message = `${what}: the data folder of one was copied. ${advice}`;
    return { error: new PotluckError('IDENTITY_TAKEN', message), refusal: 'twin' };
  }

  #receive(data: unknown, isBinary: boolean): void {
    if (this.#end !== null) return;
    try {
      if (isBinary || !Buffer.isBuffer(data)) {
        throw new PotluckError('PROTOCOL', `${this.#who()} sent a message that is not text.`);
      }
      if (data.length > MAX_MESSAGE_BYTES) {
        throw new PotluckError('PROTOCOL', `${this.#who()} sent a message over ${MAX_MESSAGE_BYTES} bytes.`);
      }
      const text = data.toString('utf8');
      if (this.#device === null) this.#greet(text);
      else this.#dispatch(parseMessage(text));
    } catch (error) {
      this.close(asPotluckError(error));
    }
  }

  #greet(text: string): void {
    const { self, cluster, timers } = this.#options;
    const greeting = parseGreeting(text);
    if (!this.dialed) this.#sendHello();
    const { device } = greeting;
    if (device.id === self.id && device.startedAt !== self.startedAt) {
      const { error, refusal } = this.#twin(
        `${device.name} at ${this.remoteHost} has the identity of this device`,
      );
      this.close(error, refusal);
    } else if (device.id === self.id) {
      this.close(new PotluckError('PROTOCOL', `${this.remoteHost} is this device itself.`), 'self');
    } else if (greeting.cluster !== cluster) {
      const reason = `${device.name} at ${this.remoteHost} is in cluster ${greeting.cluster}, this device in ${cluster}.`;
      const advice = 'Start both with the same --cluster to join them.';
      this.close(new PotluckError('PROTOCOL', `${reason} ${advice}`), 'foreign');
    } else if (greeting.protocol !== PROTOCOL_VERSION || greeting.version !== self.version) {
      const theirs = `version ${greeting.version} (protocol ${greeting.protocol})`;
      const ours = `version ${self.version} (protocol ${PROTOCOL_VERSION})`;
      const message = `${device.name} at ${this.remoteHost} runs ${theirs}, this device ${ours}. Install the same on both.`;
      this.close(new PotluckError('VERSION_MISMATCH', message), 'foreign');
    } else {
      const hello = parseMessage(text);
      if (hello.type !== 'hello') throw new PotluckError('PROTOCOL', 'The first message is not a hello.');
      timers.clearTimeout(this.#helloTimer);
      const opened = { ...hello.device, host: hello.device.host || this.remoteHost };
      this.#device = opened;
      this.#heartbeat.start();
      this.#heartbeat.ping();
      this.#options.opened(this, opened);
    }
  }

  #dispatch(message: Message): void {
    this.#heartbeat.heard();
    if (message.type === 'hello') throw new PotluckError('PROTOCOL', `${this.#who()} said hello twice.`);
    if (message.type === 'ping') {
      this.send({ type: 'pong', n: message.n });
      return;
    }
    if (message.type === 'pong') {
      this.#heartbeat.pong(message.n);
      return;
    }
    if (message.type === 'device') {
      if (message.device.id !== this.#device?.id)
        throw new PotluckError('PROTOCOL', `${this.#who()} changed its id.`);
      this.#device = { ...message.device, host: message.device.host || this.remoteHost };
    }
    for (const waiting of this.#requests) {
      if (!waiting.isReply(message)) continue;
      waiting.settle(message);
      return;
    }
    this.#options.received(this, message);
  }

  #finish(end: LinkEnd): void {
    if (this.#end !== null) return;
    this.#end = end;
    this.#heartbeat.stop();
    this.#options.timers.clearTimeout(this.#helloTimer);
    for (const waiting of [...this.#requests]) waiting.settle(end.error);
    this.#options.closed(this, end);
  }
}
