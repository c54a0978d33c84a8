import { PotluckError } from '../errors/errors.ts';
import { addInto } from './fixed-point.ts';
import {
  FRAME_NAMES,
  FRAME_VERSION,
  type FrameHeader,
  type FrameType,
  HEADER_BYTES,
  MAGIC,
} from './frame.ts';

/** Where the payload of a frame goes, straight from the chunks that arrive. */
export type PayloadTarget =
  /** Written; [>= length] bytes. */
  | { readonly kind: 'copy'; bytes: Uint8Array }
  /** Added as int32; [>= length / 4]. */
  | { readonly kind: 'add'; sums: Int32Array }
  | { readonly kind: 'discard' };

export const DISCARD: PayloadTarget = { kind: 'discard' };

export interface FrameSink {
  /** A header that passed every check of the parser. Says where its payload goes, or throws PROTOCOL. The header
   *  object is used again for the next frame. */
  begin(header: FrameHeader): PayloadTarget;
  /** The payload is complete. */
  end(header: FrameHeader): void;
}

/** Most payload bytes of each frame type that may arrive; a type that is absent may not. */
export type FrameLimits = Readonly<Partial<Record<FrameType, number>>>;

type State = 'header' | 'payload' | 'stopped';

class MutableHeader implements FrameHeader {
  type: FrameType = 1;
  epoch = 0;
  pass = 0;
  step = 0;
  length = 0;
}

/**
 * Cuts a byte stream into frames. It allocates nothing by itself: the header is collected in 32 bytes, the payload
 * goes where the sink says, and what is wrong is refused before the sink is asked.
 */
export class FrameParser {
  readonly #epoch: number;
  readonly #limits: FrameLimits;
  readonly #sink: FrameSink;
  #state: State = 'header';
  readonly #headerWords = new Uint32Array(HEADER_BYTES / 4);
  readonly #headerBytes = new Uint8Array(this.#headerWords.buffer);
  readonly #header = new MutableHeader();
  /** Bytes of the header or payload that are here. */
  #have = 0;
  #target: PayloadTarget = DISCARD;
  /** First bytes of an int32 that a chunk border cut; [4] */
  readonly #cutWord = new Int32Array(1);
  readonly #cutBytes = new Uint8Array(this.#cutWord.buffer);
  /** Where payload bytes that lie unaligned in their chunk are aligned before they are added; made when first needed. */
  #aligned: Int32Array | undefined;

  constructor(epoch: number, limits: FrameLimits, sink: FrameSink) {
    this.#epoch = epoch;
    this.#limits = limits;
    this.#sink = sink;
  }

  /** Takes the next bytes of the stream. Throws PROTOCOL; the parser is stopped then and takes nothing more. */
  push(chunk: Uint8Array): void {
    let at = 0;
    try {
      while (at < chunk.length) {
        switch (this.#state) {
          case 'header':
            at = this.#takeHeader(chunk, at);
            break;
          case 'payload':
            at = this.#takePayload(chunk, at);
            break;
          case 'stopped':
            return;
        }
      }
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /** Drops what is still to come of the frame that is arriving now: its destination is not written any more. */
  discardRest(): void {
    this.#target = DISCARD;
  }

  /** Takes nothing more. */
  stop(): void {
    this.#state = 'stopped';
    this.#target = DISCARD;
  }

  #takeHeader(chunk: Uint8Array, at: number): number {
    const taken = Math.min(HEADER_BYTES - this.#have, chunk.length - at);
    for (let i = 0; i < taken; i++) this.#headerBytes[this.#have + i] = chunk[at + i]!;
    this.#have += taken;
    if (this.#have === HEADER_BYTES) {
      this.#checkHeader();
      this.#have = 0;
      this.#target = this.#sink.begin(this.#header);
      if (this.#header.length === 0) this.#sink.end(this.#header);
      else this.#become('payload');
    }
    return at + taken;
  }

  #checkHeader(): void {
    const words = this.#headerWords;
    const bytes = this.#headerBytes;
    if (words[0] !== MAGIC) throw refused('does not begin with the magic bytes of a frame');
    if (bytes[4] !== FRAME_VERSION) throw refused(`has version ${bytes[4]}, not ${FRAME_VERSION}`);
    const type = bytes[5] as FrameType;
    const limit = this.#limits[type];
    if (limit === undefined) throw refused(`has type ${type}, which may not come this way`);
    if (bytes[6] !== 0 || bytes[7] !== 0 || words[6] !== 0 || words[7] !== 0)
      throw refused('has reserved bits that are not 0');
    if (words[2] !== this.#epoch) throw refused(`is of epoch ${words[2]}, not ${this.#epoch}`);
    const length = words[5]!;
    if (length > limit || length % 4 !== 0)
      throw refused(
        `(${FRAME_NAMES[type]}) has a length of ${length} bytes; at most ${limit} and whole words are allowed`,
      );
    const header = this.#header;
    header.type = type;
    header.epoch = words[2]!;
    header.pass = words[3]!;
    header.step = words[4]!;
    header.length = length;
  }

  #takePayload(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.#header.length - this.#have, chunk.length - at);
    const target = this.#target;
    if (target.kind === 'copy') {
      const whole = at === 0 && taken === chunk.length;
      target.bytes.set(whole ? chunk : chunk.subarray(at, at + taken), this.#have);
    } else if (target.kind === 'add') this.#add(target.sums, chunk, at, taken);
    this.#have += taken;
    if (this.#have === this.#header.length) {
      this.#have = 0;
      this.#become('header');
      this.#sink.end(this.#header);
      this.#target = DISCARD;
    }
    return at + taken;
  }

  /** Adds `taken` payload bytes of `chunk` from `at` to the words of `sums` that they belong to. */
  #add(sums: Int32Array, chunk: Uint8Array, at: number, taken: number): void {
    let place = this.#have;
    let from = at;
    const end = at + taken;
    while (from < end && place % 4 !== 0) this.#addCut(sums, place++, chunk[from++]!);
    const count = (end - from) >> 2;
    if (count > 0) {
      this.#addWords(sums.subarray(place >> 2), chunk, from, count);
      place += count * 4;
      from += count * 4;
    }
    while (from < end) this.#addCut(sums, place++, chunk[from++]!);
  }

  #addCut(sums: Int32Array, place: number, byte: number): void {
    this.#cutBytes[place & 3] = byte;
    if ((place & 3) === 3) sums[place >> 2] = (sums[place >> 2]! + this.#cutWord[0]!) | 0;
  }

  #addWords(sums: Int32Array, chunk: Uint8Array, from: number, count: number): void {
    const offset = chunk.byteOffset + from;
    if (offset % 4 === 0) {
      addInto(sums, new Int32Array(chunk.buffer, offset, count), count);
      return;
    }
    this.#aligned ??= new Int32Array(ALIGN_WORDS);
    const bytes = new Uint8Array(this.#aligned.buffer);
    for (let done = 0; done < count; ) {
      const now = Math.min(ALIGN_WORDS, count - done);
      bytes.set(chunk.subarray(from + done * 4, from + (done + now) * 4));
      addInto(done === 0 ? sums : sums.subarray(done), this.#aligned, now);
      done += now;
    }
  }

  /** Moves on, unless the sink stopped the parser meanwhile. */
  #become(state: State): void {
    if (this.#state !== 'stopped') this.#state = state;
  }
}

/** 4 KiB at a time. */
const ALIGN_WORDS = 1024;

const refused = (what: string): PotluckError =>
  new PotluckError(
    'PROTOCOL',
    `A frame ${what}; the stream is closed. Run the same version of Potluck on every device.`,
  );
