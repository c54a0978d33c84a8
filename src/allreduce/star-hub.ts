import type { Duplex } from 'node:stream';
import { PotluckError } from '../errors/errors.ts';
import type { Batch } from '../kernels/backend.ts';
import type { Allreduce } from './allreduce.ts';
import { type Timers, Wait } from './deadline.ts';
import { decodeFail, MOST_FAIL_BYTES } from './fail-payload.ts';
import { addInto } from './fixed-point.ts';
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
import type { HubFrames, LogitMemory } from './frame-memory.ts';
import { DISCARD, type PayloadTarget } from './frame-parser.ts';
import { FrameStream } from './frame-stream.ts';
import { type LogitColumns, scatterLogits } from './logit-columns.ts';
import { encodePass, mostPassBytes, type PassLimits, passBytes } from './pass-payload.ts';
import { SumLatency } from './sum-latency.ts';

export interface HubSpoke {
  readonly id: string;
  /** Raw byte stream to the spoke, TCP_NODELAY set by who made it. The hub owns and destroys it. */
  readonly stream: Duplex;
  /** Vocabulary ranges of its head tiles, in tile order. */
  readonly logitColumns: readonly LogitColumns[];
}

export interface StarHubOptions extends PassLimits {
  readonly epoch: number;
  readonly spokes: readonly HubSpoke[];
  readonly timers: Timers;
  /** Memory of this plan's frames. */
  readonly frames: HubFrames;
  /** See FrameStreamOptions. */
  readonly onReceived?: (bytes: number) => void;
  /** Milliseconds; 60 s each where absent. */
  readonly deadlines?: { readonly sum?: number; readonly logits?: number };
}

export interface StarStats {
  /** Sums since the plan began. */
  readonly sums: number;
  /** Time in `sum` (waiting for the slowest spoke and the exchange), of the last 1024 sums. */
  readonly p50Microseconds: number;
  readonly p99Microseconds: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

export interface StarHub extends Allreduce {
  /** Sends the tokens of the next pass to every spoke. `residual`: [>= tokens, width] float32, read before this
   *  returns. Throws DEVICE_LOST where a spoke is gone, INTERNAL where a pass is not over. */
  beginPass(batch: Batch, residual: Float32Array): void;
  /** Writes the spokes' columns into `logits` ([rows, rowLength] float32); `rows` is what the batch asked for.
   *  Rejects with DEVICE_LOST, DEADLINE or PROTOCOL. */
  collectLogits(rows: number, logits: Float32Array, rowLength: number): Promise<void>;
  /** Ends the pass in flight everywhere; its waits reject with `error`. Streams stay usable for the next pass. */
  abortPass(error: PotluckError): void;
  /** Gives up a spoke whose heartbeat stopped. */
  fail(id: string, error: PotluckError): void;
  /** `callback` is called once for each spoke that is lost, from now on. */
  onLost(callback: (id: string, error: PotluckError) => void): void;
  stats(): StarStats;
  /** Destroys the streams; waits reject with STOPPED. */
  close(): void;
}

export const DEFAULT_DEADLINE = 60_000;
const MOST_PASSES = 0xffff_ffff;

/** The centre of the star. Throws PROTOCOL on a big-endian processor. */
export const createStarHub = (options: StarHubOptions): StarHub => new Hub(options);

class Spoke {
  readonly id: string;
  readonly columns: readonly LogitColumns[];
  /** [rows, columns] float32, as they come. */
  readonly logits: LogitMemory;
  readonly frames: FrameStream;
  /** Its PARTIAL of the current step began to arrive, is complete. */
  partialBegan = false;
  partialHere = false;
  logitsBegan = false;
  logitsHere = false;
  readonly failPayload = Buffer.alloc(MOST_FAIL_BYTES);

  constructor(hub: Hub, spoke: HubSpoke, logits: LogitMemory, options: StarHubOptions) {
    this.id = spoke.id;
    this.columns = spoke.logitColumns;
    this.logits = logits;
    const partialBytes = options.maxTokens * options.width * 4;
    this.frames = new FrameStream({
      device: spoke.id,
      stream: spoke.stream,
      epoch: options.epoch,
      timers: options.timers,
      limits: {
        [PARTIAL]: partialBytes,
        [LOGITS]: options.maxLogitRows * logits.columns * 4,
        [FAIL]: MOST_FAIL_BYTES,
      },
      maxBacklog: 2 * (mostPassBytes(options) + partialBytes) + (64 << 10),
      sink: {
        begin: header => hub.beginFrame(this, header),
        end: header => hub.endFrame(this, header),
      },
      onReceived: options.onReceived,
      lost: error => hub.loseSpoke(this, error),
    });
  }

  beginPass(): void {
    this.partialBegan = this.partialHere = this.logitsBegan = this.logitsHere = false;
  }
}

class Hub implements StarHub {
  readonly alone: boolean;
  readonly #options: StarHubOptions;
  readonly #spokes: readonly Spoke[];
  readonly #latency = new SumLatency();
  readonly #lostCallbacks: ((id: string, error: PotluckError) => void)[] = [];
  /** Set for good: a spoke is lost or the hub is closed. */
  #broken: PotluckError | undefined;

  #pass = 0;
  /** Why the current pass is over; undefined while it goes on. */
  #over: PotluckError | undefined = new PotluckError('INTERNAL', 'No pass began yet.');
  #step = 0;
  #words = 0;
  #logitRows = 0;
  #passFrame: OutgoingFrame;
  /** What the spokes sent of this step adds up here, and goes out from here as TOTAL. */
  #sums: OutgoingFrame;
  /** The TOTAL of the last step may still be going out from here. */
  #otherSums: OutgoingFrame;
  readonly #addTarget: { kind: 'add'; sums: Int32Array } = { kind: 'add', sums: new Int32Array(0) };

  #own: Int32Array | undefined;
  #sumBegan = 0;
  /** Of `sum` or of `collectLogits`, one at a time. */
  #wait: Wait | undefined;
  #collecting = false;

  constructor(options: StarHubOptions) {
    requireLittleEndian();
    this.#options = options;
    this.alone = options.spokes.length === 0;
    const { pass, sums, logits } = options.frames;
    this.#passFrame = pass;
    [this.#sums, this.#otherSums] = sums;
    this.#spokes = options.spokes.map((spoke, i) => new Spoke(this, spoke, logits[i]!, options));
    for (const spoke of this.#spokes) spoke.frames.start();
  }

  beginPass(batch: Batch, residual: Float32Array): void {
    if (this.#broken !== undefined) throw this.#broken;
    if (this.#wait !== undefined)
      throw new PotluckError('INTERNAL', 'A pass began while another was waited for.');
    if (this.#pass === MOST_PASSES)
      throw new PotluckError('NOT_READY', 'The pass numbers of this plan are used up; a new plan is needed.');
    const { epoch, width, maxTokens, maxLogitRows } = this.#options;
    const tokens = batch.positions.length;
    if (tokens > maxTokens || batch.logitRows.length > maxLogitRows)
      throw new PotluckError('INTERNAL', `A pass of ${tokens} tokens is over the limit of ${maxTokens}.`);
    this.#pass++;
    this.#over = undefined;
    this.#step = 0;
    this.#words = tokens * width;
    this.#logitRows = batch.logitRows.length;
    if (this.alone) return;
    this.#sums = this.#clearSums(this.#sums);
    const length = passBytes(batch, width);
    const frame = freeFrame(this.#passFrame, length);
    this.#passFrame = frame;
    encodePass(frame, batch, residual, width);
    for (const spoke of this.#spokes) spoke.beginPass();
    this.#sendAll(frame, { type: PASS, epoch, pass: this.#pass, step: 0, length });
  }

  sum(step: number, partial: Int32Array): Promise<void> {
    const wrong = this.#whyNot(step === this.#step && partial.length === this.#words, `sum of step ${step}`);
    if (wrong !== undefined) return Promise.reject(wrong);
    if (this.alone) {
      this.#step++;
      return Promise.resolve();
    }
    this.#sumBegan = this.#options.timers.now();
    // Added now and not at the end: the time until the spokes' partials come is free.
    this.#own = partial;
    addInto(this.#sums.ints, partial, this.#words);
    if (this.#everyPartialHere()) {
      this.#finishSum();
      return Promise.resolve();
    }
    return this.#startWait(this.#options.deadlines?.sum, `sum ${step}`, spoke => spoke.partialHere);
  }

  async collectLogits(rows: number, logits: Float32Array, rowLength: number): Promise<void> {
    const fits = rows === this.#logitRows && logits.length >= rows * rowLength;
    const wrong = this.#whyNot(fits, `collect of ${rows} logit rows`);
    if (wrong !== undefined) throw wrong;
    this.#collecting = true;
    if (!this.#everyLogitHere())
      await this.#startWait(this.#options.deadlines?.logits, 'logits', spoke => this.#logitsDone(spoke));
    if (this.#over !== undefined) throw this.#over;
    this.#collecting = false;
    for (const spoke of this.#spokes)
      scatterLogits(spoke.logits.frame(rows).floats, spoke.columns, rows, logits, rowLength);
  }

  abortPass(error: PotluckError): void {
    if (this.#over !== undefined) return;
    this.#over = error;
    this.#own = undefined;
    this.#collecting = false;
    for (const spoke of this.#spokes) {
      spoke.frames.discardRest();
      spoke.frames.sendFail(this.#pass, error);
    }
    this.#endWait(wait => wait.reject(error));
  }

  fail(id: string, error: PotluckError): void {
    this.#spokes.find(spoke => spoke.id === id)?.frames.fail(error);
  }

  onLost(callback: (id: string, error: PotluckError) => void): void {
    this.#lostCallbacks.push(callback);
  }

  stats(): StarStats {
    const total = (bytes: (frames: FrameStream) => number): number =>
      this.#spokes.reduce((sum, spoke) => sum + bytes(spoke.frames), 0);
    return {
      sums: this.#latency.count,
      p50Microseconds: this.#latency.percentile(0.5),
      p99Microseconds: this.#latency.percentile(0.99),
      bytesSent: total(frames => frames.bytesSent),
      bytesReceived: total(frames => frames.bytesReceived),
    };
  }

  close(): void {
    this.#broken ??= new PotluckError('STOPPED', 'The plan ended while a pass was running.');
    this.abortPass(this.#broken);
    for (const spoke of this.#spokes) spoke.frames.close();
  }

  /** A frame of `spoke` begins: says where its payload goes. Throws PROTOCOL where it is not its turn. */
  beginFrame(spoke: Spoke, header: FrameHeader): PayloadTarget {
    if (header.pass > this.#pass) throw outOfTurn(header, `pass ${header.pass}, which did not begin`);
    if (header.pass < this.#pass || this.#over !== undefined) return DISCARD;
    if (header.type === FAIL) return { kind: 'copy', bytes: spoke.failPayload };
    if (header.step !== this.#step) throw outOfTurn(header, `step ${header.step} during step ${this.#step}`);
    return header.type === PARTIAL ? this.#beginPartial(spoke, header) : this.#beginLogits(spoke, header);
  }

  /** A frame of `spoke` is complete. */
  endFrame(spoke: Spoke, header: FrameHeader): void {
    if (header.pass !== this.#pass || this.#over !== undefined) return;
    if (header.type === FAIL) this.#spokeFailed(spoke, header.length);
    else if (header.type === PARTIAL) {
      spoke.partialHere = true;
      if (this.#own === undefined || !this.#everyPartialHere()) return;
      this.#finishSum();
      this.#endWait(wait => wait.resolve());
    } else {
      spoke.logitsHere = true;
      if (this.#collecting && this.#everyLogitHere()) this.#endWait(wait => wait.resolve());
    }
  }

  loseSpoke(spoke: Spoke, error: PotluckError): void {
    this.#broken ??= error;
    this.abortPass(error);
    for (const callback of this.#lostCallbacks) callback(spoke.id, error);
  }

  #beginPartial(spoke: Spoke, header: FrameHeader): PayloadTarget {
    if (spoke.partialBegan || spoke.logitsBegan) throw outOfTurn(header, `step ${header.step} a second time`);
    if (header.length !== this.#words * 4)
      throw outOfTurn(header, `${header.length} bytes where the pass has ${this.#words * 4}`);
    spoke.partialBegan = true;
    // Addition has no order, so partials of several spokes may arrive interleaved into the same sums.
    this.#addTarget.sums = this.#sums.ints;
    return this.#addTarget;
  }

  #beginLogits(spoke: Spoke, header: FrameHeader): PayloadTarget {
    const floats = this.#logitRows * spoke.logits.columns;
    if (spoke.partialBegan || spoke.logitsBegan || floats === 0)
      throw outOfTurn(header, 'logits that are not due');
    if (header.length !== floats * 4)
      throw outOfTurn(header, `${header.length} bytes where the plan says ${floats * 4}`);
    spoke.logitsBegan = true;
    const { floats: target } = spoke.logits.frame(this.#logitRows);
    return { kind: 'copy', bytes: new Uint8Array(target.buffer, target.byteOffset, header.length) };
  }

  #spokeFailed(spoke: Spoke, length: number): void {
    const failure = decodeFail(spoke.failPayload.subarray(0, length));
    if (failure === undefined)
      throw new PotluckError('PROTOCOL', 'A FAIL frame contradicts its own lengths.');
    this.abortPass(new PotluckError(failure.code, `Device ${spoke.id}: ${failure.message}`));
  }

  /** Every device's partial is in the sums: out to every spoke and into the hub's own partial; the next step begins. */
  #finishSum(): void {
    const own = this.#own!;
    const words = this.#words;
    const frame = this.#sums;
    this.#own = undefined;
    const { epoch } = this.#options;
    const step = this.#step++;
    for (const spoke of this.#spokes) spoke.partialBegan = spoke.partialHere = false;
    this.#sendAll(frame, { type: TOTAL, epoch, pass: this.#pass, step, length: words * 4 });
    own.set(frame.ints.length === words ? frame.ints : frame.ints.subarray(0, words));
    // Every spoke answered the TOTAL that went out from the other buffer, so that one is free by now.
    this.#sums = this.#clearSums(this.#otherSums);
    this.#otherSums = frame;
    this.#latency.add((this.#options.timers.now() - this.#sumBegan) * 1000);
  }

  /** `frame`, or another where it is still going out or too small, with zeros for this pass. */
  #clearSums(frame: OutgoingFrame): OutgoingFrame {
    const free = freeFrame(frame, this.#words * 4);
    if (free === frame) free.ints.fill(0, 0, this.#words);
    return free;
  }

  #sendAll(frame: OutgoingFrame, header: FrameHeader): void {
    for (const spoke of this.#spokes) spoke.frames.send(frame, header);
  }

  #everyPartialHere(): boolean {
    for (const spoke of this.#spokes) if (!spoke.partialHere) return false;
    return true;
  }

  #logitsDone(spoke: Spoke): boolean {
    return spoke.logitsHere || this.#logitRows * spoke.logits.columns === 0;
  }

  #everyLogitHere(): boolean {
    return this.#spokes.every(spoke => this.#logitsDone(spoke));
  }

  /** Why a wait cannot begin now, or undefined. */
  #whyNot(inTurn: boolean, what: string): PotluckError | undefined {
    if (this.#over !== undefined) return this.#over;
    if (inTurn && this.#wait === undefined) return undefined;
    return new PotluckError(
      'INTERNAL',
      `${what} in step ${this.#step} of pass ${this.#pass} is out of turn.`,
    );
  }

  #startWait(milliseconds = DEFAULT_DEADLINE, what: string, done: (spoke: Spoke) => boolean): Promise<void> {
    const wait = new Wait(this.#options.timers, milliseconds, () => {
      const late = this.#spokes.filter(spoke => !done(spoke)).map(spoke => spoke.id);
      const message = `No ${what} of pass ${this.#pass} from ${late.join(', ')} within ${milliseconds} ms. Look at those devices' logs.`;
      this.abortPass(new PotluckError('DEADLINE', message));
    });
    this.#wait = wait;
    return wait.promise;
  }

  #endWait(settle: (wait: Wait) => void): void {
    const wait = this.#wait;
    this.#wait = undefined;
    if (wait !== undefined) settle(wait);
  }
}

const outOfTurn = (header: FrameHeader, what: string): PotluckError =>
  new PotluckError(
    'PROTOCOL',
    `${FRAME_NAMES[header.type]} frame out of turn: ${what}; the stream is closed.`,
  );
