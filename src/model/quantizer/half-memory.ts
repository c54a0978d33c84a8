import { PotluckError } from '../../errors/errors.ts';
import { type Backend, MOST_EXPERT_TILES, type PlacedTile } from '../../kernels/backend.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import { tileBytes, tileCount, tilesPerExpert } from '../../pack/tile-shape.ts';
import type { HalfTiles } from '../calibrate.ts';
import { type LayerTileKind, tileBatches } from './half-layer.ts';

/** Bytes of the rounded tiles of a half layer and of copies of those whose last panels are rounded together, the most of all layers. */
export function halfMemoryBytes(s: ModelShape): number {
  const bytes = (kind: LayerTileKind) => tileCount(s, kind) * tileBytes(s, kind);
  const copies = (['attention', 'ffn'] as const).flatMap(half =>
    s.layerFeatures.flatMap((_, layer) =>
      tileBatches(s, layer, half).flatMap(({ kind, spans }) =>
        spans.map(span => span.length * tileBytes(s, kind)),
      ),
    ),
  );
  return Math.max(bytes('attention'), bytes('ffn') + bytes('expert')) + Math.max(0, ...copies);
}

export interface TileCopy {
  readonly place: PlacedTile;
  /** In the memory of the model. */
  readonly bytes: Uint8Array;
}

/** The rounded tiles of a half layer in the memory of the model, and behind them copies of some. */
export class HalfMemory implements HalfTiles {
  readonly weights: ArrayBuffer;
  readonly #shape: ModelShape;
  readonly #backend: Backend;
  #placed: { kind: LayerTileKind; index: number; place: PlacedTile }[] = [];
  #end = 0;

  constructor(shape: ModelShape, backend: Backend) {
    this.#shape = shape;
    this.#backend = backend;
    this.weights = backend.allocate(halfMemoryBytes(shape));
  }

  clear(): void {
    this.#placed = [];
    this.#end = 0;
  }

  place(kind: LayerTileKind, index: number, tile: Uint8Array): PlacedTile {
    const place = { offset: this.#end, slot: this.#slot(kind, index) };
    this.#end += tile.length;
    this.#placed.push({ kind, index, place });
    this.write(place, tile);
    return place;
  }

  write(place: PlacedTile, tile: Uint8Array): void {
    new Uint8Array(this.weights, place.offset, tile.length).set(tile);
  }

  /** Copies of placed tiles, which count as those do. */
  copies(kind: LayerTileKind, places: readonly PlacedTile[], tiles: readonly Uint8Array[]): TileCopy[] {
    const size = tileBytes(this.#shape, kind);
    const first = this.weights.byteLength - places.length * size;
    if (first < this.#end) throw new PotluckError('INTERNAL', 'No room for copies of tiles.');
    return places.map(({ slot }, i) => {
      const bytes = new Uint8Array(this.weights, first + i * size, size);
      bytes.set(tiles[i]!);
      return { place: { offset: first + i * size, slot }, bytes };
    });
  }

  *inOrder(): Generator<Uint8Array> {
    for (const { kind, place } of this.#placed)
      yield new Uint8Array(this.weights, place.offset, tileBytes(this.#shape, kind));
  }

  async *parts(): AsyncGenerator<{ op: 'tiles' | 'expert-tiles'; tiles: PlacedTile[] }> {
    const dense = this.#placed.filter(({ kind }) => kind !== 'expert').map(({ place }) => place);
    if (dense.length > 0) yield { op: 'tiles', tiles: dense };
    const experts = this.#placed.filter(({ kind }) => kind === 'expert').map(({ place }) => place);
    for (let first = 0; first < experts.length; first += MOST_EXPERT_TILES)
      yield { op: 'expert-tiles', tiles: experts.slice(first, first + MOST_EXPERT_TILES) };
  }

  close(): void {
    this.#backend.release(this.weights);
  }

  #slot(kind: LayerTileKind, index: number): number {
    if (kind === 'attention') return index;
    return kind === 'expert' ? Math.floor(index / tilesPerExpert(this.#shape)) : 0;
  }
}
