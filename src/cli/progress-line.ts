/** A line on standard error that is written over and over; on anything but a terminal it stays silent until `end`. */
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

  /** Replaces the line by a lasting one. */
  end(text: string): void {
    if (this.#stream.isTTY) this.#stream.write(`\r${' '.repeat(this.#shown)}\r`);
    this.#shown = 0;
    this.#stream.write(`${text}\n`);
  }
}
