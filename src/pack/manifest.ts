/**
 * What a pack says of itself. A pack is a folder: manifest.json, tiles.bin (constants, embedding and tiles, each
 * 4096-byte aligned), and the tokenizer's files. Byte layouts: docs/pack-format.md.
 */

/** Version of the pack format; a reader takes no other. */
export const PACK_VERSION = 2;

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
  /** Radians per position of each rotated pair (i, i + headDim/2); [headDim / 2], rope scaling folded in. */
  readonly ropeFrequencies: readonly number[];
  readonly tiling: Tiling;
}

export type TileKind = 'attention' | 'ffn' | 'head';

export interface TileEntry {
  readonly kind: TileKind;
  /** Layer, 0 for head tiles. */
  readonly layer: number;
  /** Place among the tiles of its half layer (or of the head). */
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
  /** Norm weights and fixed-point scales: float32, see `constantsLayout` in src/pack/tile-shape.ts. */
  readonly constants: BlobEntry;
  /** Embedding rows, one after another: `bf16` rows, or int8 with one float32 scale before each row. */
  readonly embedding: BlobEntry & { readonly format: 'bf16' | 'int8'; readonly rowBytes: number };
  /** In execution order: layer 0 attention, layer 0 FFN, layer 1 ..., head. */
  readonly tiles: readonly TileEntry[];
  /** Further files of the pack: tokenizer.json, tokenizer_config.json. */
  readonly files: readonly FileEntry[];
  /** Where the weights come from and what was done to them, for people. */
  readonly origin: Readonly<Record<string, string | number>>;
}
