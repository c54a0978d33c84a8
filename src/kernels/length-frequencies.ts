import type { ModelShape, Rotation } from '../pack/manifest.ts';
import { power } from './power.ts';

/** Sets of frequencies that are kept. */
const KEPT = 64;

/** Rows of angles for the tokens of a pass. */
export interface FrequencyRows {
  /** Row of `frequencies` of each token; [tokens]. */
  readonly rows: Int32Array;
  /** Radians per position; [rows, pairs of all rotations, one rotation behind the other]. */
  readonly frequencies: Float64Array;
}

/** Frequencies of the rotations of a model for sequences of any length; for most models they are always the same. */
export class LengthFrequencies {
  readonly #rotations: readonly Rotation[];
  readonly #kept = new Map<number, Float64Array>();

  constructor(shape: Pick<ModelShape, 'rotations'>) {
    this.#rotations = shape.rotations;
  }

  /** `lengths`: see Batch. */
  of(lengths: Int32Array): FrequencyRows {
    const classes: number[] = [];
    const rows = lengths.map(length => {
      const which = this.#class(length);
      const known = classes.indexOf(which);
      return known >= 0 ? known : classes.push(which) - 1;
    });
    const [first] = classes;
    // Nearly always there is one, and nothing to copy.
    if (first !== undefined && classes.length === 1) return { rows, frequencies: this.#frequencies(first) };
    return { rows, frequencies: Float64Array.from(classes.flatMap(which => [...this.#frequencies(which)])) };
  }

  /** A length that stands for all lengths with the same frequencies. */
  #class(length: number): number {
    let which = 0;
    for (const { beyond } of this.#rotations) {
      if (beyond === null || length <= beyond.over) continue;
      which = Math.max(which, beyond.type === 'dynamic' ? length : beyond.over + 1);
    }
    return which;
  }

  #frequencies(length: number): Float64Array {
    const kept = this.#kept.get(length);
    if (kept) return kept;
    const made = Float64Array.from(this.#rotations.flatMap(rotation => frequenciesAt(rotation, length)));
    if (this.#kept.size >= KEPT) this.#kept.clear();
    this.#kept.set(length, made);
    return made;
  }
}

const f = Math.fround;

/** Radians per position of each pair in a sequence of `length` positions; roundings as in transformers. */
export function frequenciesAt({ frequencies, beyond }: Rotation, length: number): readonly number[] {
  if (beyond === null || length <= beyond.over) return frequencies;
  if (beyond.type === 'frequencies') return beyond.frequencies;
  const { theta, factor, over } = beyond;
  const channels = 2 * frequencies.length;
  const growth = power((factor * length) / over - (factor - 1), channels / (channels - 2));
  const base = f(theta * growth);
  return frequencies.map((_, i) => f(1 / f(power(base, f((2 * i) / channels)))));
}

/** Positions after which keys that were rotated before must be made anew; Infinity where there are none. */
export const rotationSwitch = ({ rotations }: Pick<ModelShape, 'rotations'>): number =>
  rotations.reduce(
    (least, { beyond }) => (beyond?.type === 'frequencies' ? Math.min(least, beyond.over) : least),
    Number.POSITIVE_INFINITY,
  );
