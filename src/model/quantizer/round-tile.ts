import type { ModelShape, TileKind } from '../../pack/manifest.ts';
import {
  BLOCK_ROWS,
  type Panel,
  rotatedValues,
  type TileVector,
  tileBytes,
  tilePanels,
  vectorPlaces,
} from '../../pack/tile-shape.ts';
import { readBf16PanelRow } from '../cut-panel.ts';
import { rotateColumns, rotateRows } from '../rotate.ts';
import { damageStride, type InputDamage } from './damage.ts';
import { type LayerTileKind, sourceShape } from './half-layer.ts';
import type { Rounder } from './rounder.ts';

/** A tile as it is in the checkpoint, and what becomes of it. */
export interface RoundedTile {
  readonly kind: LayerTileKind;
  /** bf16; see sourceShape. */
  readonly source: Uint8Array;
  /** w4; the last panel is rounded last. */
  readonly tile: Uint8Array;
}

/** Place of V among the panels of an attention tile. */
const VALUE_PANEL = 2;

/**
 * Rounds all panels but the last, which see the input of the half layer; copies the tile's vectors. damage: looks at some of their
 * rows, unless null.
 */
export async function roundInputs(
  s: ModelShape,
  kind: LayerTileKind,
  source: Uint8Array,
  rounder: Rounder,
  damage: InputDamage | null,
): Promise<RoundedTile> {
  const tile = new Uint8Array(tileBytes(s, kind));
  const panels = tilePanels(s, kind);
  const sources = tilePanels(sourceShape(s), kind);
  for (let i = 0; i + 1 < panels.length; i++) {
    const values = kind === 'attention' && i === VALUE_PANEL && rotatedValues(s);
    const fill = values ? rotatedPanel(sources[i]!, source) : plainPanel(sources[i]!, source);
    const stride = damageStride(panels[i]!.rows);
    await rounder.roundPanel(panels[i]!, tile, (row, target) => {
      fill(row, target);
      if (s.hadamard !== 0) rotateColumns(target);
      if (row % stride === 0) damage?.add(matrixOf(kind, i, row), target);
    });
  }
  copyVectors(s, kind, source, tile);
  return { kind, source, tile };
}

/** Which matrix a row of a panel belongs to: gate and up share one, 16 rows in turn. */
const matrixOf = (kind: LayerTileKind, panel: number, row: number): number =>
  kind === 'attention' ? panel : Math.floor(row / BLOCK_ROWS) % 2;

/** Some rows of the last panel, with their numbers. */
export function* someOutputRows(s: ModelShape, tile: RoundedTile): Generator<[number, Float32Array]> {
  const row = new Float32Array(tilePanels(s, tile.kind).at(-1)!.paddedColumns);
  for (let i = 0; i < s.width; i += damageStride(s.width)) {
    outputRow(s, tile, i, row);
    yield [i, row];
  }
}

/** A row of the last panel, rotated as its inputs come, to the start of `target` ([columns of the panel]). */
export function outputRow(
  s: ModelShape,
  { kind, source }: RoundedTile,
  row: number,
  target: Float32Array,
): void {
  readBf16PanelRow(tilePanels(sourceShape(s), kind).at(-1)!, row, source, target);
  if (s.hadamard !== 0) rotateColumns(target);
}

/** Rounds a whole tile of the head. */
export async function roundHeadTile(
  s: ModelShape,
  source: Uint8Array,
  rounder: Rounder,
  damage: InputDamage | null,
): Promise<Uint8Array> {
  const tile = new Uint8Array(tileBytes(s, 'head'));
  const stride = damageStride(s.tiling.headRows);
  const fill = plainPanel(tilePanels(sourceShape(s), 'head')[0]!, source);
  await rounder.roundPanel(tilePanels(s, 'head')[0]!, tile, (row, target) => {
    fill(row, target);
    if (s.hadamard !== 0) rotateColumns(target);
    if (row % stride === 0) damage?.add(0, target);
  });
  return tile;
}

type Fill = (row: number, target: Float32Array) => void;

const plainPanel =
  (panel: Panel, source: Uint8Array): Fill =>
  (row, target) =>
    readBf16PanelRow(panel, row, source, target);

/** A panel whose outputs come rotated. */
function rotatedPanel(panel: Panel, source: Uint8Array): Fill {
  const columns = panel.paddedColumns;
  const matrix = new Float32Array(panel.rows * columns);
  const rowOf = (row: number) => matrix.subarray(row * columns, (row + 1) * columns);
  for (let row = 0; row < panel.rows; row++) readBf16PanelRow(panel, row, source, rowOf(row));
  rotateRows(matrix, columns);
  return (row, target) => target.set(rowOf(row));
}

/** Vectors of the source tile as they are; those that only rounded tiles have are zero. */
function copyVectors(s: ModelShape, kind: TileKind, source: Uint8Array, tile: Uint8Array): void {
  const from = new Map(vectorPlaces(sourceShape(s), kind).places.map(place => [place.name, place]));
  for (const { name, floats } of vectorPlaces(s, kind).places) {
    const place = from.get(name);
    if (!place || floats === 0 || place.floats !== floats) continue;
    const values = vectorOf(sourceShape(s), kind, name, source).slice();
    if (name === 'valueBias' && rotatedValues(s)) rotateRows(values, 1);
    vectorOf(s, kind, name, tile).set(values);
  }
}

/** A vector of a tile; empty where it has none. */
export function vectorOf(s: ModelShape, kind: TileKind, name: TileVector, tile: Uint8Array): Float32Array {
  const place = vectorPlaces(s, kind).places.find(each => each.name === name);
  if (!place) return new Float32Array(0);
  return new Float32Array(tile.buffer, tile.byteOffset + place.offset, place.floats);
}
