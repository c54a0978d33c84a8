import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PotluckError } from '../../src/errors/errors.ts';
import { duplicateKey, headerLength, readHeader } from '../../src/model/safetensors-header.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);
const read = (text: string, dataBytes: number) =>
  readHeader(bytesOf(text), 8 + bytesOf(text).length + dataBytes, 'x.safetensors');
const tensor = (dtype: string, shape: unknown, from: unknown, to: unknown) => ({
  dtype,
  shape,
  data_offsets: [from, to],
});

test('tensors in any order, scalars, empty ones and metadata', () => {
  const text = `${JSON.stringify({
    __metadata__: { format: 'pt' },
    b: tensor('F32', [2, 3], 4, 28),
    a: tensor('BF16', [2], 0, 4),
    empty: tensor('F32', [0, 5], 28, 28),
    scalar: tensor('F64', [], 28, 36),
  })}   `;
  const tensors = read(text, 36);
  expect([...tensors.keys()]).toEqual(['b', 'a', 'empty', 'scalar']);
  expect(tensors.get('b')).toEqual({ dtype: 'F32', shape: [2, 3], offset: 8 + text.length + 4, bytes: 24 });
});

test.each<[string, string, number]>([
  ['overlap', JSON.stringify({ a: tensor('U8', [4], 0, 4), b: tensor('U8', [4], 2, 6) }), 6],
  ['hole', JSON.stringify({ a: tensor('U8', [4], 0, 4), b: tensor('U8', [4], 6, 10) }), 10],
  ['rest', JSON.stringify({ a: tensor('U8', [4], 0, 4) }), 5],
  ['out of the file', JSON.stringify({ a: tensor('U8', [8], 0, 8) }), 4],
  ['huge count', JSON.stringify({ a: tensor('U8', [2 ** 52, 2 ** 52], 0, 4) }), 4],
  ['count that wraps 64 bits', JSON.stringify({ a: tensor('U8', [2 ** 32, 2 ** 32, 4], 0, 0) }), 0],
  ['negative dimension', JSON.stringify({ a: tensor('U8', [-2, -2], 0, 4) }), 4],
  ['negative offset', JSON.stringify({ a: tensor('U8', [4], -4, 0) }), 4],
  ['backwards', JSON.stringify({ a: tensor('U8', [0], 4, 0) }), 4],
  ['fraction', JSON.stringify({ a: tensor('U8', [1.5, 2], 0, 3) }), 3],
  ['not its size', JSON.stringify({ a: tensor('F32', [4], 0, 8) }), 8],
  ['unknown type', JSON.stringify({ a: tensor('Q4', [4], 0, 4) }), 4],
  ['type from the prototype', JSON.stringify({ a: tensor('constructor', [4], 0, 4) }), 4],
  ['seventeen dimensions', JSON.stringify({ a: tensor('U8', Array(17).fill(1), 0, 1) }), 1],
  ['no object', '{"a":7}', 0],
  ['null', 'null', 0],
  ['list', '[]', 0],
  ['leading blank', ' {}', 0],
  ['cut off', '{"a":{', 0],
  [
    'duplicate tensor',
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    0,
  ],
  ['duplicate field', '{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0],
])('refuses: %s', (_what, text, dataBytes) => {
  expect(() => read(text, dataBytes)).toThrow(
    expect.objectContaining({
      code: 'CHECKPOINT_INVALID',
      message: expect.stringContaining('x.safetensors'),
    }),
  );
});

test('__proto__ is a name like any other', () => {
  expect([...read('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1).keys()]).toEqual([
    '__proto__',
  ]);
});

test('the length of a header is bounded before it is read', () => {
  const first = (length: bigint) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, length, true);
    return bytes;
  };
  expect(headerLength(first(92n), 100, 'x')).toBe(92);
  for (const length of [93n, 100_000_001n, 2n ** 63n, 2n ** 64n - 1n])
    expect(() => headerLength(first(length), 100, 'x')).toThrow(
      expect.objectContaining({ code: 'CHECKPOINT_INVALID' }),
    );
});

test('duplicate keys are found at any depth, and only those of one object', () => {
  expect(duplicateKey('{"a":{"x":1},"b":{"x":1},"c":["a","a",{"a":"a"}]}')).toBeUndefined();
  expect(duplicateKey('{"a":[{"x":"x\\"","y":{},"x" : 2}]}')).toBe('x');
});

test('fuzz: bytes give tensors or CHECKPOINT_INVALID, nothing else', () => {
  const valid = JSON.stringify({ a: tensor('U8', [2, 2], 0, 4), b: tensor('BF16', [4], 4, 12) });
  const change = fc.record({
    at: fc.nat(valid.length - 1),
    cut: fc.nat(4),
    put: fc.string({ maxLength: 4 }),
  });
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.array(change, { maxLength: 3 })), source => {
      let text = typeof source === 'string' ? source : valid;
      if (typeof source !== 'string')
        for (const { at, cut, put } of source) text = text.slice(0, at) + put + text.slice(at + cut);
      try {
        for (const { offset, bytes } of read(text, 12).values())
          expect(offset + bytes).toBeLessThanOrEqual(8 + bytesOf(text).length + 12);
      } catch (error) {
        expect(error).toBeInstanceOf(PotluckError);
        expect((error as PotluckError).code).toBe('CHECKPOINT_INVALID');
      }
    }),
    { numRuns: 500, seed: 1 },
  );
});
