import type { Duplex } from 'node:stream';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { encodeFail } from './fail-payload.ts';
import { FAIL, type FrameHeader, HEADER_BYTES, type OutgoingFrame } from './frame.ts';
import { type FrameLimits, FrameParser, type FrameSink } from './frame-parser.ts';

export interface FrameStreamOptions {
  /** The device at the other end, for messages. */
  readonly device: string;
  /** Owned from now on: destroyed with this object. */
  readonly stream: Duplex;
  readonly epoch: number;
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
  #over = false;
  #sent = 0;
  #received = 0;

  constructor(options: FrameStreamOptions) {
    this.#options = options;
    this.#parser = new FrameParser(options.epoch, options.limits, options.sink);
    const { stream } = options;
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

  /** Begins to read. */
  start(): void {
    this.#options.stream.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      this.#received += chunk.length;
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
    this.#parser.stop();
    this.#options.stream.destroy();
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
