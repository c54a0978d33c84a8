import { freeFrame, OutgoingFrame } from './frame.ts';
import type { PassLimits } from './pass-payload.ts';

/** What a device is in a plan. */
export type StarRole = 'hub' | 'spoke' | 'alone';

type FrameLimits = Pick<PassLimits, 'maxTokens' | 'maxLogitRows' | 'width'>;

/**
 * Memory of the frames of the largest pass, made and written when a plan begins: so it is part of the account of memory from then
 * on, and a long prompt takes no more. That of logits grows to the rows that were ever asked for, mostly one, and the account with it.
 */

/** What a PASS frame has beside the residual, mostly; one with more pages than this gets memory of its own. */
const BATCH_BYTES = 64 << 10;

const tokenBytes = ({ maxTokens, width }: Pick<FrameLimits, 'maxTokens' | 'width'>): number =>
  maxTokens * width * 4;

export interface HubFrames {
  readonly pass: OutgoingFrame;
  /** One is added up while the other may still be going out. */
  readonly sums: readonly [OutgoingFrame, OutgoingFrame];
  /** Where LOGITS payloads arrive, of each spoke. */
  readonly logits: readonly LogitMemory[];
}

export interface SpokeFrames {
  /** Where PASS payloads arrive. */
  readonly pass: Buffer;
  readonly partial: OutgoingFrame;
  readonly logits: LogitMemory;
}

/** Rows that memory for logits has, where `rows` are the most that were asked for. */
const rowsHeld = (rows: number, maxLogitRows: number): number =>
  rows === 0 ? 0 : Math.min(maxLogitRows, 2 ** Math.ceil(Math.log2(rows)));

/** Bytes of the logits in frames, where `rows` are the most that were asked for; `rowBytes`: of one row, of all spokes on a hub. */
export const logitFrameBytes = (rowBytes: number, rows: number, maxLogitRows: number): number =>
  rowBytes * rowsHeld(rows, maxLogitRows);

/** Memory of the logits of one spoke, at either end. */
export class LogitMemory {
  readonly columns: number;
  readonly #maxLogitRows: number;
  #frame = new OutgoingFrame(0);

  /** `columns`: of one row of that spoke. */
  constructor(columns: number, maxLogitRows: number) {
    this.columns = columns;
    this.#maxLogitRows = maxLogitRows;
  }

  /** Bytes of payload that it has now. */
  get bytes(): number {
    return this.#frame.capacity;
  }

  /** A frame with room for `rows` rows, or more: [>= rows, columns] float32. */
  frame(rows: number): OutgoingFrame {
    const fits = this.#frame.capacity >= rows * this.columns * 4;
    const bytes = logitFrameBytes(this.columns * 4, rows, this.#maxLogitRows);
    this.#frame = freeFrame(this.#frame, fits ? this.#frame.capacity : bytes);
    return this.#frame;
  }
}

/** Bytes of the frames of a hub, or of a spoke, without logits; 0 for a device alone. */
export const frameBytes = (limits: Pick<FrameLimits, 'maxTokens' | 'width'>, role: StarRole): number =>
  role === 'alone' ? 0 : BATCH_BYTES + tokenBytes(limits) * (role === 'hub' ? 3 : 2);

/** `columns`: logits of a row of each spoke. */
export function hubFrames(limits: FrameLimits, columns: readonly number[]): HubFrames {
  const bytes = tokenBytes(limits);
  return {
    pass: written(bytes + BATCH_BYTES),
    sums: [written(bytes), written(bytes)],
    logits: columns.map(count => new LogitMemory(count, limits.maxLogitRows)),
  };
}

/** `columns`: logits of a row of this spoke. */
export function spokeFrames(limits: FrameLimits, columns: number): SpokeFrames {
  const bytes = tokenBytes(limits);
  return {
    pass: Buffer.from(new ArrayBuffer(bytes + BATCH_BYTES)).fill(0),
    partial: written(bytes),
    logits: new LogitMemory(columns, limits.maxLogitRows),
  };
}

/** The system gives memory only for what is written. */
function written(payloadBytes: number): OutgoingFrame {
  const frame = new OutgoingFrame(payloadBytes);
  frame.ints.fill(0);
  return frame;
}
