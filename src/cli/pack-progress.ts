import type { BuildProgress } from '../model/build-pack.ts';
import type { ProgressLine } from './progress-line.ts';

/** Part of the work that an estimate of the time left is made from, at the least. */
const LEAST_PART = 0.002;

/** What is shown of a pack that is being made, with the time left where that is long. */
export class PackProgress {
  readonly #now: () => number;
  #begin: { readonly time: number; readonly part: number } | undefined;
  #layer: number | undefined;

  /** now: milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** 'Cutting tiles 12/130', 'Rounding layer 3/80, 3.4 %, about 7 h 20 min left'. */
  text(progress: BuildProgress): string {
    const { stage, done, total } = progress;
    if (stage !== 'round')
      return `${stage === 'cut' ? 'Cutting tiles' : 'Calibrating layers'} ${done}/${total}`;
    const part = done / total;
    this.#begin ??= { time: this.#now(), part };
    const { layer, layers } = progress;
    const what = layer < layers ? `layer ${layer + 1}/${layers}` : 'the head';
    const fresh = part - this.#begin.part;
    const left = fresh < LEAST_PART ? null : ((this.#now() - this.#begin.time) / fresh) * (1 - part);
    return `Rounding ${what}, ${(100 * part).toFixed(1)} %${left === null ? '' : `, about ${timeText(left)} left`}`;
  }

  /** Shows it; where the line is not a terminal's, a lasting line for each layer that is rounded. */
  show(line: ProgressLine, progress: BuildProgress): void {
    const text = this.text(progress);
    line.show(text);
    if (progress.stage !== 'round' || progress.layer === this.#layer) return;
    if (this.#layer !== undefined) line.milestone(text);
    this.#layer = progress.layer;
  }
}

/** '7 h 20 min', '12 min', '40 s'. */
function timeText(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
