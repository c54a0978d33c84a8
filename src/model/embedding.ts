import { LRUCache } from 'lru-cache';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { EMBEDDING_CHECK_BYTES, type Manifest, type ModelShape } from '../pack/manifest.ts';
import { bf16ToFloat } from '../pack/number-formats.ts';

/** Fills `target` from byte `offset` of tiles.bin. */
export type ReadAt = (offset: number, target: Uint8Array) => Promise<void>;

/** Rows read at the same time. */
const READS = 8;

/** What is wrong with the stored bytes of a row, or null. */
export type RowFault = (bytes: Uint8Array) => PotluckError | null;

export interface EmbeddingOptions {
  readonly manifest: { readonly shape: Pick<ModelShape, 'width' | 'vocabulary' | 'embeddingScale'> } & {
    readonly embedding: Pick<Manifest['embedding'], 'offset' | 'format' | 'rowBytes'>;
  };
  readonly readAt: ReadAt;
  /** CRC-32C of each row as it is stored; [vocabulary] uint32, little-endian. */
  readonly checks: Uint8Array;
  readonly crc32c: (bytes: Uint8Array) => number;
  /** Gets a row, as it is stored and without a fault, from elsewhere. Rejects where nobody has it. */
  readonly recover?: (id: number, fault: RowFault) => Promise<Uint8Array>;
  /** `readAt` at once, where that needs no waiting for the disk; false where it would. */
  readonly readCached?: (offset: number, target: Uint8Array) => boolean;
  /** Most bytes of rows that are kept, as they are stored. */
  readonly cacheBytes: number;
}

/** Embedding rows, read one by one from disk, each checked as it comes; the last used ones are kept. */
export class Embedding {
  readonly #options: EmbeddingOptions;
  readonly #rows: LRUCache<number, Uint8Array> | undefined;

  constructor(options: EmbeddingOptions) {
    this.#options = options;
    const { rowBytes } = options.manifest.embedding;
    const most = Math.floor(options.cacheBytes / rowBytes);
    this.#rows = most > 0 ? new LRUCache({ max: most }) : undefined;
  }

  /**
   * Writes the rows of `ids`, times the model's embedding scale, to the start of `target`; [ids.length, width] float32. Rejects with BAD_REQUEST where an
   * id is not in the vocabulary, before anything is read; with DISK_READ; with TILE_CORRUPT where a row is not what the pack has, or is no numbers.
   * Nothing is written to `target` once it has settled.
   */
  async embed(ids: readonly number[], target: Float32Array): Promise<void> {
    const { width, vocabulary } = this.#options.manifest.shape;
    for (const id of ids)
      if (!Number.isInteger(id) || id < 0 || id >= vocabulary)
        throw new PotluckError('BAD_REQUEST', `Token ${id} is not in the vocabulary of ${vocabulary}.`);
    if (ids.length * width > target.length)
      throw new PotluckError('INTERNAL', `${ids.length} embedding rows do not fit ${target.length} numbers.`);
    const row = (place: number): Float32Array => target.subarray(place * width, (place + 1) * width);
    const missing = new Map<number, number[]>();
    for (const [place, id] of ids.entries()) {
      const places = missing.get(id);
      const stored = places ? undefined : this.#atHand(id);
      if (stored) this.#decode(id, stored, row(place));
      else if (places) places.push(place);
      else missing.set(id, [place]);
    }
    if (missing.size === 0) return;
    const left = missing.entries();
    let failed = false;
    const worker = async () => {
      try {
        for (const [id, places] of left) {
          const stored = await this.#read(id);
          if (failed) return;
          for (const place of places) this.#decode(id, stored, row(place));
        }
      } catch (error) {
        failed = true;
        throw error;
      }
    };
    const ends = await Promise.allSettled(Array.from({ length: Math.min(READS, missing.size) }, worker));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  /** The stored row, where that needs no waiting: waking a thread for each row would take longer than the row. */
  #atHand(id: number): Uint8Array | undefined {
    const kept = this.#rows?.get(id);
    const { readCached } = this.#options;
    if (kept || !readCached) return kept;
    const bytes = new Uint8Array(this.#options.manifest.embedding.rowBytes);
    if (!readCached(this.#offset(id), bytes) || this.#check(id, bytes) !== null) return undefined;
    this.#rows?.set(id, bytes);
    return bytes;
  }

  /** From disk; what is read wrong or not at all once more, then from elsewhere. */
  async #read(id: number): Promise<Uint8Array> {
    let bytes: Uint8Array = new Uint8Array(this.#options.manifest.embedding.rowBytes);
    const fault = (await this.#readOnce(id, bytes)) && (await this.#readOnce(id, bytes));
    if (fault !== null) bytes = await this.#recover(id, fault);
    this.#rows?.set(id, bytes);
    return bytes;
  }

  /** What is wrong with row `id` on disk, or null. */
  async #readOnce(id: number, bytes: Uint8Array): Promise<PotluckError | null> {
    try {
      await this.#options.readAt(this.#offset(id), bytes);
    } catch (error) {
      return asPotluckError(error);
    }
    return this.#check(id, bytes);
  }

  async #recover(id: number, fault: PotluckError): Promise<Uint8Array> {
    const { recover } = this.#options;
    if (!recover) throw fault;
    try {
      const bytes = await recover(id, got => this.#check(id, got));
      const wrong = this.#check(id, bytes);
      if (wrong) throw wrong;
      return bytes;
    } catch (error) {
      const why = asPotluckError(error).message;
      throw new PotluckError(fault.code, `${fault.message} It could not be fetched: ${why}`, {
        cause: error,
      });
    }
  }

  #check(id: number, bytes: Uint8Array): PotluckError | null {
    const { checks, crc32c } = this.#options;
    return embeddingFault(id, bytes, checks, crc32c);
  }

  /** Byte of tiles.bin. */
  #offset(id: number): number {
    const { offset, rowBytes } = this.#options.manifest.embedding;
    return offset + id * rowBytes;
  }

  #decode(id: number, stored: Uint8Array, row: Float32Array): void {
    const view = new DataView(stored.buffer, stored.byteOffset);
    let finite = true;
    if (this.#options.manifest.embedding.format === 'bf16') {
      for (let i = 0; i < row.length; i++) {
        row[i] = bf16ToFloat(view.getUint16(2 * i, true));
        finite &&= Number.isFinite(row[i]!);
      }
    } else {
      const scale = view.getFloat32(0, true);
      finite = Number.isFinite(scale);
      for (let i = 0; i < row.length; i++) row[i] = scale * view.getInt8(4 + i);
    }
    const { embeddingScale } = this.#options.manifest.shape;
    if (embeddingScale !== 1) for (let i = 0; i < row.length; i++) row[i]! *= embeddingScale;
    if (!finite)
      throw new PotluckError(
        'TILE_CORRUPT',
        `Embedding row ${id} is not finite numbers: tiles.bin is damaged. Pack the checkpoint again.`,
      );
  }
}

/**
 * What is wrong with the stored bytes of embedding row `id`, or null. `checks`: CRC-32C of each row; [vocabulary] uint32,
 * little-endian.
 */
export function embeddingFault(
  id: number,
  bytes: Uint8Array,
  checks: Uint8Array,
  crc32c: (bytes: Uint8Array) => number,
): PotluckError | null {
  const at = checks.byteOffset + id * EMBEDDING_CHECK_BYTES;
  const expected = new DataView(checks.buffer, at).getUint32(0, true);
  const actual = crc32c(bytes);
  if (actual === expected) return null;
  return new PotluckError(
    'TILE_CORRUPT',
    `Embedding row ${id} (${bytes.length} bytes) is not what the pack has: its CRC-32C is ${actual.toString(16)}, it should be ` +
      `${expected.toString(16)}. Check the disk of tiles.bin; fetch the pack anew or pack the checkpoint again.`,
  );
}
