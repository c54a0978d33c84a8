import type { Half } from '../../kernels/backend.ts';
import type { ModelShape, TileKind } from '../../pack/manifest.ts';
import { GROUP, layerTileCount, roundUp, tilePanels } from '../../pack/tile-shape.ts';
import { outputColumns, tileBatches } from './half-layer.ts';

/**
 * The work of rounding by inputs, for showing how far it is, in multiply-adds of double precision. Of a matrix of n columns: products of
 * its inputs, their factor, rounding of its rows; and running tiles, whose multiply-adds of few bits are faster.
 */

/** Multiply-adds of few bits that take as long as one of double precision, about. */
const RUN_SPEED = 8;

export const productsWork = (tokens: number, columns: number): number => (tokens * columns ** 2) / 2;
export const factorWork = (columns: number): number => columns ** 3 / 6;
export const rowsWork = (rows: number, columns: number): number => (rows * columns ** 2) / 2;

const weightsOf = (s: ModelShape, kind: TileKind): number =>
  tilePanels(s, kind).reduce((sum, { rows, columns }) => sum + rows * columns, 0);

/** Running `tiles` tiles on some tokens. */
export const runWork = (s: ModelShape, kind: TileKind, tiles: number, tokens: number): number =>
  (tiles * tokens * weightsOf(s, kind)) / RUN_SPEED;

/** Rounding the panels of a tile that see the input of the half layer. */
export const inputPanelsWork = (s: ModelShape, kind: TileKind): number =>
  rowsWork(
    tilePanels(s, kind)
      .slice(0, kind === 'head' ? 1 : -1)
      .reduce((sum, { rows }) => sum + rows, 0),
    roundUp(s.width, GROUP),
  );

/** A half layer with `tokens` calibration tokens. */
function halfWork(s: ModelShape, layer: number, half: Half, tokens: number): number {
  const columns = roundUp(s.width, GROUP);
  let work = productsWork(tokens, columns) + factorWork(columns);
  for (const { kind, tiles, spans } of tileBatches(s, layer, half)) {
    work += tiles.length * inputPanelsWork(s, kind) + 2 * runWork(s, kind, tiles.length, tokens);
    for (const span of spans) {
      const all = span.length * outputColumns(s, kind);
      work += productsWork(tokens, all) + factorWork(all) + rowsWork(s.width, all);
    }
  }
  return work;
}

export const layerWork = (s: ModelShape, layer: number, tokens: number): number =>
  halfWork(s, layer, 'attention', tokens) + halfWork(s, layer, 'ffn', tokens);

export const headWork = (s: ModelShape, tokens: number): number => {
  const columns = roundUp(s.width, GROUP);
  const tiles = layerTileCount(s, 'head', 0) * inputPanelsWork(s, 'head');
  return productsWork(tokens, columns) + factorWork(columns) + tiles;
};
