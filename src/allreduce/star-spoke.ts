import type { Duplex } from 'node:stream';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { Batch } from '../kernels/backend.ts';
import type { Allreduce } from './allreduce.ts';
import { type Timers, Wait } from './deadline.ts';
import { decodeFail, MOST_FAIL_BYTES } from './fail-payload.ts';
import {
  FAIL,
  FRAME_NAMES,
  type FrameHeader,
  freeFrame,
  LOGITS,
  type OutgoingFrame,
  PARTIAL,
  PASS,
  requireLittleEndian,
  TOTAL,
} from './frame.ts';
import type { LogitMemory, SpokeFrames } from './frame-memory.ts';
import { DISCARD, type PayloadTarget } from './frame-parser.ts';
import { FrameStream } from './frame-stream.ts';
import { gatherLogits, type LogitColumns } from './logit-columns.ts';
import { type DecodedPass, decodePass, mostPassBytes, type PassLimits } from './pass-payload.ts';
import { DEFAULT_DEADLINE } from './star-hub.ts';

/** The hub uses a stream once all spokes of the plan have connected, or closes it. */
const HUB_BEGINS_MS = 90_000;

export interface StarSpokeOptions extends PassLimits {
  readonly epoch: number;
  /** Id of the hub, for messages. */
  readonly hub: string;
  /** Raw byte stream to the hub, TCP_NODELAY set by who made it. The spoke owns and destroys it. */
  readonly stream: Duplex;
  /** Vocabulary ranges of this device's head tiles, in tile order. */
  readonly logitColumns: readonly LogitColumns[];
  readonly timers: Timers;
  /** Memory of this plan's frames. */
  readonly frames: SpokeFrames;
  /** See FrameStreamOptions. */
  readonly onReceived?: (bytes: number) => void;
  /** Milliseconds; 60 s where absent. */
  readonly deadlines?: { readonly sum?: number };
}

export interface SpokePass {
  readonly batch: Batch;
  /** [tokens, width] float32. Batch and residual are valid until the handler's promise settles. */
  readonly residual: Float32Array;
}

/** Where this device left the logits of the asked rows: [rows, rowLength] float32, read in the columns of its tiles. */
export interface SpokeLogits {
  readonly logits: Float32Array;
  readonly rowLength: number;
}

/** Computes one pass. What it throws is sent to the hub and ends the pass. */
export type PassHandler = (pass: SpokePass, allreduce: Allreduce) => Promise<SpokeLogits>;

export interface StarSpoke {
  /** Sets the handler and begins to read; once. One pass is handled at a time. */
  onPass(handler: PassHandler): void;
  /** Gives up a hub whose heartbeat stopped. */
  fail(error: PotluckError): void;
  /** `callback` is called once, when the stream to the hub is over. */
  onLost(callback: (error: PotluckError) => void): void;
  /** Destroys the stream; waits reject with STOPPED. */
  close(): void;
}

/** A point of the star. Throws PROTOCOL on a big-endian processor. */
export const createStarSpoke = (options: StarSpokeOptions): StarSpoke => new Spoke(options);

/** One pass on this device; the handler sums through it. */
class PassInHand implements Allreduce {
  readonly alone = false;
  readonly number: number;
  readonly payload: Buffer;
  /** The whole payload is here. */
  arrived = false;
  /** Why the pass is over, once it is. */
  over: PotluckError | undefined;
  /** Half layers that were summed. */
  step = 0;
  /** The sum that is waited for: its TOTAL is written here. */
  partial: Int32Array | undefined;
  wait: Wait | undefined;
  readonly #spoke: Spoke;

  constructor(spoke: Spoke, number: number, payload: Buffer) {
    this.#spoke = spoke;
    this.number = number;
    this.payload = payload;
  }

  sum(step: number, partial: Int32Array): Promise<void> {
    return this.#spoke.sum(this, step, partial);
  }
}

class Spoke implements StarSpoke {
  readonly #options: StarSpokeOptions;
  readonly #frames: FrameStream;
  readonly #failPayload = Buffer.alloc(MOST_FAIL_BYTES);
  readonly #lostCallbacks: ((error: PotluckError) => void)[] = [];
  #handler: PassHandler | undefined;
  #broken: PotluckError | undefined;
  /** Memory that passes arrive in; only while no handler reads it. */
  #passPayload: Buffer;
  #partialFrame: OutgoingFrame;
  readonly #logits: LogitMemory;
  /** The number of the newest pass that the hub began. */
  #newest = 0;
  /** Its PASS is still arriving, or waits for the handler of the pass before to end. */
  #next: PassInHand | undefined;
  /** The pass that the handler works on. */
  #current: PassInHand | undefined;

  constructor(options: StarSpokeOptions) {
    requireLittleEndian();
    this.#options = options;
    const { pass, partial, logits } = options.frames;
    this.#logits = logits;
    this.#passPayload = pass;
    this.#partialFrame = partial;
    const partialBytes = options.maxTokens * options.width * 4;
    this.#frames = new FrameStream({
      device: options.hub,
      stream: options.stream,
      epoch: options.epoch,
      timers: options.timers,
      firstSilence: HUB_BEGINS_MS,
      limits: { [PASS]: mostPassBytes(options), [TOTAL]: partialBytes, [FAIL]: MOST_FAIL_BYTES },
      maxBacklog: 2 * (partialBytes + options.maxLogitRows * this.#logits.columns * 4) + (64 << 10),
      sink: { begin: header => this.#beginFrame(header), end: header => this.#endFrame(header) },
      onReceived: options.onReceived,
      lost: error => this.#lose(error),
    });
  }

  onPass(handler: PassHandler): void {
    if (this.#handler !== undefined)
      throw new PotluckError('INTERNAL', 'The handler of passes is set already.');
    this.#handler = handler;
    this.#frames.start();
  }

  fail(error: PotluckError): void {
    this.#frames.fail(error);
  }

  onLost(callback: (error: PotluckError) => void): void {
    this.#lostCallbacks.push(callback);
  }

  close(): void {
    this.#end(new PotluckError('STOPPED', 'The plan ended while a pass was running.'));
    this.#frames.close();
  }

  /** See Allreduce. Sends `partial`; the TOTAL that answers is written straight into it. */
  sum(pass: PassInHand, step: number, partial: Int32Array): Promise<void> {
    if (pass.over !== undefined) return Promise.reject(pass.over);
    const words = this.#words(pass);
    if (step !== pass.step || partial.length !== words || pass.wait !== undefined)
      return Promise.reject(
        new PotluckError(
          'INTERNAL',
          `sum of step ${step} in step ${pass.step} of pass ${pass.number} is out of turn.`,
        ),
      );
    const { epoch, timers, deadlines } = this.#options;
    const frame = freeFrame(this.#partialFrame, words * 4);
    this.#partialFrame = frame;
    frame.ints.set(partial);
    pass.partial = partial;
    const milliseconds = deadlines?.sum ?? DEFAULT_DEADLINE;
    const wait = new Wait(timers, milliseconds, () => this.#sumExpired(pass, milliseconds));
    pass.wait = wait;
    this.#frames.send(frame, { type: PARTIAL, epoch, pass: pass.number, step, length: words * 4 });
    return wait.promise;
  }

  #sumExpired(pass: PassInHand, milliseconds: number): void {
    const message = `No sum ${pass.step} of pass ${pass.number} came from hub ${this.#options.hub} within ${milliseconds} ms. Look at the log of the hub.`;
    const error = new PotluckError('DEADLINE', message);
    this.#endPass(pass, error);
    this.#frames.sendFail(pass.number, error);
  }

  /** A frame of the hub begins: says where its payload goes. Throws PROTOCOL where it is not its turn. */
  #beginFrame(header: FrameHeader): PayloadTarget {
    if (header.type === PASS) return this.#beginPass(header);
    if (header.pass > this.#newest) throw outOfTurn(header, `pass ${header.pass}, which did not begin`);
    const pass = this.#livePass(header);
    if (pass === undefined) return DISCARD;
    if (header.type === FAIL) return { kind: 'copy', bytes: this.#failPayload };
    if (pass.partial === undefined || header.step !== pass.step)
      throw outOfTurn(header, `step ${header.step} is not waited for`);
    if (header.length !== pass.partial.byteLength)
      throw outOfTurn(header, `${header.length} bytes where the pass has ${pass.partial.byteLength}`);
    const { buffer, byteOffset, byteLength } = pass.partial;
    return { kind: 'copy', bytes: new Uint8Array(buffer, byteOffset, byteLength) };
  }

  #endFrame(header: FrameHeader): void {
    const pass = this.#livePass(header);
    if (pass === undefined) return;
    if (header.type === PASS) {
      pass.arrived = true;
      this.#startNext();
    } else if (header.type === TOTAL) {
      const { wait } = pass;
      pass.step++;
      pass.wait = undefined;
      pass.partial = undefined;
      wait?.resolve();
    } else this.#hubFailed(pass, header.length);
  }

  #livePass(header: FrameHeader): PassInHand | undefined {
    const pass = this.#next?.number === header.pass ? this.#next : this.#current;
    return pass?.number === header.pass && pass.over === undefined ? pass : undefined;
  }

  #beginPass(header: FrameHeader): PayloadTarget {
    if (header.pass <= this.#newest)
      throw outOfTurn(header, `pass ${header.pass} after pass ${this.#newest}`);
    const current = this.#current;
    if (current !== undefined && current.over === undefined && current.wait !== undefined)
      throw outOfTurn(header, `pass ${header.pass} while pass ${current.number} waits for a sum`);
    if (this.#next !== undefined && this.#next.over === undefined)
      throw outOfTurn(header, `pass ${header.pass} while pass ${this.#next.number} waits`);
    this.#newest = header.pass;
    this.#next = new PassInHand(this, header.pass, this.#passMemory(header.length));
    return { kind: 'copy', bytes: this.#next.payload };
  }

  /** Memory for a PASS payload: the one that is kept, unless a handler still reads that. */
  #passMemory(bytes: number): Buffer {
    if (this.#current !== undefined) return Buffer.from(new ArrayBuffer(bytes));
    if (this.#passPayload.length < bytes) this.#passPayload = Buffer.from(new ArrayBuffer(bytes));
    return this.#passPayload.subarray(0, bytes);
  }

  #hubFailed(pass: PassInHand, length: number): void {
    const failure = decodeFail(this.#failPayload.subarray(0, length));
    if (failure === undefined)
      throw new PotluckError('PROTOCOL', 'A FAIL frame contradicts its own lengths.');
    this.#endPass(pass, new PotluckError(failure.code, failure.message));
  }

  /** Hands the next pass to the handler as soon as that is free. */
  #startNext(): void {
    const pass = this.#next;
    if (this.#current !== undefined || pass === undefined || !pass.arrived) return;
    this.#next = undefined;
    if (pass.over !== undefined) return;
    this.#current = pass;
    this.#handle(pass)
      .catch((error: unknown) => this.#handlerFailed(pass, asPotluckError(error)))
      .finally(() => {
        this.#current = undefined;
        this.#startNext();
      });
  }

  async #handle(pass: PassInHand): Promise<void> {
    const decoded: DecodedPass = decodePass(pass.payload, this.#options);
    const { logits, rowLength } = await this.#handler!(decoded, pass);
    const rows = decoded.batch.logitRows.length;
    if (pass.over !== undefined || rows * this.#logits.columns === 0) return;
    const length = rows * this.#logits.columns * 4;
    const frame = this.#logits.frame(rows);
    gatherLogits(logits, rowLength, this.#options.logitColumns, rows, frame.floats);
    const { epoch } = this.#options;
    this.#frames.send(frame, { type: LOGITS, epoch, pass: pass.number, step: pass.step, length });
  }

  #handlerFailed(pass: PassInHand, error: PotluckError): void {
    if (pass.over !== undefined) return;
    this.#endPass(pass, error);
    this.#frames.sendFail(pass.number, error);
  }

  /** Words of a partial sum: the counts in the payload were checked before the handler saw it. */
  #words(pass: PassInHand): number {
    return pass.payload.readUInt32LE(0) * this.#options.width;
  }

  #endPass(pass: PassInHand, error: PotluckError): void {
    if (pass.over !== undefined) return;
    pass.over = error;
    // What is still to come of its TOTAL must not be written into memory that is given back now.
    if (pass.partial !== undefined) this.#frames.discardRest();
    pass.partial = undefined;
    const { wait } = pass;
    pass.wait = undefined;
    wait?.reject(error);
  }

  #lose(error: PotluckError): void {
    this.#end(error);
    for (const callback of this.#lostCallbacks) callback(error);
  }

  #end(error: PotluckError): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    if (this.#current !== undefined) this.#endPass(this.#current, error);
    if (this.#next !== undefined) this.#endPass(this.#next, error);
  }
}

const outOfTurn = (header: FrameHeader, what: string): PotluckError =>
  new PotluckError(
    'PROTOCOL',
    `${FRAME_NAMES[header.type]} frame out of turn: ${what}; the stream is closed.`,
  );
