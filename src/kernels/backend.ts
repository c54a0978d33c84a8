import type { ModelShape } from '../pack/manifest.ts';
import type { LogitMath } from './logit-math.ts';

/**
 * What computes. Two implementations: the native addon (exact: the same bits on every processor and in every plan) and
 * onnxruntime (close, not exact). A pass is a list of steps over buffers that the backend owns.
 */

/** Most tiles of one expert-tiles step. */
export const MOST_EXPERT_TILES = 32;
/** Most threads of one backend, kMostThreads of the addon. */
export const MOST_THREADS = 256;

export type Half = 'attention' | 'ffn';

/** A tile that is in memory now. */
export interface PlacedTile {
  /** Byte offset in the weights memory. */
  readonly offset: number;
  /** attention: place among the attention tiles of this device (selects its part of a KV page). ffn: unused, 0.
   *  expert: number of the expert. head: first vocabulary row of the tile. */
  readonly slot: number;
}

export type Step =
  /** Normalize and quantize the residual [tokens, width] for a half layer; clear `partial`; route tokens to experts. */
  | { readonly op: 'begin'; readonly layer: number; readonly half: Half }
  /** Add the outputs of tiles, as fixed point, to `partial`. */
  | {
      readonly op: 'tiles';
      readonly layer: number;
      readonly half: Half;
      readonly tiles: readonly PlacedTile[];
    }
  /** Adds the outputs of expert tiles for the tokens that `begin` routed to their experts; at most MOST_EXPERT_TILES. */
  | { readonly op: 'expert-tiles'; readonly layer: number; readonly tiles: readonly PlacedTile[] }
  /** Adds sums of squares of the queries and keys of tiles to `partial`, where all heads are normed as one. */
  | { readonly op: 'squares'; readonly layer: number; readonly tiles: readonly PlacedTile[] }
  /** Makes norms of those sums (by now over all devices) and clears `partial`. */
  | { readonly op: 'square-norms'; readonly layer: number }
  /** Add `partial` (by now the sum over all devices) to the residual. */
  | { readonly op: 'end'; readonly layer: number; readonly half: Half }
  /** Final norm of the rows whose logits are wanted. */
  | { readonly op: 'head-begin' }
  /** Logits of these head tiles: logits[row, slot ...]. */
  | { readonly op: 'head-tiles'; readonly tiles: readonly PlacedTile[] };

/** Tokens of one pass. */
export interface Batch {
  /** Position of each token in its sequence; [tokens]. */
  readonly positions: Int32Array;
  /** Index into `pageTables` of each token's sequence; [tokens]. Tokens of a sequence come in rising positions. */
  readonly sequences: Int32Array;
  /** KV pages of each sequence, by position / PAGE_POSITIONS. */
  readonly pageTables: readonly Int32Array[];
  /** Tokens whose logits are wanted, rising; [logitRows]. */
  readonly logitRows: Int32Array;
  /** Positions of the sequence that count for the token's rotation (see LongRotation), its own included; [tokens]. */
  readonly lengths: Int32Array;
}

export interface PassBuffers {
  readonly maxTokens: number;
  readonly maxLogitRows: number;
  /** Residual stream; [maxTokens, width] float32. The hub writes embedded tokens here. */
  readonly residual: Float32Array;
  /** Sum of tile outputs of the half layer, fixed point; [maxTokens, width] int32. */
  readonly partial: Int32Array;
  /** [maxLogitRows, paddedVocabulary] float32. */
  readonly logits: Float32Array;
  /** Experts of each token in the layer that began last, likeliest first; [maxTokens, experts of a token] int32. */
  readonly routes: Int32Array;
}

export interface RunStats {
  /** Time inside kernels, in microseconds. */
  readonly computeMicroseconds: number;
  /** Tile outputs that did not fit their fixed-point range, or were not numbers. */
  readonly saturated: number;
}

export interface BackendModel {
  readonly pass: PassBuffers;
  /** Bytes of scratch memory and pass buffers, all of it in use from the start; but for `logits`, which take memory as rows are asked for. */
  readonly activationBytes: number;
  /** Sets the tokens of the pass. Throws RangeError where a page, position or row is out of range. */
  setBatch(batch: Batch): void;
  /** Takes the constants anew (they are copied); calibration changes scales between runs. */
  setConstants(constants: ArrayBuffer): void;
  /**
   * Runs steps in order. One run at a time. `eager`: another run is likely to follow soon that waits for nothing but this
   * device, so threads may stay awake for a moment. Rejects with KERNEL_FAILED.
   */
  run(steps: readonly Step[], eager?: boolean): Promise<RunStats>;
  close(): void;
}

export interface ModelMemory {
  readonly shape: ModelShape;
  /** Constants blob; see constantsFloats. Copied: see setConstants. */
  readonly constants: ArrayBuffer;
  /** Memory that placed tiles lie in. */
  readonly weights: ArrayBuffer;
  /** Attention tiles of this device, all layers together. */
  readonly attentionTiles: number;
  /** KV pages to reserve; memory is taken from the system as they are first written. */
  readonly kvPages: number;
  readonly maxTokens: number;
  readonly maxLogitRows: number;
}

export interface Backend {
  /** Kernel name, for example 'avx512-vnni', 'reference', 'onnxruntime'. */
  readonly name: string;
  readonly exact: boolean;
  readonly threads: number;
  readonly logitMath: LogitMath;
  /** Memory outside the V8 heap, 4096-byte aligned, zeroed. */
  allocate(bytes: number): ArrayBuffer;
  /** Gives a part of memory of `allocate` back to the system: whole pages of it are zero, and take no memory, until they
   *  are written again. */
  discard(memory: ArrayBuffer, offset: number, bytes: number): void;
  /** Gives memory of `allocate` back; the buffer is detached. */
  release(memory: ArrayBuffer): void;
  openModel(memory: ModelMemory): BackendModel;
  close(): void;
}
