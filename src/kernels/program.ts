import type { Half, PlacedTile, Step } from './backend.ts';

/** Numbers of src/kernels/native/program.h. */
const OPS = {
  begin: 0,
  tiles: 1,
  end: 2,
  'head-begin': 3,
  'head-tiles': 4,
  'expert-tiles': 5,
  squares: 6,
  'square-norms': 7,
} as const;
const HALVES: Record<Half, number> = { attention: 0, ffn: 1 };
/** op, layer, half, tiles */
const STEP_WORDS = 4;
/** offset, slot */
const TILE_WORDS = 2;

const NO_TILES: readonly PlacedTile[] = [];

const tilesOf = (step: Step): readonly PlacedTile[] => ('tiles' in step ? step.tiles : NO_TILES);

const halfOf = (step: Step): Half =>
  'half' in step ? step.half : step.op === 'expert-tiles' ? 'ffn' : 'attention';

/** Turns steps into numbers, for the addon, which checks every one of them. */
export class ProgramEncoder {
  /** A program of a large model has thousands of numbers: they are not allocated anew for each pass. */
  #words = new Float64Array(1024);
  #last: { readonly steps: readonly Step[]; readonly program: Float64Array } | undefined;

  /** The words are valid until the next call. An array of steps that comes again has not changed. */
  encode(steps: readonly Step[]): Float64Array {
    if (steps !== this.#last?.steps) this.#last = { steps, program: this.#encode(steps) };
    return this.#last.program;
  }

  #encode(steps: readonly Step[]): Float64Array {
    let words = 0;
    for (const step of steps) words += STEP_WORDS + tilesOf(step).length * TILE_WORDS;
    if (words > this.#words.length) this.#words = new Float64Array(words * 2);
    const program = this.#words;
    let at = 0;
    for (const step of steps) {
      const tiles = tilesOf(step);
      program[at++] = OPS[step.op];
      program[at++] = 'layer' in step ? step.layer : 0;
      program[at++] = HALVES[halfOf(step)];
      program[at++] = tiles.length;
      for (const tile of tiles) {
        program[at++] = tile.offset;
        program[at++] = tile.slot;
      }
    }
    return program.subarray(0, words);
  }
}
