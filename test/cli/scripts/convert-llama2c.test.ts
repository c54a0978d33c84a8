import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
// @ts-expect-error: plain JavaScript
import { readModel, readTokens } from '../../../scripts/convert-llama2c.mjs';
import { buildPack } from '../../../src/model/build-pack.ts';
import { openTokenizer } from '../../../src/model/open-tokenizer.ts';
import { openPackFolder } from '../../../src/pack/pack-folder.ts';
import { packLogits } from '../../model/pack-logits.ts';
import { plainBackend } from '../../model/plain-backend.ts';
import { randomNumbers } from '../../model/small-checkpoint.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';

const SCRIPT = fileURLToPath(new URL('../../../scripts/convert-llama2c.mjs', import.meta.url));

const SIZES = { width: 32, ffnWidth: 48, layers: 2, heads: 4, kvHeads: 2, vocabulary: 260, context: 16 };
type Sizes = typeof SIZES;

/** Numbers of the matrices in the order of the file; [rows * columns] each. */
function matricesOf(s: Sizes, numbers: () => number) {
  const kv = (s.width / s.heads) * s.kvHeads;
  const of = (count: number, mean = 0) => Float32Array.from({ length: count }, () => mean + 0.2 * numbers());
  const perLayer = (count: number, mean = 0) => Array.from({ length: s.layers }, () => of(count, mean));
  return {
    embedding: of(s.vocabulary * s.width),
    attentionNorm: perLayer(s.width, 1),
    query: perLayer(s.width * s.width),
    key: perLayer(kv * s.width),
    value: perLayer(kv * s.width),
    output: perLayer(s.width * s.width),
    ffnNorm: perLayer(s.width, 1),
    gate: perLayer(s.ffnWidth * s.width),
    down: perLayer(s.width * s.ffnWidth),
    up: perLayer(s.ffnWidth * s.width),
    finalNorm: of(s.width, 1),
    tables: of(s.context * (s.width / s.heads)),
    head: of(s.vocabulary * s.width),
  };
}
type Matrices = ReturnType<typeof matricesOf>;

function modelBytes(s: Sizes, m: Matrices): Uint8Array {
  const header = Int32Array.of(s.width, s.ffnWidth, s.layers, s.heads, s.kvHeads, -s.vocabulary, s.context);
  return Buffer.concat([header, ...Object.values(m).flat()].map(part => new Uint8Array(part.buffer)));
}

/** Three control tokens, the bytes, and one piece. */
function tokenBytes(): Uint8Array {
  const texts = ['<unk>', '\n<s>\n', '\n</s>\n'];
  for (let byte = 0; byte < 256; byte++)
    texts.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  texts.push(' ');
  const parts = texts.map(text => {
    const bytes = Buffer.from(text);
    return Buffer.concat([
      new Uint8Array(Float32Array.of(-1).buffer),
      new Uint8Array(Int32Array.of(bytes.length).buffer),
      bytes,
    ]);
  });
  return Buffer.concat([new Uint8Array(Int32Array.of(7).buffer), ...parts]);
}

/** Logits at the last of `ids` as llama2.c computes them: neighbours are rotated, heads share keys in groups. */
function plainLogits(s: Sizes, m: Matrices, ids: readonly number[]): number[] {
  const size = s.width / s.heads;
  const row = (w: Float32Array, r: number, n: number) => Array.from(w.subarray(r * n, (r + 1) * n));
  const product = (w: Float32Array, x: readonly number[]) =>
    Array.from({ length: w.length / x.length }, (_, r) =>
      x.reduce((sum, v, c) => sum + v * w[r * x.length + c]!, 0),
    );
  const norm = (x: readonly number[], w: Float32Array) => {
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + 1e-5);
    return x.map((v, i) => v * scale * w[i]!);
  };
  const turn = (x: readonly number[], at: number) =>
    x.map((v, i) => {
      const angle = at * 10000 ** (-((i % size) - (i % 2)) / size);
      const other = i % 2 === 0 ? -x[i + 1]! : x[i - 1]!;
      return v * Math.cos(angle) + other * Math.sin(angle);
    });
  const keys: number[][][] = m.key.map(() => []);
  const values: number[][][] = m.value.map(() => []);
  let x: number[] = [];
  for (const [at, id] of ids.entries()) {
    x = row(m.embedding, id, s.width);
    for (let layer = 0; layer < s.layers; layer++) {
      const h = norm(x, m.attentionNorm[layer]!);
      const q = turn(product(m.query[layer]!, h), at);
      keys[layer]!.push(turn(product(m.key[layer]!, h), at));
      values[layer]!.push(product(m.value[layer]!, h));
      const mixed = Array.from({ length: s.width }, (_, i) => {
        const head = Math.floor(i / size);
        const kv = Math.floor(head / (s.heads / s.kvHeads)) * size;
        const scores = keys[layer]!.map(
          k =>
            Array.from({ length: size }, (_, j) => q[head * size + j]! * k[kv + j]!).reduce((a, b) => a + b) /
            Math.sqrt(size),
        );
        const weights = scores.map(score => Math.exp(score - Math.max(...scores)));
        const sum = weights.reduce((a, b) => a + b);
        return weights.reduce((total, w, t) => total + (w / sum) * values[layer]![t]![kv + (i % size)]!, 0);
      });
      x = product(m.output[layer]!, mixed).map((v, i) => v + x[i]!);
      const f = norm(x, m.ffnNorm[layer]!);
      const up = product(m.up[layer]!, f);
      const gated = product(m.gate[layer]!, f).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
      x = product(m.down[layer]!, gated).map((v, i) => v + x[i]!);
    }
  }
  return product(m.head, norm(x, m.finalNorm));
}

test('the converted model computes what llama2.c computes, and has its tokens', async () => {
  const folder = await temporaryFolder();
  const numbers = matricesOf(SIZES, randomNumbers(3));
  await fs.writeFile(join(folder, 'model.bin'), modelBytes(SIZES, numbers));
  await fs.writeFile(join(folder, 'tokens.bin'), tokenBytes());
  const target = join(folder, 'checkpoint');
  const paths = [join(folder, 'model.bin'), join(folder, 'tokens.bin'), target];
  const { stdout } = await promisify(execFile)(process.execPath, [SCRIPT, ...paths]);
  expect(stdout).toContain('21 tensors, 260 tokens');
  const tokenizer = await openTokenizer(fs, target);
  expect(tokenizer.encode('é', { special: false })).toEqual([259, 3 + 0xc3, 3 + 0xa9]);
  const options = { fileSystem: fs, crc32c, backend: plainBackend(), name: 'x', weights: 'bf16' as const };
  const manifest = await buildPack({ checkpoint: target, target: join(folder, 'pack'), ...options });
  expect(manifest).toMatchObject({ stopTokens: [1, 2], beginToken: 1 });
  const ids = [1, 259, 100, 7, 200];
  const logits = await packLogits(await openPackFolder(fs, join(folder, 'pack')), plainBackend(), ids);
  const expected = plainLogits(SIZES, numbers, ids);
  // bfloat16 keeps 8 bits of each weight.
  const spread = Math.max(...expected) - Math.min(...expected);
  const errors = expected.map((value, i) => Math.abs(value - logits.at(-1)![i]!));
  expect(Math.max(...errors)).toBeLessThan(0.02 * spread);
  expect(spread).toBeGreaterThan(1);
});

test('refuses what is too short, too long, or of another kind', () => {
  const bytes = modelBytes(SIZES, matricesOf(SIZES, randomNumbers(3)));
  expect(() => readModel(bytes.subarray(0, -4))).toThrow(/ends too early/);
  expect(() => readModel(Buffer.concat([bytes, new Uint8Array(4)]))).toThrow(/were expected/);
  expect(() => readModel(new Uint8Array(10))).toThrow(/no header/);
  expect(() => readModel(Buffer.concat([Buffer.from('ak42'), bytes]))).toThrow(/not a model of/);
  expect(() => readTokens(tokenBytes(), 261)).toThrow(/before token 260/);
});
