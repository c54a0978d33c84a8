import type { Duplex } from 'node:stream';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { Timers } from './deadline.ts';
import { encodeFail } from './fail-payload.ts';
import { ALIVE, FAIL, type FrameHeader, HEADER_BYTES, OutgoingFrame } from './frame.ts';
import { DISCARD, type FrameLimits, FrameParser, type FrameSink } from './frame-parser.ts';
import { Heartbeat } from './heartbeat.ts';

/** Milliseconds between two ALIVE frames: often enough for routers that forget a connection on which nothing moves. */
const ALIVE_MS = 2000;
/** A stream on which nothing comes for so many milliseconds is lost; TCP makes up for a gap of 3 s, which the control link outlives, in less. */
const SILENCE_MS = 10_000;

export interface FrameStreamOptions {
  /** The device at the other end, for messages. */
  readonly device: string;
  /** Owned from now on: destroyed with this object. */
  readonly stream: Duplex;
  readonly epoch: number;
  readonly timers: Timers;
  /** Milliseconds that the other side may take before it begins to use the stream; where absent it uses it at once. */
  readonly firstSilence?: number;
  /** What may arrive. */
  readonly limits: FrameLimits;
  /** Most bytes that may wait to be sent; a device that reads no more is lost. */
  readonly maxBacklog: number;
  readonly sink: FrameSink;
  /** Called with the size of each piece that came, when it is not needed any more. */
  readonly onReceived?: ((bytes: number) => void) | undefined;
  /** Called once, when the stream is over for any reason but `close`. */
  readonly lost: (error: PotluckError) => void;
}

/** Frames to and from one device. */
export class FrameStream {
  readonly #options: FrameStreamOptions;
  readonly #parser: FrameParser;
  readonly #heartbeat: Heartbeat;
  readonly #alive = new OutgoingFrame(0);
  #over = false;
  #sent = 0;
  #received = 0;

  constructor(options: FrameStreamOptions) {
    this.#options = options;
    const { stream, epoch, limits, sink, timers, firstSilence } = options;
    this.#parser = new FrameParser(
      epoch,
      { ...limits, [ALIVE]: 0 },
      {
        begin: header => (header.type === ALIVE ? DISCARD : sink.begin(header)),
        end: header => (header.type === ALIVE ? undefined : sink.end(header)),
      },
    );
    this.#heartbeat = new Heartbeat({
      timers,
      interval: ALIVE_MS,
      silence: SILENCE_MS,
      firstSilence,
      ping: () => this.#sendAlive(),
      lost: silence =>
        this.#lose(this.#gone(`nothing came on its tensor stream for ${Math.round(silence / 1000)} s`)),
    });
    // Errors stay listened to after the end: a destroyed socket may still report one.
    stream.on('error', error => this.#lose(this.#gone(`the connection broke: ${error.message}`)));
    stream.on('end', () => this.#lose(this.#gone('it closed the connection')));
    stream.on('close', () => this.#lose(this.#gone('the connection closed')));
    if (stream.destroyed) queueMicrotask(() => this.#lose(this.#gone('the connection closed')));
  }

  get bytesSent(): number {
    return this.#sent;
  }

  get bytesReceived(): number {
    return this.#received;
  }

  /** Begins to read, and to give signs of life. */
  start(): void {
    if (this.#over) return;
    this.#heartbeat.start();
    this.#options.stream.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      this.#received += chunk.length;
      this.#heartbeat.heard();
      try {
        this.#parser.push(chunk);
      } catch (error) {
        const cause = asPotluckError(error);
        this.#lose(
          new PotluckError(cause.code, `Device ${this.#options.device}: ${cause.message}`, { cause: error }),
        );
      }
      this.#options.onReceived?.(chunk.length);
    });
  }

  /** Sends a frame in one write. Its memory must not change while `frame.inFlight` is over 0. */
  send(frame: OutgoingFrame, header: FrameHeader): void {
    if (this.#over) return;
    const { stream, maxBacklog } = this.#options;
    const bytes = HEADER_BYTES + header.length;
    if (stream.writableLength + bytes > maxBacklog) {
      this.#lose(this.#gone(`it does not read: ${stream.writableLength} bytes wait to be sent`));
      return;
    }
    frame.inFlight++;
    this.#sent += bytes;
    stream.write(frame.seal(header), () => frame.inFlight--);
  }

  sendFail(pass: number, error: PotluckError): void {
    const { frame, length } = encodeFail(error);
    this.send(frame, { type: FAIL, epoch: this.#options.epoch, pass, step: 0, length });
  }

  /** Drops what is still to come of a frame of a dead pass. */
  discardRest(): void {
    this.#parser.discardRest();
  }

  /** Ends the stream because of `error`, and reports it as lost. */
  fail(error: PotluckError): void {
    this.#lose(error);
  }

  close(): void {
    this.#over = true;
    this.#heartbeat.stop();
    this.#parser.stop();
    this.#options.stream.destroy();
  }

  /** What waits to be sent is as good a sign. */
  #sendAlive(): void {
    const { stream, epoch } = this.#options;
    if (stream.writableLength > 0) return;
    this.send(this.#alive, { type: ALIVE, epoch, pass: 0, step: 0, length: 0 });
  }

  #lose(error: PotluckError): void {
    if (this.#over) return;
    this.close();
    this.#options.lost(error);
  }

  #gone(why: string): PotluckError {
    const message = `Device ${this.#options.device} is lost: ${why}. Its work moves to the others with the next plan.`;
    return new PotluckError('DEVICE_LOST', message);
  }
}
