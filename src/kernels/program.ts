import type { Half, PlacedTile, Step } from './backend.ts';

/** Numbers of src/kernels/native/program.h. */
const OPS = { begin: 0, tiles: 1, end: 2, 'head-begin': 3, 'head-tiles': 4 } as const;
const HALVES: Record<Half, number> = { attention: 0, ffn: 1 };
/** op, layer, half, tiles */
const STEP_WORDS = 4;
/** offset, slot */
const TILE_WORDS = 2;

const NO_TILES: readonly PlacedTile[] = [];

const tilesOf = (step: Step): readonly PlacedTile[] =>
  step.op === 'tiles' || step.op === 'head-tiles' ? step.tiles : NO_TILES;

/** Steps as numbers, for the addon, which checks every one of them. */
export function encodeProgram(steps: readonly Step[]): Float64Array {
  let words = 0;
  for (const step of steps) words += STEP_WORDS + tilesOf(step).length * TILE_WORDS;
  const program = new Float64Array(words);
  let at = 0;
  for (const step of steps) {
    const tiles = tilesOf(step);
    const inLayer = step.op === 'begin' || step.op === 'tiles' || step.op === 'end';
    program[at++] = OPS[step.op];
    program[at++] = inLayer ? step.layer : 0;
    program[at++] = inLayer ? HALVES[step.half] : 0;
    program[at++] = tiles.length;
    for (const tile of tiles) {
      program[at++] = tile.offset;
      program[at++] = tile.slot;
    }
  }
  return program;
}
