/**
 * What a pack says of itself. A pack is a folder: manifest.json, tiles.bin (constants, embedding and tiles, each
 * 4096-byte aligned), and the tokenizer's files. Byte layouts: docs/pack-format.md.
 */

/** Version of the pack format; a reader takes no other. */
export const PACK_VERSION = 6;

/** The file of a pack that has the CRC-32C of each embedding row, checked at every read: [vocabulary] uint32, little-endian. */
export const EMBEDDING_CHECKS_FILE = 'embedding.crc32c';
/** Bytes of it for one row. */
export const EMBEDDING_CHECK_BYTES = 4;

/** Weight format of the tiles. */
export type WeightFormat = 'w4' | 'bf16';

/** How matrices are cut into tiles; fixed when the pack is written, so that every plan adds the same numbers. */
export interface Tiling {
  /** Attention tiles of one KV head: 1, or more where its query heads are split (k and v are then stored in each). */
  readonly partsPerKvHead: number;
  /** Intermediate columns of one FFN tile; a multiple of 32. */
  readonly ffnColumns: number;
  /** Vocabulary rows of one head tile; a multiple of 16. */
  readonly headRows: number;
}

/** How queries and keys are turned by their positions. */
export interface Rotation {
  /**
   * Radians per position of each rotated pair (i, i + n), n being their number; [n]. Channels from 2n on are not rotated.
   * Scaling by a factor is folded in.
   */
  readonly frequencies: readonly number[];
  /** Cosines and sines are multiplied by this. */
  readonly magnitude: number;
  /** What holds for sequences of more than `over` positions, or null where nothing changes. */
  readonly beyond: LongRotation | null;
}

export type LongRotation =
  /** Other frequencies; [n]. */
  | { readonly type: 'frequencies'; readonly over: number; readonly frequencies: readonly number[] }
  /** The base grows with the length of the sequence: theta * (factor * length / over - (factor - 1)) ^ (2n / (2n - 2)). */
  | { readonly type: 'dynamic'; readonly over: number; readonly theta: number; readonly factor: number };

/** What may differ from layer to layer. */
export interface LayerFeatures {
  /** Keys that a token sees, its own included; 0: all. */
  readonly window: number;
  /** Place in `rotations`; -1: queries and keys are not rotated. */
  readonly rotation: number;
  /** Whether the FFN is a mixture of experts. */
  readonly experts: boolean;
}

/** The FFN of layers with experts: a router picks some for each token, and their weighted outputs are added. */
export interface Experts {
  readonly count: number;
  /** Experts of one token. */
  readonly perToken: number;
  /** Intermediate columns of one expert. */
  readonly width: number;
  /** Whether the weights of a token's experts are made to add up to 1. */
  readonly normalized: boolean;
  /** Intermediate columns of the expert that every token goes through as well; 0: there is none. */
  readonly sharedWidth: number;
}

/** The numbers that define the computation; everything that a kernel needs to know. */
export interface ModelShape {
  readonly weights: WeightFormat;
  /** Channels of the residual stream. */
  readonly width: number;
  readonly layers: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Intermediate columns of the FFN. */
  readonly ffnWidth: number;
  readonly vocabulary: number;
  /** Most positions of a sequence. */
  readonly context: number;
  readonly normEpsilon: number;
  /**
   * input: the residual is normed before each half layer. output: the sum over all tiles of a half layer is normed before it
   * is added to the residual. queryKey: each head's queries and keys are normed, or all query heads as one and all key
   * heads as one ('whole').
   */
  readonly norms: { readonly input: boolean; readonly output: boolean; readonly queryKey: QueryKeyNorm };
  readonly biases: {
    readonly queryKeyValue: boolean;
    readonly output: boolean;
    readonly gateUp: boolean;
    readonly down: boolean;
  };
  readonly activation: Activation;
  /** Multiplies every attention score. */
  readonly scoreScale: number;
  /** Scores, and logits, become cap * tanh(x / cap); 0: they stay. */
  readonly scoreCap: number;
  readonly logitCap: number;
  /** Multiplies embedded tokens. */
  readonly embeddingScale: number;
  /** Multiplies what a half layer adds to the residual. */
  readonly residualScale: number;
  readonly rotations: readonly Rotation[];
  /** [layers] */
  readonly layerFeatures: readonly LayerFeatures[];
  readonly experts: Experts | null;
  readonly tiling: Tiling;
  /** Activations and weights of w4 panels are rotated by a Hadamard matrix in groups of this many channels: 0 (not) or 32. */
  readonly hadamard: 0 | 32;
  /** Bits of a stored key or value channel: 4 or 8 (integers with scales), 16 (IEEE half) or 32 (float32). */
  readonly kvBits: 4 | 8 | 16 | 32;
}

export type QueryKeyNorm = 'none' | 'head' | 'whole';
/** gelu-tanh: GELU by its tanh approximation. */
export type Activation = 'silu' | 'gelu-tanh';

/** ffn: of a dense layer, or of the expert that all tokens share. expert: of one of the experts of a layer. */
export type TileKind = 'attention' | 'ffn' | 'expert' | 'head';

export interface TileEntry {
  readonly kind: TileKind;
  /** Layer, 0 for head tiles. */
  readonly layer: number;
  /** Place among the tiles of its kind in the layer (or of the head). Expert e has e * n to e * n + n - 1. */
  readonly index: number;
  /** Byte offset in tiles.bin; a multiple of 4096. */
  readonly offset: number;
  /** Length in bytes; a multiple of 4096. */
  readonly bytes: number;
  /** Address of the content: SHA-256, hex. */
  readonly sha256: string;
  /** CRC-32C of the same bytes, checked at every read. */
  readonly crc32c: number;
}

export interface BlobEntry {
  readonly offset: number;
  readonly bytes: number;
  readonly sha256: string;
  readonly crc32c: number;
}

export interface FileEntry {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

export interface Manifest {
  readonly format: 'potluck-pack';
  readonly version: typeof PACK_VERSION;
  readonly name: string;
  readonly shape: ModelShape;
  /** Ids that end an answer. */
  readonly stopTokens: readonly number[];
  /** Id put before every text that does not bring its own, or null. */
  readonly beginToken: number | null;
  /** Norm weights, fixed-point scales and more: float32, see `layerConstants` in src/pack/tile-shape.ts. */
  readonly constants: BlobEntry;
  /** Embedding rows, one after another: `bf16` rows, or int8 with one float32 scale before each row. */
  readonly embedding: BlobEntry & { readonly format: 'bf16' | 'int8'; readonly rowBytes: number };
  /** In execution order: layer 0 attention, layer 0 FFN, layer 1 ..., head. */
  readonly tiles: readonly TileEntry[];
  /** Further files of the pack: EMBEDDING_CHECKS_FILE, tokenizer.json, vocabulary.bin ... */
  readonly files: readonly FileEntry[];
  /** Where the weights come from and what was done to them, for people. */
  readonly origin: Readonly<Record<string, string | number>>;
}
