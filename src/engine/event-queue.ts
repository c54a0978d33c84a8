import { PotluckError } from '../errors/errors.ts';

/** Runs a call soon, or at once. */
export type Defer = (call: () => void) => void;

/**
 * Hands events from the engine to one consumer. The producer looks at `size` and pauses; the queue itself refuses nothing.
 */
export class EventQueue<T> {
  readonly #items: T[] = [];
  /** Called after the consumer took an item. */
  readonly #onTaken: () => void;
  readonly #defer: Defer;
  #ended = false;
  #error: PotluckError | null = null;
  #wake: (() => void) | null = null;

  constructor(onTaken: () => void, defer: Defer = call => call()) {
    this.#onTaken = onTaken;
    this.#defer = defer;
  }

  /** Items that wait to be taken. */
  get size(): number {
    return this.#items.length;
  }

  push(item: T): void {
    if (this.#ended) return;
    this.#items.push(item);
    this.#wakeUp();
  }

  /** After the items that wait, the consumer sees the end, or `error`. */
  end(error: PotluckError | null = null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wakeUp();
  }

  /** Drops what waits and ends. */
  cancel(): void {
    this.#items.length = 0;
    this.#error = null;
    this.#ended = true;
    this.#wakeUp();
  }

  /** The next item, or undefined at the end. Throws the error given to end(). One call at a time. */
  async next(): Promise<T | undefined> {
    if (this.#wake !== null) throw new PotluckError('INTERNAL', 'Two readers wait for one answer.');
    while (this.#items.length === 0) {
      if (this.#error !== null) throw this.#error;
      if (this.#ended) return undefined;
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    const item = this.#items.shift();
    this.#onTaken();
    return item;
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    if (wake !== null) this.#defer(wake);
  }
}
