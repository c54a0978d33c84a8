/** How large the outputs of the tiles of a half layer became. */
export interface ChannelRanges {
  /** What each channel must be able to hold: its largest sum, or its largest tile output times the tiles; [width]. */
  readonly ranges: Float64Array;
  /** The largest tile output of the median channel, in fixed-point units. */
  readonly medianUnits: number;
  /** The least that the measurement could tell from zero. */
  readonly resolution: number;
  /** Outputs that did not fit. */
  readonly saturated: number;
}

/** Collects the outputs of tiles, as fixed point. */
export class TileOutputs {
  readonly #width: number;
  /** [tokens * width] */
  readonly #sum: Int32Array;
  /** [width] */
  readonly #most: Float64Array;
  readonly #tiles: number;

  /** `tiles`: how many of the outputs add up for one token. */
  constructor(tokens: number, width: number, tiles: number) {
    this.#width = width;
    this.#tiles = tiles;
    this.#sum = new Int32Array(tokens * width);
    this.#most = new Float64Array(width);
  }

  /** `output`: at least [tokens * width]. */
  add(output: Int32Array): void {
    for (let first = 0; first < this.#sum.length; first += this.#width)
      for (let j = 0; j < this.#width; j++) {
        const value = output[first + j]!;
        this.#sum[first + j]! += value;
        if (Math.abs(value) > this.#most[j]!) this.#most[j] = Math.abs(value);
      }
  }

  /** `scales`: those that the outputs were made with; [width]. */
  ranges(scales: Float32Array, saturated: number): ChannelRanges {
    const ranges = this.#most.map(most => most * this.#tiles);
    for (let i = 0; i < this.#sum.length; i++) {
      const j = i % this.#width;
      ranges[j] = Math.max(ranges[j]!, Math.abs(this.#sum[i]!));
    }
    let resolution = 0;
    for (let j = 0; j < ranges.length; j++) {
      ranges[j]! /= scales[j]!;
      resolution = Math.max(resolution, this.#tiles / scales[j]!);
    }
    return { ranges, medianUnits: median(this.#most), resolution, saturated };
  }
}

function median(values: Float64Array): number {
  return values.toSorted()[Math.floor(values.length / 2)]!;
}

/** How far outputs may exceed what the calibration saw. */
const HEADROOM = 8;
const MOST_EXPONENT = 60;

/**
 * The scale of each channel: the largest power of two with which the range and its headroom fit 31 bits. Channels under
 * the median get the median's, as text that was not seen may use them more; [width].
 */
export function fixedPointScales({ ranges, resolution }: ChannelRanges): Float32Array {
  const floor = median(ranges) || resolution;
  return Float32Array.from(ranges, range => largestScale(Math.max(range, floor) * HEADROOM));
}

/** The largest power of two s with range * s <= 2^31 - 1. */
function largestScale(range: number): number {
  const most = 2 ** 31 - 1;
  let exponent = Math.min(MOST_EXPONENT, Math.ceil(Math.log2(most / range)));
  while (range * 2 ** exponent > most) exponent--;
  return 2 ** Math.max(-MOST_EXPONENT, exponent);
}
