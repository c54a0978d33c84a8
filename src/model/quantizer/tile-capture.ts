import type { ModelShape, TileKind } from '../../pack/manifest.ts';
import { floatToHalf } from '../../pack/number-formats.ts';
import { GROUP, type Panel, tilePanels } from '../../pack/tile-shape.ts';
import { writeRoundedRow } from '../cut-panel.ts';

/**
 * A tile adds to the residual stream what its last panel makes of its hidden activations. With the identity in place of that
 * panel it adds the hidden activations themselves: exactly those that the panel sees, whatever the layer is made of.
 */
export class TileCapture {
  /** The panel that is replaced. */
  readonly panel: Panel;
  readonly #width: number;
  /** Bytes of the panel with the identity for hidden channels `i * width` on; [columns / width, rounded up]. */
  readonly #identities: Uint8Array[] = [];

  constructor(shape: ModelShape, kind: Exclude<TileKind, 'head'>) {
    this.panel = tilePanels(shape, kind).at(-1)!;
    this.#width = shape.width;
    for (let first = 0; first < this.panel.paddedColumns; first += shape.width)
      this.#identities.push(identityPanel({ ...this.panel, offset: 0 }, first));
  }

  /** Runs that a tile needs: an output holds `width` hidden channels. */
  get runs(): number {
    return this.#identities.length;
  }

  /** Puts the identity of run `run` into a copy of a tile. */
  replace(tile: Uint8Array, run: number): void {
    tile.set(this.#identities[run]!, this.panel.offset);
  }

  /** Copies what run `run` gave into columns `at` on of `target`. outputs: [tokens, width] fixed point. */
  collect(
    run: number,
    outputs: Int32Array,
    unit: number,
    tokens: number,
    target: Float32Array,
    at: number,
    stride: number,
  ): void {
    const first = run * this.#width;
    const count = Math.min(this.#width, this.panel.paddedColumns - first);
    for (let t = 0; t < tokens; t++)
      for (let k = 0; k < count; k++)
        target[t * stride + at + first + k] = outputs[t * this.#width + k]! * unit;
  }
}

/** A w4 panel that is 1 where row + first = column. */
function identityPanel(panel: Panel, first: number): Uint8Array {
  const bytes = new Uint8Array(panel.bytes);
  const nibbles = new Uint8Array(panel.paddedColumns);
  const scales = new Uint16Array(panel.paddedColumns / GROUP).fill(floatToHalf(1));
  for (let row = 0; row < panel.paddedRows; row++) {
    nibbles.fill(8);
    if (row < panel.rows && first + row < panel.paddedColumns) nibbles[first + row] = 9;
    writeRoundedRow(panel, row, nibbles, scales, bytes);
  }
  return bytes;
}
