/** A line on standard error that is written over and over; on anything but a terminal it is silent but for milestones and `end`. */
export class ProgressLine {
  readonly #stream: { write(text: string): unknown; readonly isTTY?: boolean };
  #shown = 0;

  constructor(stream: { write(text: string): unknown; readonly isTTY?: boolean } = process.stderr) {
    this.#stream = stream;
  }

  show(text: string): void {
    if (!this.#stream.isTTY) return;
    this.#stream.write(`\r${text.padEnd(this.#shown)}`);
    this.#shown = text.length;
  }

  /** A lasting line in a log of long work; on a terminal, which shows the line, nothing. */
  milestone(text: string): void {
    if (!this.#stream.isTTY) this.#stream.write(`${text}\n`);
  }

  /** Replaces the line by a lasting one. */
  end(text: string): void {
    if (this.#stream.isTTY) this.#stream.write(`\r${' '.repeat(this.#shown)}\r`);
    this.#shown = 0;
    this.#stream.write(`${text}\n`);
  }
}
