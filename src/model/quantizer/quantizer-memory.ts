import { PotluckError } from '../../errors/errors.ts';
import { triangleBytes } from '../../kernels/addon.ts';
import type { Half } from '../../kernels/backend.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import { totalTiles } from '../../pack/read-manifest.ts';
import { constantsFloats, GROUP, roundUp, tileBytes } from '../../pack/tile-shape.ts';
import { STRIPE_FLOATS } from '../column-stripes.ts';
import { outputColumns, sourceShape, type TileBatch, tileBatches } from './half-layer.ts';
import { halfMemoryBytes } from './half-memory.ts';
import { WINDOW_TOKENS } from './quantize-layers.ts';
import { ROUNDED_ROWS } from './rounder.ts';

/** The process without a model: Node, the program, the tokenizer, threads. */
const PROCESS_BYTES = 250 * 2 ** 20;
/** Of a tile's entry in the manifest and the journal. */
const ENTRY_BYTES = 1024;
/** What lies about until it is collected, as a part of what the script holds. */
const GARBAGE = 0.5;

/** The most bytes of the process while it rounds a model by inputs, about; it depends on widths, and hardly on the number of layers. */
export function quantizerBytes(s: ModelShape): number {
  const batches = s.layerFeatures.flatMap((_, layer) =>
    (['attention', 'ffn'] as const).flatMap((half: Half) => tileBatches(s, layer, half)),
  );
  const columns = roundUp(s.width, GROUP);
  const spans = batches.flatMap(({ kind, spans }) => spans.map(span => span.length * outputColumns(s, kind)));
  const widest = Math.max(0, ...spans);
  const rounding = triangleBytes(columns) + triangleBytes(widest) + rowsBytes(columns) + rowsBytes(widest);
  // Residual, partial sums, and the scratch of the kernels.
  const model = WINDOW_TOKENS * columns * 4 * 6;
  const stripe = Math.min(STRIPE_FLOATS, s.width * widestMatrix(s)) * 4;
  const script = stripe + Math.max(0, ...batches.map(batch => batchBytes(s, batch)));
  const known = 3 * constantsFloats(s) * 4 + totalTiles(s) * ENTRY_BYTES;
  return PROCESS_BYTES + rounding + model + halfMemoryBytes(s) + (1 + GARBAGE) * script + known;
}

/** Throws MEMORY_TOO_SMALL where a model cannot be rounded by inputs in `bytes`. */
export function checkQuantizerMemory(s: ModelShape, bytes: number): void {
  const needed = quantizerBytes(s);
  if (needed <= bytes) return;
  const mebibytes = (n: number) => `${Math.ceil(n / 2 ** 20)} MiB`;
  throw new PotluckError(
    'MEMORY_TOO_SMALL',
    `Rounding this model by inputs takes about ${mebibytes(needed)} of memory, and ${mebibytes(bytes)} may be used. ` +
      'End other programs, give more with --memory, or pack with --rounding nearest.',
  );
}

/** Rows that are rounded in one call, their nibbles, a window of inputs, and that window in double precision. */
const rowsBytes = (columns: number): number => columns * (ROUNDED_ROWS * 5 + WINDOW_TOKENS * 4 + 256 * 8);

/** Tiles of a batch, as they are in the checkpoint and rounded. */
const batchBytes = (s: ModelShape, { kind, tiles }: TileBatch): number =>
  tiles.length * (tileBytes(sourceShape(s), kind) + tileBytes(s, kind));

/** Columns of the widest matrix that is cut by columns. */
const widestMatrix = (s: ModelShape): number =>
  Math.max(s.queryHeads * s.headDim, s.ffnWidth, s.experts?.sharedWidth ?? 0, s.experts?.width ?? 0);
