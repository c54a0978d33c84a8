import { logitFrameBytes } from '../allreduce/frame-memory.ts';
import { passLimits } from '../engine/device-tiles.ts';
import { PotluckError } from '../errors/errors.ts';
import { MOST_EXPERT_TILES } from '../kernels/backend.ts';
import type { ModelShape } from '../pack/manifest.ts';
import {
  constantsFloats,
  kvPageBytes,
  kvSlackBytes,
  PAGE_POSITIONS,
  paddedVocabulary,
  tileCount,
  tileQueryHeads,
} from '../pack/tile-shape.ts';

/** Bytes of one plan on this device, by purpose. Their sum stays within `--memory`. */
export interface MemoryAccount {
  /** Node, libraries, code, heap, stacks and links: the most that was counted lately. */
  readonly process: number;
  /** What the process may take more before the account is made anew. */
  readonly reserve: number;
  readonly constants: number;
  readonly activations: number;
  /** Of a pass, for the rows that were ever asked for, and at least one. */
  readonly logits: number;
  /** Frames of the links to the other devices of the plan, with logits for as many rows. */
  readonly frames: number;
  /** Keys and values: the pages that were ever written, and at least LEAST_POSITIONS. */
  readonly kv: number;
  /** What is left for tiles, pinned and ring; without a budget, all of them. */
  readonly weights: number;
}

export interface AccountInput {
  readonly budget: number | null;
  /** Most bytes for tiles, whatever the budget leaves; null: no further limit. */
  readonly windowBytes: number | null;
  readonly shape: ModelShape;
  readonly attentionTiles: number;
  /** Bytes of all tiles of this device, and the least that a window for them takes. */
  readonly tileBytes: number;
  readonly leastWindow: number;
  /** Of the backend, as it says; null before it opened the model: then they are computed. */
  readonly activationBytes: number | null;
  /** Of the frames that are made when the plan begins. */
  readonly frameBytes: number;
  /** Of a row of logits that goes over the links, and the most rows that were asked for so far. */
  readonly logitRowBytes: number;
  readonly logitRowsUsed: number;
  /** What the process takes beside this account. */
  readonly processBytes: number;
  readonly reserveBytes: number;
  /** What else the process may take later; tiles make room then. Null where the plan is open: it was made with room for that. */
  readonly laterBytes: number | null;
  /** KV pages written so far. */
  readonly kvPagesUsed: number;
}

/** Sequences of full length that the KV cache holds where memory allows. */
const FULL_SEQUENCES = 4;
/** Positions that it holds at the least. */
const LEAST_POSITIONS = 256;
const MOST_KV_BYTES = 2 ** 30;
const HUGE_PAGE = 2 ** 21;

export interface Accounted {
  readonly account: MemoryAccount;
  /** Most KV pages: so many that the least window, the logits of the largest pass, and what comes later still fit beside them. */
  readonly mostKvPages: number;
  /** What tiles have left when that has come. */
  readonly leastWeights: number;
}

/**
 * Divides the budget: process and buffers first, then the KV pages in use, the rest for tiles. As pages are written,
 * tiles make room for them. Throws MEMORY_TOO_SMALL.
 */
export function accountMemory(input: AccountInput): Accounted {
  const { shape, budget, leastWindow, logitRowBytes } = input;
  const { maxLogitRows } = passLimits(shape);
  const rows = Math.max(1, input.logitRowsUsed);
  const logits = passLogitBytes(shape, rows);
  const frameLogits = logitFrameBytes(logitRowBytes, rows, maxLogitRows);
  const later =
    input.laterBytes === null ? 0 : input.laterBytes + passLogitBytes(shape, maxLogitRows) - logits;
  const moreFrames = logitFrameBytes(logitRowBytes, maxLogitRows, maxLogitRows) - frameLogits;
  const fixed = {
    process: input.processBytes,
    reserve: input.reserveBytes,
    constants: constantsFloats(shape) * 4,
    activations: input.activationBytes ?? activationBytes(shape),
    logits,
    frames: input.frameBytes + frameLogits,
  };
  const slack = kvSlackBytes(input.attentionTiles);
  const fixedBytes = Object.values(fixed).reduce((sum, bytes) => sum + bytes, slack);
  const pageBytes = Math.max(1, kvPageBytes(shape, input.attentionTiles));
  const contextPages = Math.ceil(shape.context / PAGE_POSITIONS);
  const leastPages = Math.min(contextPages, LEAST_POSITIONS / PAGE_POSITIONS);
  const least = fixedBytes + later + leastPages * pageBytes + leastWindow;
  const process = fixed.process + fixed.reserve;
  if (budget !== null && budget < least) throw tooSmall(budget, least, process + (input.laterBytes ?? 0));
  const wanted = Math.min(
    contextPages * FULL_SEQUENCES,
    Math.max(contextPages, Math.floor(MOST_KV_BYTES / pageBytes)),
  );
  const left = budget === null ? Infinity : budget - fixedBytes;
  const mostKvPages = Math.max(
    leastPages,
    Math.min(wanted, Math.floor((left - leastWindow - later - moreFrames) / pageBytes)),
  );
  // Pages that were written stay, also where there would be fewer now.
  const kv = Math.max(leastPages, input.kvPagesUsed) * pageBytes;
  if (left - kv < leastWindow) throw tooSmall(budget ?? 0, fixedBytes + kv + leastWindow, process);
  const weightsOf = (bytes: number): number =>
    wholePages(Math.min(input.tileBytes, bytes, input.windowBytes ?? Infinity));
  return {
    account: { ...fixed, kv: kv + slack, weights: weightsOf(left - kv) },
    mostKvPages,
    leastWeights: weightsOf(Math.max(leastWindow, left - kv - later - moreFrames)),
  };
}

function tooSmall(budget: number, least: number, process: number): PotluckError {
  return new PotluckError(
    'MEMORY_TOO_SMALL',
    `--memory ${mebibytes(budget)} is too small: this model takes at least ${mebibytes(least)} here ` +
      `(${mebibytes(process)} for the process, ${mebibytes(least - process)} for buffers, keys and values, and two tiles).`,
  );
}

/** What of `bytes` is whole pages of memory. */
export const wholePages = (bytes: number): number => Math.floor(bytes / 4096) * 4096;

/** The logits of a pass take memory when they are written, in huge pages at the most; `rows`: the most that were asked for. */
export function passLogitBytes(shape: ModelShape, rows: number): number {
  const rowBytes = paddedVocabulary(shape) * 4;
  const written = Math.ceil((rows * rowBytes) / HUGE_PAGE) * HUGE_PAGE;
  return Math.min(written, passLimits(shape).maxLogitRows * rowBytes);
}

/** Residual, partial sums and normalized tokens of a pass, and the scratch of the kernels: close to what they take. */
function activationBytes(shape: ModelShape): number {
  const { maxTokens } = passLimits(shape);
  const heads = tileCount(shape, 'attention') * (2 * tileQueryHeads(shape) + 2) * shape.headDim * 4;
  const tiles = Math.max(tileCount(shape, 'ffn'), Math.min(MOST_EXPERT_TILES, tileCount(shape, 'expert')));
  const hidden = tiles * shape.tiling.ffnColumns * 1.25;
  const perToken = shape.width * 9.25 + heads * 1.16 + hidden;
  return Math.ceil(maxTokens * perToken);
}

export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
