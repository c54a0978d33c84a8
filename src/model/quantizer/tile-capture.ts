import type { ModelShape, TileKind } from '../../pack/manifest.ts';
import { floatToHalf } from '../../pack/number-formats.ts';
import { GROUP, type Panel, tilePanels } from '../../pack/tile-shape.ts';
import { writeRoundedRow } from '../cut-panel.ts';

/** 1 as IEEE half. */
const ONE = floatToHalf(1);

/**
 * A tile adds to the residual stream what its last panel makes of its hidden activations. With the identity in place of that
 * panel it adds the hidden activations themselves: exactly those that the panel sees, whatever the layer is made of. An output
 * holds `width` hidden channels: those of many tiles together, one behind the other, or of a part of one.
 */
export class TileCapture {
  /** The panel that is replaced. */
  readonly panel: Panel;
  readonly #width: number;
  /** The panel's bytes, zero everywhere. */
  readonly #blank: Uint8Array;

  constructor(shape: ModelShape, kind: Exclude<TileKind, 'head'>) {
    this.panel = tilePanels(shape, kind).at(-1)!;
    this.#width = shape.width;
    this.#blank = new Uint8Array(this.panel.bytes);
    const groups = this.panel.paddedColumns / GROUP;
    const zeros = new Uint8Array(this.panel.paddedColumns).fill(8);
    for (let row = 0; row < this.panel.paddedRows; row++)
      writeRoundedRow({ ...this.panel, offset: 0 }, row, zeros, new Uint16Array(groups), this.#blank);
  }

  /** Runs that give the hidden activations of `tiles` tiles. */
  runs(tiles: number): number {
    return Math.ceil((tiles * this.panel.paddedColumns) / this.#width);
  }

  /** The first of `tiles` tiles that run `run` has channels of, and the one behind the last. */
  tilesOf(run: number, tiles: number): [first: number, end: number] {
    const columns = this.panel.paddedColumns;
    const end = Math.ceil(((run + 1) * this.#width) / columns);
    return [Math.floor((run * this.#width) / columns), Math.min(tiles, end)];
  }

  /** Puts the identity into a copy of tile `index` of those that are captured together: its channels that run `run` has. */
  replace(tile: Uint8Array, index: number, run: number): void {
    const columns = this.panel.paddedColumns;
    tile.set(this.#blank, this.panel.offset);
    const nibbles = new Uint8Array(columns);
    const scales = new Uint16Array(columns / GROUP).fill(ONE);
    for (let column = 0; column < columns; column++) {
      const row = index * columns + column - run * this.#width;
      if (row < 0 || row >= this.panel.rows) continue;
      nibbles.fill(8);
      nibbles[column] = 9;
      writeRoundedRow(this.panel, row, nibbles, scales, tile);
    }
  }

  /** Copies what run `run` gave into `target`, [tokens, columns of all tiles]. outputs: [tokens, width] fixed point. */
  collect(run: number, outputs: Int32Array, unit: number, tokens: number, target: Float32Array): void {
    const stride = target.length / tokens;
    const first = run * this.#width;
    const count = Math.min(this.#width, stride - first);
    for (let t = 0; t < tokens; t++) {
      const from = t * this.#width;
      const to = t * stride + first;
      for (let k = 0; k < count; k++) target[to + k] = outputs[from + k]! * unit;
    }
  }
}
