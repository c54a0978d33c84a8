import type { RepoFile } from '../pull/choose-files.ts';
import type { PullReport } from '../pull/pull-files.ts';
import { ProgressLine } from './progress-line.ts';
import { formatBytes } from './text-table.ts';

/** The rate is that of the last seconds. */
const RATE_MILLISECONDS = 8000;
/** How often the line of a terminal, and a line of a log, is written at most. */
const TERMINAL_MILLISECONDS = 200;
const LOG_MILLISECONDS = 10_000;
const BAR = 24;

type Output = { write(text: string): unknown; readonly isTTY?: boolean };

/** Shows a download: a bar that moves on a terminal, else a line from time to time and at the end of each file. */
export class PullProgress implements PullReport {
  readonly #output: Output;
  readonly #now: () => number;
  readonly #line: ProgressLine;
  #files: readonly RepoFile[] = [];
  readonly #here = new Map<string, number>();
  /** [milliseconds, bytes fetched since the start] */
  readonly #samples: [number, number][] = [];
  #fetched = 0;
  #shownAt = Number.NEGATIVE_INFINITY;

  /** `now`: milliseconds of a clock that rises. */
  constructor(output: Output, now: () => number) {
    this.#output = output;
    this.#now = now;
    this.#line = new ProgressLine(output);
  }

  listed(files: readonly RepoFile[]): void {
    const first = this.#files.length === 0;
    this.#files = files;
    if (!first) return;
    this.#samples.push([this.#now(), 0]);
    this.#shownAt = this.#now();
    const width = Math.max(...files.map(({ path }) => path.length));
    for (const { path, bytes } of files) this.note(`${path.padEnd(width)}  ${formatBytes(bytes)}`);
    this.note(`${files.length} files, ${formatBytes(this.#total)}`);
  }

  bytes(file: RepoFile, here: number, kept: boolean): void {
    const before = this.#here.get(file.path) ?? 0;
    this.#here.set(file.path, here);
    const now = this.#now();
    if (!kept && here > before) this.#fetched += here - before;
    this.#samples.push([now, this.#fetched]);
    while (this.#samples.length > 2 && now - this.#samples[1]![0] > RATE_MILLISECONDS) this.#samples.shift();
    const done = here === file.bytes;
    const pause = this.#output.isTTY ? TERMINAL_MILLISECONDS : LOG_MILLISECONDS;
    if (!done && now - this.#shownAt < pause) return;
    this.#shownAt = now;
    if (this.#output.isTTY) this.#line.show(this.#text(file.path));
    else this.note(this.#text(file.path));
  }

  note(text: string): void {
    this.#line.end(text);
  }

  get #total(): number {
    return this.#files.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** 'NAME  [####----]  52 %  1.2 GiB of 2.4 GiB  35.1 MiB/s  0:42 left' */
  #text(name: string): string {
    const total = this.#total;
    const here = this.#files.reduce((sum, { path }) => sum + (this.#here.get(path) ?? 0), 0);
    const part = total === 0 ? 1 : here / total;
    const full = Math.floor(part * BAR);
    const bar = this.#output.isTTY ? [`[${'#'.repeat(full)}${'-'.repeat(BAR - full)}]`] : [];
    const [[from, before], [to, after]] = [this.#samples[0]!, this.#samples.at(-1)!];
    const rate = to > from ? ((after - before) * 1000) / (to - from) : 0;
    const left = rate > 0 && here < total ? [`${duration((total - here) / rate)} left`] : [];
    return [
      name,
      ...bar,
      `${Math.floor(part * 100)} %`,
      `${formatBytes(here)} of ${formatBytes(total)}`,
      ...(rate > 0 ? [`${formatBytes(rate)}/s`] : []),
      ...left,
    ].join('  ');
  }
}

/** 42 -> '0:42', 3700 -> '1:01:40'. */
function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
