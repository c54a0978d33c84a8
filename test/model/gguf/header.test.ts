import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PotluckError } from '../../../src/errors/errors.ts';
import { type GgufHeader, readGgufHeader } from '../../../src/model/gguf/header.ts';
import type { OpenFile } from '../../../src/pack/file-system.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';
import { f16Tensor, f32, f32Tensor, ggufBytes, u32 } from './gguf-file.ts';

/** A file in memory; counts the bytes that are asked for in one read. */
function memoryFile(bytes: Uint8Array): OpenFile & { most: number } {
  const unused = () => Promise.reject(new Error('not used'));
  return {
    most: 0,
    async read(buffer, offset, length, position) {
      this.most = Math.max(this.most, buffer.length);
      const part = bytes.subarray(position, position + length);
      buffer.set(part, offset);
      return { bytesRead: part.length };
    },
    stat: async () => ({ size: bytes.length }),
    close: async () => undefined,
    write: unused,
    truncate: unused,
    datasync: unused,
    sync: unused,
  };
}

const read = (bytes: Uint8Array): Promise<GgufHeader> => readGgufHeader(memoryFile(bytes), 'x.gguf');

const METADATA = {
  'general.architecture': 'llama',
  'llama.block_count': u32(2),
  'llama.epsilon': f32(0.5),
  flag: true,
  'tokenizer.ggml.tokens': { strings: ['a', 'bé', ''] },
  types: { i32s: [1, -2] },
};
const TENSORS = {
  'a.weight': f32Tensor([2, 3], [1, 2, 3, 4, 5, 6]),
  'b.weight': f16Tensor([4], [1, 2, 3, 4]),
};
const SMALL = ggufBytes(METADATA, TENSORS);

test('metadata of every kind, and tensors with their places', async () => {
  const { metadata, tensors } = await read(SMALL);
  expect(Object.fromEntries(metadata)).toEqual({
    'general.architecture': 'llama',
    'llama.block_count': 2,
    'llama.epsilon': 0.5,
    flag: true,
    'tokenizer.ggml.tokens': ['a', 'bé', ''],
    types: [1, -2],
  });
  const a = tensors.get('a.weight')!;
  expect(a).toMatchObject({ shape: [2, 3], bytes: 24, type: { name: 'F32' } });
  expect(new Float32Array(SMALL.slice(a.offset, a.offset + 24).buffer)).toEqual(
    Float32Array.of(1, 2, 3, 4, 5, 6),
  );
  expect(tensors.get('b.weight')).toMatchObject({ shape: [4], bytes: 8, offset: a.offset + 32 });
});

test('a real vocabulary file is read through small chunks', async () => {
  const path = join(await temporaryFolder(), 'many.gguf');
  const strings = Array.from({ length: 60_000 }, (_, i) => `token ${i}`);
  await fs.writeFile(path, ggufBytes({ 'general.architecture': 'x', list: { strings } }));
  const file = await fs.open(path);
  const { metadata } = await readGgufHeader(file, path);
  await file.close();
  expect(metadata.get('list')).toEqual(strings);
});

/** `SMALL` with some bytes replaced. */
function changed(at: number, ...bytes: number[]): Uint8Array {
  const copy = SMALL.slice();
  copy.set(bytes, at);
  return copy;
}
const HUGE = [255, 255, 255, 255, 255, 255, 15, 0];
const placeOf = (text: string): number => Buffer.from(SMALL).indexOf(text);

test.each<[string, Uint8Array, RegExp]>([
  ['nothing', new Uint8Array(0), /is not a GGUF file/],
  ['another file', changed(0, 0x50), /is not a GGUF file/],
  ['version 1', changed(4, 1), /version 1/],
  ['big-endian numbers', changed(4, 0, 0, 0, 3), /big-endian/],
  ['more tensors than bytes', changed(8, ...HUGE), /tensors, more than it can hold/],
  ['more keys than bytes', changed(16, ...HUGE), /metadata keys, more than it can hold/],
  ['an endless name', changed(24, ...HUGE), /bytes of text, more than it can hold/],
  [
    'an endless list',
    changed(placeOf('tokenizer.ggml.tokens') + 21 + 8, ...HUGE),
    /elements of .* more than it can hold/,
  ],
  ['a list of lists', changed(placeOf('tokenizer.ggml.tokens') + 21 + 4, 9), /list of the unknown type 9/],
  ['an unknown type', changed(placeOf('flag') + 4, 77), /unknown type 77/],
  [
    'a key twice',
    ggufBytes({ ab: true, aa: true }).map((byte, i, all) => (all[i - 1] === 97 && byte === 98 ? 97 : byte)),
    /"aa" twice/,
  ],
  [
    'five dimensions',
    ggufBytes({}, { t: { ...f32Tensor([1], [1]), shape: [1, 1, 1, 1, 1] } }),
    /5 dimensions/,
  ],
  [
    'an unknown type of tensor',
    ggufBytes({}, { t: { ...f32Tensor([1], [1]), type: 99 } }),
    /unknown type 99/,
  ],
  [
    'a shape over the end',
    ggufBytes({}, { t: { ...f32Tensor([1], [1]), shape: [2 ** 50, 2 ** 50] } }),
    /over the end/,
  ],
  [
    'a dimension over 53 bits',
    ggufBytes({}, { t: { ...f32Tensor([1], [1]), shape: [2 ** 60] } }),
    /a dimension of t is/,
  ],
  [
    'parts of blocks',
    ggufBytes({}, { t: { type: 2, shape: [1, 33], bytes: new Uint8Array(36) } }),
    /no whole blocks of Q4_0/,
  ],
  ['a wrong alignment', ggufBytes({ 'general.alignment': u32(3) }), /general.alignment is 3/],
  ['an overlap', overlapping(), /overlaps/],
])('refuses %s', async (_, bytes, reason) => {
  await expect(read(bytes)).rejects.toMatchObject({
    code: 'CHECKPOINT_INVALID',
    message: expect.stringMatching(reason),
  });
});

/** Two tensors at the same place. */
function overlapping(): Uint8Array {
  const bytes = ggufBytes({}, { t1: f32Tensor([8], Array(8).fill(1)), t2: f32Tensor([8], Array(8).fill(1)) });
  const second = Buffer.from(bytes).indexOf('t2');
  bytes.set([0], second + 2 + 4 + 8 + 4);
  return bytes;
}

test('a cut or damaged header is refused or read, within the bytes of the file', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: SMALL.length }),
      fc.array(fc.tuple(fc.nat({ max: SMALL.length - 1 }), fc.integer({ min: 0, max: 255 })), {
        maxLength: 4,
      }),
      async (length, damages) => {
        const bytes = SMALL.slice(0, length);
        for (const [at, byte] of damages) if (at < length) bytes[at] = byte;
        const file = memoryFile(bytes);
        try {
          await readGgufHeader(file, 'x.gguf');
        } catch (error) {
          expect(error).toBeInstanceOf(PotluckError);
          expect((error as PotluckError).code).toBe('CHECKPOINT_INVALID');
        }
        expect(file.most).toBeLessThanOrEqual(SMALL.length);
      },
    ),
    { numRuns: 500 },
  );
});
