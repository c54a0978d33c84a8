import type { Duplex } from 'node:stream';
import { type LinkShaper, PIECE_BYTES } from './link-shaper.ts';
import type { RelayClock } from './precise-timer.ts';

interface Piece {
  readonly bytes: Buffer;
  readonly due: number;
}

/**
 * One direction of a relayed connection: reads `source`, delays and paces as `shaper` says, writes to `destination`.
 * At most `shaper.queueLimit` bytes (plus one read) are held; a slow destination pauses the source as well. The end
 * of `source` is passed on after its last byte.
 */
export class ShapedPipe {
  readonly #source: Duplex;
  readonly #destination: Duplex;
  readonly #shaper: LinkShaper;
  readonly #clock: RelayClock;
  #pieces: Piece[] = [];
  #queued = 0;
  #ended = false;
  #blocked = false;
  #closed = false;
  #cancel: (() => void) | null = null;

  constructor(source: Duplex, destination: Duplex, shaper: LinkShaper, clock: RelayClock) {
    this.#source = source;
    this.#destination = destination;
    this.#shaper = shaper;
    this.#clock = clock;
    source.on('data', (chunk: Buffer) => this.#take(chunk));
    source.once('end', () => {
      this.#ended = true;
      this.#deliver();
    });
    destination.on('drain', () => {
      this.#blocked = false;
      this.#deliver();
    });
  }

  /** Bytes under way. */
  get queued(): number {
    return this.#queued;
  }

  close(): void {
    this.#closed = true;
    this.#cancel?.();
    this.#pieces = [];
    this.#queued = 0;
  }

  #take(chunk: Buffer): void {
    if (this.#closed) return;
    const now = this.#clock.now();
    for (let start = 0; start < chunk.length; start += PIECE_BYTES) {
      const bytes = chunk.subarray(start, start + PIECE_BYTES);
      this.#pieces.push({ bytes, due: this.#shaper.schedule(bytes.length, now) });
    }
    this.#queued += chunk.length;
    if (this.#queued >= this.#shaper.queueLimit) this.#source.pause();
    this.#wake();
  }

  #wake(): void {
    const first = this.#pieces[0];
    if (first === undefined || this.#blocked || this.#cancel !== null) return;
    this.#cancel = this.#clock.at(first.due, () => {
      this.#cancel = null;
      this.#deliver();
    });
  }

  /** Writes what is due; the pieces of a pipe are due in their order. */
  #deliver(): void {
    if (this.#closed || this.#blocked) return;
    const now = this.#clock.now();
    const due: Buffer[] = [];
    while (this.#pieces.length > due.length && this.#pieces[due.length]!.due <= now) {
      due.push(this.#pieces[due.length]!.bytes);
    }
    this.#pieces.splice(0, due.length);
    if (due.length > 0 && !this.#destination.destroyed) {
      const bytes = due.length === 1 ? due[0]! : Buffer.concat(due);
      this.#queued -= bytes.length;
      this.#blocked = !this.#destination.write(bytes);
    }
    if (this.#queued < this.#shaper.queueLimit / 2 && this.#source.isPaused()) this.#source.resume();
    if (this.#ended && this.#pieces.length === 0 && !this.#destination.writableEnded) this.#destination.end();
    this.#wake();
  }
}
