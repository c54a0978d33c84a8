import { PotluckError } from '../errors/errors.ts';

/** Frames of the tensor stream; byte layouts are in docs/wire-format.md. Everything is little-endian. */

/** The bytes "PTLK", read as a little-endian u32. */
export const MAGIC = 0x4b4c5450;
export const FRAME_VERSION = 1;
export const HEADER_BYTES = 32;

/** Hub to spoke: the tokens of a pass and their residual stream. */
export const PASS = 1;
/** Spoke to hub: fixed-point sums of its tiles in one half layer. */
export const PARTIAL = 2;
/** Hub to spoke: the sum over all devices. */
export const TOTAL = 3;
/** Spoke to hub: logits of its head tiles. */
export const LOGITS = 4;
/** Either way: the pass is over, with an error. */
export const FAIL = 5;
/** Either way, now and then: this side is there, and the stream goes through. */
export const ALIVE = 6;

export type FrameType =
  | typeof PASS
  | typeof PARTIAL
  | typeof TOTAL
  | typeof LOGITS
  | typeof FAIL
  | typeof ALIVE;

export const FRAME_NAMES: Readonly<Record<FrameType, string>> = {
  [PASS]: 'PASS',
  [PARTIAL]: 'PARTIAL',
  [TOTAL]: 'TOTAL',
  [LOGITS]: 'LOGITS',
  [FAIL]: 'FAIL',
  [ALIVE]: 'ALIVE',
};

export interface FrameHeader {
  readonly type: FrameType;
  readonly epoch: number;
  readonly pass: number;
  readonly step: number;
  /** Payload bytes that follow the header; a multiple of 4. */
  readonly length: number;
}

/** A frame to send: header and payload in one piece of memory, so that it goes out in one write. */
export class OutgoingFrame {
  /** [HEADER_BYTES + capacity] */
  readonly bytes: Buffer;
  /** Payload as int32; [capacity / 4] */
  readonly ints: Int32Array;
  /** The same payload as float32; [capacity / 4] */
  readonly floats: Float32Array;
  /** Writes that the operating system has not taken yet: until 0 the memory must not change. */
  inFlight = 0;
  readonly #header: Uint32Array;
  #whole: Buffer;

  /** `capacity`: payload bytes, a multiple of 4. */
  constructor(capacity: number) {
    const memory = new ArrayBuffer(HEADER_BYTES + capacity);
    this.bytes = Buffer.from(memory);
    this.ints = new Int32Array(memory, HEADER_BYTES);
    this.floats = new Float32Array(memory, HEADER_BYTES);
    this.#header = new Uint32Array(memory, 0, HEADER_BYTES / 4);
    this.#header[0] = MAGIC;
    this.#whole = this.bytes;
  }

  get capacity(): number {
    return this.bytes.length - HEADER_BYTES;
  }

  /** Writes the header; returns header and payload as the bytes to send. */
  seal(header: FrameHeader): Buffer {
    const words = this.#header;
    words[1] = FRAME_VERSION | (header.type << 8);
    words[2] = header.epoch;
    words[3] = header.pass;
    words[4] = header.step;
    words[5] = header.length;
    const whole = HEADER_BYTES + header.length;
    if (this.#whole.length !== whole) this.#whole = this.bytes.subarray(0, whole);
    return this.#whole;
  }
}

/** `frame` where it is free and large enough for `payloadBytes`, a new (zeroed) one where not. */
export function freeFrame(frame: OutgoingFrame | undefined, payloadBytes: number): OutgoingFrame {
  if (frame !== undefined && frame.inFlight === 0 && frame.capacity >= payloadBytes) return frame;
  return new OutgoingFrame(payloadBytes);
}

/** Tensors travel as they lie in memory, so a big-endian host cannot take part. Throws PROTOCOL. */
export function requireLittleEndian(firstByteOfOne = new Uint8Array(new Uint32Array([1]).buffer)[0]): void {
  if (firstByteOfOne !== 1)
    throw new PotluckError(
      'PROTOCOL',
      'This processor is big-endian; the tensor stream is little-endian. Use another device.',
    );
}
