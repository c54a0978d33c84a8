import { describe, expect, it } from 'vitest';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import { addon } from '../kernels/addon-under-test.ts';
import { patternBytes } from './tile-files.ts';

/** RFC 3720, appendix B.4, and the check value of the catalogue of CRCs. */
const VECTORS: readonly (readonly [name: string, bytes: Uint8Array, crc: number])[] = [
  ['nothing', new Uint8Array(0), 0],
  ['123456789', Buffer.from('123456789'), 0xe3069283],
  ['32 zeros', new Uint8Array(32), 0x8a9136aa],
  ['32 ones', new Uint8Array(32).fill(255), 0x62a8ab43],
  ['0 to 31', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
  ['31 to 0', Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
];

const ALL_VARIANTS = ['table', 'sse4.2', 'vpclmulqdq', 'arm-crc'];

describe('CRC-32C', () => {
  const here = addon.crc32cVariants();
  for (const name of ALL_VARIANTS.filter(variant => !here.includes(variant))) {
    console.warn(`CRC-32C variant ${name} is not tested: this processor lacks it`);
  }
  const variants = new Map<string, (bytes: Uint8Array, seed?: number) => number>([
    ['TypeScript', crc32c],
    ['the fastest', (bytes, seed) => addon.crc32c(bytes, seed)],
    ...here.map(name => [name, (bytes: Uint8Array, seed = 0) => addon.crc32c(bytes, seed, name)] as const),
  ]);

  it('has the table reference first', () => {
    expect(here[0]).toBe('table');
  });

  it.each([...variants.keys()])('%s gives the known values', name => {
    const run = variants.get(name)!;
    for (const [what, bytes, crc] of VECTORS) expect(run(bytes), what).toBe(crc);
  });

  it('is the same in every variant for every length, start and seed', () => {
    const bytes = patternBytes(60_000, 7);
    // Around the 8, 3 * 256 and 3 * 8192 bytes of the interleaved loops, and the 256 of the folded one.
    const lengths = [
      0, 1, 7, 8, 9, 63, 255, 256, 257, 511, 512, 767, 768, 769, 775, 1536, 24_575, 24_576, 24_577, 25_344,
      49_152, 50_001,
    ];
    for (const length of lengths) {
      for (const start of [0, 1, 3, 8]) {
        for (const seed of [0, 1, 0x80000000, 0xffffffff]) {
          const part = bytes.subarray(start, start + length);
          const expected = addon.crc32c(part, seed, 'table');
          for (const [name, run] of variants) {
            expect(run(part, seed), `${name}, ${length} bytes from ${start}, seed ${seed}`).toBe(expected);
          }
        }
      }
    }
  });

  it('goes on from a seed', () => {
    const bytes = patternBytes(10_001, 3);
    for (const [name, run] of variants) {
      expect(run(bytes.subarray(4321), run(bytes.subarray(0, 4321))), name).toBe(run(bytes));
    }
  });

  it('refuses a variant it does not have, and other arguments', () => {
    expect(() => addon.crc32c(new Uint8Array(1), 0, 'md5')).toThrow(/variant/);
    expect(() => addon.crc32c(new Uint8Array(1), -1)).toThrow(/seed/);
    expect(() => addon.crc32c('text' as unknown as Uint8Array)).toThrow(/bytes/);
  });
});
