import { StopStrings } from './stop-strings.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface TextStreamOptions {
  /** Stop strings; the text is cut before the first one. */
  readonly stop: readonly string[];
  /** True where the text begins here (an answer), false where it goes on from a prompt (a completion). */
  readonly startsText: boolean;
  /** Control tokens that are given as text, by their strings: marks that are looked for in the text. */
  readonly shownControls?: readonly string[];
}

type Pieces = Pick<Tokenizer, 'pieceBytes' | 'stripsLeadingSpace' | 'controls'>;

/**
 * Turns token ids into pieces of text. Bytes of an unfinished character (3 at most) and text that may become a stop string are
 * held back. All pieces together are the decoding of all ids, up to the first stop string.
 */
export class TextStream {
  readonly #tokenizer: Pieces;
  readonly #shown = new Map<number, Uint8Array>();
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #stops: StopStrings;
  #stripSpace: boolean;

  constructor(tokenizer: Pieces, options: TextStreamOptions) {
    this.#tokenizer = tokenizer;
    this.#stops = new StopStrings(options.stop);
    this.#stripSpace = options.startsText && tokenizer.stripsLeadingSpace;
    for (const control of options.shownControls ?? []) {
      const id = tokenizer.controls.get(control);
      if (id !== undefined) this.#shown.set(id, new TextEncoder().encode(control));
    }
  }

  /** True once a stop string was found: nothing more will come. */
  get stopped(): boolean {
    return this.#stops.found;
  }

  /** Text that is certain after this token, often ''. Throws BAD_REQUEST for what is not a token id. */
  push(id: number): string {
    const bytes = this.#shown.get(id) ?? this.#tokenizer.pieceBytes(id);
    return this.#certain(this.#decoder.decode(bytes, { stream: true }));
  }

  /** The rest, after the last token; an unfinished character becomes U+FFFD. */
  end(): string {
    return this.#certain(this.#decoder.decode()) + this.#stops.end();
  }

  #certain(text: string): string {
    if (text === '') return '';
    const stripped = this.#stripSpace && text.startsWith(' ') ? text.slice(1) : text;
    this.#stripSpace = false;
    return this.#stops.push(stripped);
  }
}
