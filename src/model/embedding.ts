import { LRUCache } from 'lru-cache';
import { PotluckError } from '../errors/errors.ts';
import type { Manifest, ModelShape } from '../pack/manifest.ts';
import { bf16ToFloat } from '../pack/number-formats.ts';

/** Fills `target` from byte `offset` of tiles.bin. */
export type ReadAt = (offset: number, target: Uint8Array) => Promise<void>;

/** Rows read at the same time. */
const READS = 8;

export interface EmbeddingOptions {
  readonly manifest: { readonly shape: Pick<ModelShape, 'width' | 'vocabulary' | 'embeddingScale'> } & {
    readonly embedding: Pick<Manifest['embedding'], 'offset' | 'format' | 'rowBytes'>;
  };
  readonly readAt: ReadAt;
  /** The same at once, where that needs no waiting for the disk; false where it would. */
  readonly readCached?: (offset: number, target: Uint8Array) => boolean;
  /** Most bytes of rows that are kept, as they are stored. */
  readonly cacheBytes: number;
}

/** Embedding rows, read one by one from disk; the last used ones are kept. */
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
   * id is not in the vocabulary, before anything is read; with DISK_READ; with TILE_CORRUPT where a row is no numbers.
   */
  async embed(ids: readonly number[], target: Float32Array): Promise<void> {
    const { width, vocabulary } = this.#options.manifest.shape;
    for (const id of ids)
      if (!Number.isInteger(id) || id < 0 || id >= vocabulary)
        throw new PotluckError('BAD_REQUEST', `Token ${id} is not in the vocabulary of ${vocabulary}.`);
    if (ids.length * width > target.length)
      throw new PotluckError('INTERNAL', `${ids.length} embedding rows do not fit ${target.length} numbers.`);
    const places = new Map<number, number[]>();
    ids.forEach((id, place) => {
      const of = places.get(id);
      if (of) of.push(place);
      else places.set(id, [place]);
    });
    const left = places.entries();
    const worker = async () => {
      for (const [id, [first, ...others]] of left) {
        const row = target.subarray(first! * width, (first! + 1) * width);
        this.#decode(id, await this.#stored(id), row);
        for (const place of others) target.set(row, place * width);
      }
    };
    await Promise.all(Array.from({ length: Math.min(READS, places.size) }, worker));
  }

  async #stored(id: number): Promise<Uint8Array> {
    const kept = this.#rows?.get(id);
    if (kept) return kept;
    const { offset, rowBytes } = this.#options.manifest.embedding;
    const bytes = new Uint8Array(rowBytes);
    const at = offset + id * rowBytes;
    // Waking a thread for each row would take longer than the row.
    if (this.#options.readCached?.(at, bytes) !== true) await this.#options.readAt(at, bytes);
    this.#rows?.set(id, bytes);
    return bytes;
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
