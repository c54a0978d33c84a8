import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FAIL, type FrameHeader, LOGITS, MAGIC, PARTIAL, PASS, TOTAL } from '../../src/allreduce/frame.ts';
import {
  DISCARD,
  FrameParser,
  type FrameSink,
  type PayloadTarget,
} from '../../src/allreduce/frame-parser.ts';
import { frameBytes } from './stream-pair.ts';

const LIMITS = { [PASS]: 64, [PARTIAL]: 64, [FAIL]: 8 };

/** Keeps every frame; PARTIAL is added to 1000, others are copied. */
class Keeper implements FrameSink {
  readonly frames: { header: FrameHeader; words: number[] }[] = [];
  #target: Int32Array = new Int32Array(0);

  begin(header: FrameHeader): PayloadTarget {
    this.#target = new Int32Array(header.length / 4);
    if (header.type !== PARTIAL) return { kind: 'copy', bytes: new Uint8Array(this.#target.buffer) };
    this.#target.fill(1000);
    return { kind: 'add', sums: this.#target };
  }

  end(header: FrameHeader): void {
    this.frames.push({ header: { ...header }, words: [...this.#target] });
  }
}

const frame = fc.record({
  header: fc.record({
    type: fc.constantFrom(PASS, PARTIAL, FAIL),
    epoch: fc.constant(9),
    pass: fc.nat(),
    step: fc.nat(),
  }),
  words: fc.array(fc.integer(), { maxLength: 2 }),
});

/** The bytes in pieces: each at its own address, so that payload words lie unaligned too. */
function* pieces(bytes: Buffer, sizes: readonly number[], shift: number): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length]!;
    const memory = new Uint8Array(shift + size);
    const piece = bytes.subarray(at, at + size);
    memory.set(piece, shift);
    yield memory.subarray(shift, shift + piece.length);
    at += size;
  }
}

describe('any chunking', () => {
  test('gives the same frames', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 6 }), sizes, fc.nat({ max: 3 }), (frames, cut, shift) => {
        const keeper = new Keeper();
        const parser = new FrameParser(9, LIMITS, keeper);
        const bytes = Buffer.concat(frames.map(({ header, words }) => frameBytes(header, words)));
        for (const piece of pieces(bytes, cut, shift)) parser.push(piece);
        expect(keeper.frames).toEqual(
          frames.map(({ header, words }) => ({
            header: { ...header, length: words.length * 4 },
            words: header.type === PARTIAL ? words.map(word => (word + 1000) | 0) : words,
          })),
        );
      }),
      { numRuns: 300 },
    );
  });

  test('adds a payload that is longer than the parser aligns at a time', () => {
    const words = Int32Array.from({ length: 2500 }, (_, i) => i * 1_000_003);
    const bytes = frameBytes({ type: PARTIAL, epoch: 9, pass: 1, step: 0 }, words);
    for (const shift of [0, 1, 2, 3]) {
      const keeper = new Keeper();
      const parser = new FrameParser(9, { [PARTIAL]: words.byteLength }, keeper);
      for (const piece of pieces(bytes, [4999], shift)) parser.push(piece);
      expect(keeper.frames[0]!.words).toEqual(Array.from(words, word => (word + 1000) | 0));
    }
  });
});

describe('what is wrong is refused before the sink is asked', () => {
  const good = { type: PARTIAL, epoch: 9, pass: 1, step: 0 } as const;
  const patched = (at: number, value: number): Buffer => {
    const bytes = frameBytes(good, [1]);
    bytes[at] = value;
    return bytes;
  };
  test.each([
    ['magic', patched(0, 0x51)],
    ['version', patched(4, 2)],
    ['type 0', patched(5, 0)],
    ['an unknown type', patched(5, 7)],
    ['a type of the other direction', frameBytes({ ...good, type: TOTAL }, [1])],
    ['a type without limit', frameBytes({ ...good, type: LOGITS }, [1])],
    ['flags', patched(6, 1)],
    ['reserved bytes', patched(31, 1)],
    ['another epoch', frameBytes({ ...good, epoch: 8 }, [1])],
    ['a length over the limit', frameBytes({ ...good, length: 68 })],
    ['a huge length', frameBytes({ ...good, length: 0xfffffffc })],
    ['a length that is no multiple of 4', frameBytes({ ...good, length: 6 })],
  ])('%s', (_, bytes) => {
    const keeper = new Keeper();
    const asked: number[] = [];
    const sink: FrameSink = {
      begin: header => {
        asked.push(header.length);
        return keeper.begin(header);
      },
      end: header => keeper.end(header),
    };
    const parser = new FrameParser(9, LIMITS, sink);
    expect(() => parser.push(bytes)).toThrowError(expect.objectContaining({ code: 'PROTOCOL' }));
    expect(asked).toEqual([]);
    parser.push(frameBytes(good, [1]));
    expect(keeper.frames).toEqual([]);
  });
});

test('garbage never asks for more than the limits and never hangs', () => {
  const header = fc
    .record({
      magic: fc.constantFrom(MAGIC, MAGIC, MAGIC, 0),
      typeAndVersion: fc.oneof(fc.constantFrom(0x0101, 0x0201, 0x0501), fc.nat({ max: 0xffffffff })),
      epoch: fc.constantFrom(9, 9, 9, 8),
      length: fc.oneof(fc.nat({ max: 80 }), fc.nat({ max: 0xffffffff })),
    })
    .map(({ magic, typeAndVersion, epoch, length }) =>
      Buffer.from(Uint32Array.of(magic, typeAndVersion, epoch, 1, 0, length, 0, 0).buffer),
    );
  const part = fc.oneof(header, fc.uint8Array({ maxLength: 100 }));
  fc.assert(
    fc.property(fc.array(part, { maxLength: 10 }), parts => {
      const sink: FrameSink = {
        begin: ({ type, length }) => {
          expect(length).toBeLessThanOrEqual(LIMITS[type as keyof typeof LIMITS]);
          return { kind: 'copy', bytes: new Uint8Array(length) };
        },
        end: () => undefined,
      };
      const parser = new FrameParser(9, LIMITS, sink);
      try {
        for (const bytes of parts) parser.push(bytes);
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' });
      }
    }),
    { numRuns: 500 },
  );
});

test('the rest of a frame can be dropped in the middle, and the next one is read', () => {
  const seen: number[] = [];
  const memory = new Uint8Array(16).fill(7);
  const sink: FrameSink = {
    begin: ({ pass }) => (pass === 1 ? { kind: 'copy', bytes: memory } : DISCARD),
    end: ({ pass }) => seen.push(pass),
  };
  const parser = new FrameParser(9, LIMITS, sink);
  const first = frameBytes({ type: PASS, epoch: 9, pass: 1, step: 0 }, [0, 0, 0, 0]);
  parser.push(first.subarray(0, 32 + 5));
  parser.discardRest();
  parser.push(
    Buffer.concat([first.subarray(32 + 5), frameBytes({ type: PASS, epoch: 9, pass: 2, step: 0 }, [1])]),
  );
  expect([...memory]).toEqual([0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
  expect(seen).toEqual([1, 2]);
});

test('a sink that stops the parser gets nothing more', () => {
  const seen: number[] = [];
  const parser = new FrameParser(9, LIMITS, {
    begin: () => DISCARD,
    end: ({ pass }) => {
      seen.push(pass);
      parser.stop();
    },
  });
  const bytes = [1, 2].map(pass => frameBytes({ type: PASS, epoch: 9, pass, step: 0 }, [pass]));
  parser.push(Buffer.concat(bytes));
  expect(seen).toEqual([1]);
});
