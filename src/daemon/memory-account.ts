import { readFileSync } from 'node:fs';
import { PotluckError } from '../errors/errors.ts';
import type { ModelShape } from '../pack/manifest.ts';
import { constantsFloats, kvPageBytes, PAGE_POSITIONS, paddedVocabulary } from '../pack/tile-shape.ts';
import { passLimits } from '../engine/device-tiles.ts';

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
  /** Bytes of all tiles of this device. */
  readonly tileBytes: number;
  readonly residentBytes: number;
}

/** Room that the heap, sockets and tile transfers may still take. */
const GROWTH_BYTES = 32 << 20;
/** Sequences of full length that the KV cache holds where memory allows. */
const FULL_SEQUENCES = 4;
const MOST_KV_BYTES = 2 ** 30;

/** Divides the budget: process and buffers first, then KV pages, the rest for tiles. Throws MEMORY_TOO_SMALL. */
export function accountMemory(input: AccountInput): { account: MemoryAccount; kvPages: number } {
  const { shape, budget } = input;
  const fixed = {
    process: input.residentBytes + GROWTH_BYTES,
    constants: constantsFloats(shape) * 4,
    activations: activationBytes(shape),
  };
  const pageBytes = Math.max(1, kvPageBytes(shape, input.attentionTiles));
  const onePage = Math.ceil(shape.context / PAGE_POSITIONS);
  const left = budget === null ? Infinity : budget - fixed.process - fixed.constants - fixed.activations;
  const wanted = Math.min(onePage * FULL_SEQUENCES, Math.max(onePage, Math.floor(MOST_KV_BYTES / pageBytes)));
  const kvPages = Math.max(1, Math.min(wanted, Math.floor(left / 4 / pageBytes)));
  const kv = kvPages * pageBytes;
  const weights = Math.min(input.tileBytes, left - kv, input.windowBytes ?? Infinity);
  if (weights <= 0) {
    const least = fixed.process + fixed.constants + fixed.activations + pageBytes * 16;
    throw new PotluckError(
      'MEMORY_TOO_SMALL',
      `--memory ${mebibytes(budget!)} leaves nothing for weights: the process and its buffers take ${mebibytes(least)}. Give it more.`,
    );
  }
  return { account: { ...fixed, kv, weights: Math.floor(weights / 4096) * 4096 }, kvPages };
}

/** Residual, partial sums and normalized tokens of a pass, its logits, and the scratch of the kernels. */
function activationBytes(shape: ModelShape): number {
  const { maxTokens, maxLogitRows } = passLimits(shape);
  const perToken = shape.width * 4 * 4 + (shape.ffnWidth + 3 * shape.queryHeads * shape.headDim) * 4;
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
