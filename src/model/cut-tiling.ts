import { PotluckError } from '../errors/errors.ts';
import type { ModelShape, Tiling } from '../pack/manifest.ts';
import { BLOCK_ROWS, GROUP, roundUp } from '../pack/tile-shape.ts';

/** Most bytes of an FFN or head tile, reckoned at 4.5 bits a weight. */
const TILE_BYTES = 2 ** 20;
/** Fewest tiles of a half layer, where the width allows it: a dozen devices can then share it. */
const FEWEST_TILES = 12;
/** Attention tiles of a layer that are wanted at least. */
const ATTENTION_TILES = 4;
const WEIGHT_BYTES = 4.5 / 8;

/** How matrices are cut where the user does not say. Throws BAD_OPTION where what he says does not fit the model. */
export function chooseTiling(
  s: Omit<ModelShape, 'weights' | 'tiling' | 'hadamard' | 'kvBits'>,
  wanted: Partial<Tiling> = {},
): Tiling {
  const group = s.queryHeads / s.kvHeads;
  const tiling = {
    partsPerKvHead: wanted.partsPerKvHead ?? chooseParts(s.kvHeads, group),
    ffnColumns: wanted.ffnColumns ?? chooseFfnColumns(s),
    headRows: wanted.headRows ?? chooseSize(s.vocabulary, BLOCK_ROWS, s.width * WEIGHT_BYTES),
  };
  const wrong = (what: string, reason: string) => new PotluckError('BAD_OPTION', `${what}: ${reason}.`);
  if (!isCount(tiling.partsPerKvHead) || group % tiling.partsPerKvHead !== 0)
    throw wrong(
      'partsPerKvHead',
      `${tiling.partsPerKvHead} does not divide the ${group} query heads of a KV head`,
    );
  if (!isCount(tiling.ffnColumns) || tiling.ffnColumns % GROUP !== 0)
    throw wrong('ffnColumns', `${tiling.ffnColumns} is not a multiple of ${GROUP}`);
  if (!isCount(tiling.headRows) || tiling.headRows % BLOCK_ROWS !== 0)
    throw wrong('headRows', `${tiling.headRows} is not a multiple of ${BLOCK_ROWS}`);
  return tiling;
}

const isCount = (n: number): boolean => Number.isSafeInteger(n) && n > 0;

/** The fewest even parts that give enough attention tiles; one query head a tile where even that is too few. */
function chooseParts(kvHeads: number, group: number): number {
  for (let parts = 1; parts < group; parts++)
    if (group % parts === 0 && kvHeads * parts >= ATTENTION_TILES) return parts;
  return group;
}

/** Tiles of dense layers and of experts have the same columns; an expert may be one tile, as a layer has many. */
function chooseFfnColumns(s: Pick<ModelShape, 'width' | 'ffnWidth' | 'experts'>): number {
  const bytesEach = 3 * s.width * WEIGHT_BYTES;
  if (s.experts === null) return chooseSize(s.ffnWidth, GROUP, bytesEach);
  return chooseSize(s.experts.width, GROUP, bytesEach, Math.ceil(FEWEST_TILES / s.experts.perToken));
}

/** Size of a tile of `total` columns or rows: the largest that is small enough, or one under it that wastes less. */
function chooseSize(total: number, step: number, bytesEach: number, fewest = FEWEST_TILES): number {
  const most = Math.min(TILE_BYTES / bytesEach, total / fewest);
  const largest = Math.max(step, Math.floor(most / step) * step);
  let best = largest;
  for (let size = largest; size >= largest / 2; size -= step)
    if (roundUp(total, size) < roundUp(total, best)) best = size;
  return best;
}
