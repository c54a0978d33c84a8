import { readFileSync } from 'node:fs';
import { passLimits } from '../engine/device-tiles.ts';
import { PotluckError } from '../errors/errors.ts';
import { MOST_EXPERT_TILES } from '../kernels/backend.ts';
import type { ModelShape } from '../pack/manifest.ts';
import {
  constantsFloats,
  kvPageBytes,
  PAGE_POSITIONS,
  paddedVocabulary,
  tileCount,
} from '../pack/tile-shape.ts';

/** Bytes of one plan on this device, by purpose. Their sum stays within `--memory`. */
export interface MemoryAccount {
  /** Node, libraries and code, as counted when the plan began, and room for the heap to grow. */
  readonly process: number;
  readonly constants: number;
  readonly activations: number;
  readonly kv: number;
  /** What is left for tiles; without a budget, all of them. */
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
  /** What the process takes beside this account. */
  readonly processBytes: number;
}

/** Room that the heap, sockets and tile transfers may still take after the start. */
const GROWTH_BYTES = 40 << 20;
/** Room they may still take when a later plan begins. */
const LATE_GROWTH_BYTES = 8 << 20;
/** Sequences of full length that the KV cache holds where memory allows. */
const FULL_SEQUENCES = 4;
/** Positions that it holds at the least. */
const LEAST_POSITIONS = 256;
const MOST_KV_BYTES = 2 ** 30;

/** Divides the budget: process and buffers first, then KV pages, the rest for tiles. Throws MEMORY_TOO_SMALL. */
export function accountMemory(input: AccountInput): { account: MemoryAccount; kvPages: number } {
  const { shape, budget, leastWindow } = input;
  const fixed = {
    process: input.processBytes,
    constants: constantsFloats(shape) * 4,
    activations: activationBytes(shape),
  };
  const fixedBytes = fixed.process + fixed.constants + fixed.activations;
  const pageBytes = Math.max(1, kvPageBytes(shape, input.attentionTiles));
  const contextPages = Math.ceil(shape.context / PAGE_POSITIONS);
  const leastPages = Math.min(contextPages, LEAST_POSITIONS / PAGE_POSITIONS);
  const least = fixedBytes + leastPages * pageBytes + leastWindow;
  if (budget !== null && budget < least)
    throw new PotluckError(
      'MEMORY_TOO_SMALL',
      `--memory ${mebibytes(budget)} is too small: this model takes at least ${mebibytes(least)} here ` +
        `(${mebibytes(fixed.process)} for the process, ${mebibytes(least - fixed.process)} for buffers, keys and values, and two tiles).`,
    );
  const left = budget === null ? Infinity : budget - fixedBytes;
  const wanted = Math.min(
    contextPages * FULL_SEQUENCES,
    Math.max(contextPages, Math.floor(MOST_KV_BYTES / pageBytes)),
  );
  const spare = Math.floor((left - leastWindow) / 4 / pageBytes);
  const kvPages = Math.max(leastPages, Math.min(wanted, spare));
  const kv = kvPages * pageBytes;
  const weights = Math.min(input.tileBytes, left - kv, input.windowBytes ?? Infinity);
  return { account: { ...fixed, kv, weights: Math.floor(weights / 4096) * 4096 }, kvPages };
}

/** What the process takes beside plans: measured once they are no part of it, with room to grow. */
export class ProcessBytes {
  readonly #atStart = processMemory().residentBytes;

  now(): number {
    return Math.max(this.#atStart + GROWTH_BYTES, processMemory().residentBytes + LATE_GROWTH_BYTES);
  }
}

/** Residual, partial sums and normalized tokens of a pass, its logits, and the scratch of the kernels. */
function activationBytes(shape: ModelShape): number {
  const { maxTokens, maxLogitRows } = passLimits(shape);
  const expertColumns = Math.min(MOST_EXPERT_TILES, tileCount(shape, 'expert')) * shape.tiling.ffnColumns;
  const columns = Math.max(shape.ffnWidth, expertColumns);
  const perToken = shape.width * 4 * 4 + (columns + 3 * shape.queryHeads * shape.headDim) * 4;
  return maxTokens * perToken + maxLogitRows * paddedVocabulary(shape) * 4;
}

export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** What the operating system counts for this process: bytes now and at its highest. */
export function processMemory(): { residentBytes: number; highWaterBytes: number } {
  const residentBytes = process.memoryUsage.rss();
  const highest = process.resourceUsage().maxRSS * 1024;
  return { residentBytes, highWaterBytes: Math.max(residentBytes, highest) };
}

/** The budget of `--memory auto`: what the system has free or the memory group allows, less a tenth. */
export function availableMemory(): number {
  const group = process.constrainedMemory();
  const system = systemAvailable();
  const most = group > 0 && group < 2 ** 50 ? Math.min(group, system) : system;
  return Math.floor(most * 0.9);
}

function systemAvailable(): number {
  try {
    const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
    if (line) return Number(line[1]) * 1024;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return process.availableMemory();
}
