import { PotluckError } from '../errors/errors.ts';
import type { Batch } from '../kernels/backend.ts';
import { PAGE_POSITIONS } from '../pack/tile-shape.ts';
import type { OutgoingFrame } from './frame.ts';

/**
 * Payload of a PASS frame, in 4-byte words: tokens T, sequences S, logit rows R, width W; positions [T]; sequence of
 * each token [T]; length that counts for its rotation [T]; pages of each sequence [S]; page ids, one sequence after another; logit rows [R]; residual [T, W] float32.
 */

const PRELUDE_WORDS = 4;

/** What a pass may ask of this device. */
export interface PassLimits {
  readonly width: number;
  readonly maxTokens: number;
  readonly maxLogitRows: number;
  /** Most positions of a sequence. */
  readonly context: number;
  /** KV pages that were reserved. */
  readonly kvPages: number;
}

const mostPages = (limits: PassLimits): number =>
  Math.min(limits.kvPages, Math.ceil(limits.context / PAGE_POSITIONS));

/** Most payload bytes of a PASS frame. */
export const mostPassBytes = (limits: PassLimits): number =>
  4 *
  (PRELUDE_WORDS +
    limits.maxTokens * (4 + mostPages(limits)) +
    limits.maxLogitRows +
    limits.maxTokens * limits.width);

/** Payload bytes of the PASS frame of `batch`. */
export function passBytes(batch: Batch, width: number): number {
  const tokens = batch.positions.length;
  let words = PRELUDE_WORDS + tokens * (3 + width) + batch.pageTables.length + batch.logitRows.length;
  for (const pages of batch.pageTables) words += pages.length;
  return 4 * words;
}

/** Writes the payload into a frame of at least `passBytes`. `residual`: [>= tokens * width] float32. */
export function encodePass(frame: OutgoingFrame, batch: Batch, residual: Float32Array, width: number): void {
  const { ints } = frame;
  const tokens = batch.positions.length;
  ints[0] = tokens;
  ints[1] = batch.pageTables.length;
  ints[2] = batch.logitRows.length;
  ints[3] = width;
  let at = PRELUDE_WORDS;
  const put = (words: Int32Array): void => {
    ints.set(words, at);
    at += words.length;
  };
  put(batch.positions);
  put(batch.sequences);
  put(batch.lengths);
  for (const pages of batch.pageTables) ints[at++] = pages.length;
  for (const pages of batch.pageTables) put(pages);
  put(batch.logitRows);
  frame.floats.set(residual.subarray(0, tokens * width), at);
}

export interface DecodedPass {
  readonly batch: Batch;
  /** [tokens, width] float32 */
  readonly residual: Float32Array;
}

/**
 * Reads a payload that lies 4-byte aligned; batch and residual are views of it. Throws PROTOCOL where a count, place,
 * order or number is not what a pass may have.
 */
export function decodePass(payload: Uint8Array, limits: PassLimits): DecodedPass {
  const words = new Int32Array(payload.buffer, payload.byteOffset, payload.byteLength >> 2);
  if (words.length < PRELUDE_WORDS) throw invalid('is too short');
  const tokens = words[0]!;
  const sequences = words[1]!;
  const rows = words[2]!;
  const width = words[3]!;
  requireRange('tokens', tokens, 1, limits.maxTokens);
  requireRange('sequences', sequences, 1, tokens);
  requireRange('logit rows', rows, 0, Math.min(tokens, limits.maxLogitRows));
  requireRange('width', width, limits.width, limits.width);
  const fixedWords = PRELUDE_WORDS + tokens * (3 + width) + sequences + rows;
  if (words.length < fixedWords) throw invalid('is shorter than its counts say');
  let at = PRELUDE_WORDS;
  const take = (count: number): Int32Array => {
    at += count;
    return words.subarray(at - count, at);
  };
  const positions = take(tokens);
  const sequenceOf = take(tokens);
  const lengths = take(tokens);
  const pageCounts = take(sequences);
  let pages = 0;
  for (const count of pageCounts) {
    requireRange('pages of a sequence', count, 0, mostPages(limits));
    pages += count;
  }
  if (words.length !== fixedWords + pages) throw invalid('is not as long as its counts say');
  const pageTables = Array.from(pageCounts, count => take(count));
  const batch: Batch = { positions, sequences: sequenceOf, lengths, pageTables, logitRows: take(rows) };
  const residual = new Float32Array(payload.buffer, payload.byteOffset + at * 4, tokens * width);
  checkBatch(batch, limits);
  if (!isFinite32(take(tokens * width))) throw invalid('has a residual that is not finite');
  return { batch, residual };
}

function checkBatch(batch: Batch, limits: PassLimits): void {
  const { positions, sequences, lengths, pageTables, logitRows } = batch;
  for (const pages of pageTables) for (const page of pages) requireRange('page', page, 0, limits.kvPages - 1);
  const last = new Int32Array(pageTables.length).fill(-1);
  for (let t = 0; t < positions.length; t++) {
    const sequence = sequences[t]!;
    const position = positions[t]!;
    requireRange('sequence of a token', sequence, 0, pageTables.length - 1);
    requireRange('position', position, last[sequence]! + 1, limits.context - 1);
    requireRange('length', lengths[t]!, position + 1, limits.context);
    if (position >= pageTables[sequence]!.length * PAGE_POSITIONS)
      throw invalid(`has position ${position} in a sequence of ${pageTables[sequence]!.length} pages`);
    last[sequence] = position;
  }
  let row = -1;
  for (const next of logitRows) {
    requireRange('logit row', next, row + 1, positions.length - 1);
    row = next;
  }
}

/** Bits of an exponent in float32: where all are set, it is infinite or no number. */
const EXPONENT = 0x7f800000;

/** Whether all float32 of these bits are finite: 3 ms for 512 tokens of 4096, a twentieth of their way at 1 Gbit/s. */
function isFinite32(bits: Int32Array): boolean {
  for (let i = 0; i < bits.length; i++) if ((bits[i]! & EXPONENT) === EXPONENT) return false;
  return true;
}

function requireRange(what: string, value: number, low: number, high: number): void {
  if (value < low || value > high) throw invalid(`has ${what} ${value}, which is not from ${low} to ${high}`);
}

const invalid = (what: string): PotluckError =>
  new PotluckError(
    'PROTOCOL',
    `A pass from the hub ${what}. Run the same version of Potluck on every device.`,
  );
