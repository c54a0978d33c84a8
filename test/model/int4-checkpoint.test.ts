import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { floatToHalf, halfToFloat } from '../../src/pack/number-formats.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { SMALL } from './small-checkpoint.ts';

const ROWS = 16;
const COLUMNS = 24;
const GROUPS = 3;
const NAME = 'model.layers.0.mlp.up_proj';

/** Quanta [rows][columns], zero points and scales [rows][groups], drawn by hand so that all differ. */
const quantum = (row: number, column: number) => (row * 7 + column * 3) % 16;
const zero = (row: number, group: number) => 1 + ((row + 5 * group) % 15);
const scale = (row: number, group: number) => halfToFloat(floatToHalf(0.01 * (1 + row) + 0.1 * group));

interface Part {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

const i32 = (shape: readonly number[], fill: (at: number) => number): Part => {
  const values = Int32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, at) => fill(at));
  return { dtype: 'I32', shape, bytes: new Uint8Array(values.buffer) };
};
const packed = (value: (k: number) => number): number =>
  [...Array(8).keys()].reduce((bits, k) => bits | (value(k) << (4 * k)), 0);

const scales: Part = {
  dtype: 'F16',
  shape: [GROUPS, ROWS],
  bytes: new Uint8Array(
    Uint16Array.from({ length: GROUPS * ROWS }, (_, at) =>
      floatToHalf(scale(at % ROWS, Math.floor(at / ROWS))),
    ).buffer,
  ),
};

/** As AutoGPTQ packs: inputs in order, zero points less `less`. */
function gptq(less: number, groupOf?: (column: number) => number): Record<string, Part> {
  return {
    [`${NAME}.qweight`]: i32([COLUMNS / 8, ROWS], at =>
      packed(k => quantum(at % ROWS, 8 * Math.floor(at / ROWS) + k)),
    ),
    [`${NAME}.qzeros`]: i32([GROUPS, ROWS / 8], at =>
      packed(k => zero(8 * (at % (ROWS / 8)) + k, Math.floor(at / (ROWS / 8))) - less),
    ),
    [`${NAME}.scales`]: scales,
    ...(groupOf === undefined ? {} : { [`${NAME}.g_idx`]: i32([COLUMNS], groupOf) }),
  };
}

/** As AutoAWQ packs: outputs 0, 2, 4, 6, 1, 3, 5, 7 of eight from the low bits up. */
function awq(): Record<string, Part> {
  const order = [0, 2, 4, 6, 1, 3, 5, 7];
  return {
    [`${NAME}.qweight`]: i32([COLUMNS, ROWS / 8], at =>
      packed(k => quantum(8 * (at % (ROWS / 8)) + order[k]!, Math.floor(at / (ROWS / 8)))),
    ),
    [`${NAME}.qzeros`]: i32([GROUPS, ROWS / 8], at =>
      packed(k => zero(8 * (at % (ROWS / 8)) + order[k]!, Math.floor(at / (ROWS / 8)))),
    ),
    [`${NAME}.scales`]: scales,
  };
}

async function opened(quantization: unknown, parts: Readonly<Record<string, Part>>) {
  const folder = await temporaryFolder();
  await fs.writeFile(
    join(folder, 'config.json'),
    JSON.stringify({ ...SMALL, quantization_config: quantization }),
  );
  let end = 0;
  const header = Object.fromEntries(
    Object.entries(parts).map(([name, { dtype, shape, bytes }]) => {
      end += bytes.length;
      return [name, { dtype, shape, data_offsets: [end - bytes.length, end] }];
    }),
  );
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = Object.values(parts).map(({ bytes }) => bytes);
  await fs.writeFile(join(folder, 'model.safetensors'), Buffer.concat([length, text, ...data]));
  return openCheckpoint(fs, folder);
}

const inOrder = (column: number) => Math.floor(column / (COLUMNS / GROUPS));
const shuffled = (column: number) => (column * 5) % GROUPS;

test.each<[string, object, Record<string, Part>, (column: number) => number]>([
  ['GPTQ', { quant_method: 'gptq', bits: 4, group_size: 8, checkpoint_format: 'gptq' }, gptq(1), inOrder],
  [
    'GPTQ by activation order',
    { quant_method: 'gptq', bits: 4, desc_act: true },
    gptq(1, shuffled),
    shuffled,
  ],
  ['GPTQ, second format', { quant_method: 'gptq', bits: 4, checkpoint_format: 'gptq_v2' }, gptq(0), inOrder],
  ['AWQ', { quant_method: 'awq', w_bit: 4, version: 'GEMM' }, awq(), inOrder],
])(
  '%s: every weight is its scale times its quantum over zero, to the bit',
  async (_, quantization, parts, groupOf) => {
    const checkpoint = await opened(quantization, parts);
    expect(checkpoint.config).not.toHaveProperty('quantization_config');
    expect(checkpoint.has(`${NAME}.weight`)).toBe(true);
    expect(checkpoint.has('model.norm.weight')).toBe(false);
    expect([...checkpoint.tensors()]).toEqual([[`${NAME}.weight`, [ROWS, COLUMNS]]]);
    checkpoint.expect(`${NAME}.weight`, [ROWS, COLUMNS]);
    expect(() => checkpoint.expect(`${NAME}.weight`, [COLUMNS, ROWS])).toThrow(/has the shape \[16,24\]/);
    const rows = await checkpoint.readRows(`${NAME}.weight`, 3, 10);
    const got = new Float32Array(COLUMNS);
    for (let i = 0; i < 10; i++) {
      rows.copy(i, 5, COLUMNS - 5, got);
      for (let column = 5; column < COLUMNS; column++) {
        const group = groupOf(column);
        const expected = scale(3 + i, group) * (quantum(3 + i, column) - zero(3 + i, group));
        expect(got[column - 5]).toBe(Math.fround(expected));
      }
    }
    expect(() => rows.copy(10, 0, 1, got)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    await checkpoint.close();
  },
);

test.each<[string, object, Record<string, Part>, string]>([
  ['another method', { quant_method: 'bitsandbytes' }, gptq(1), 'UNSUPPORTED_MODEL'],
  ['three bits', { quant_method: 'gptq', bits: 3 }, gptq(1), 'UNSUPPORTED_MODEL'],
  ['another kernel of AWQ', { quant_method: 'awq', bits: 4, version: 'gemv' }, awq(), 'UNSUPPORTED_MODEL'],
  ['no method', { bits: 4 }, gptq(1), 'CHECKPOINT_INVALID'],
])('refuses %s', async (_, quantization, parts, code) => {
  await expect(opened(quantization, parts)).rejects.toMatchObject({ code });
});

test.each<[string, Record<string, Part>]>([
  ['scales of another width', { [`${NAME}.scales`]: { ...scales, shape: [ROWS, GROUPS] } }],
  ['zero points that are missing groups', { [`${NAME}.qzeros`]: i32([1, ROWS / 8], () => 0) }],
  ['quanta that are floats', { [`${NAME}.qweight`]: { ...gptq(1)[`${NAME}.qweight`]!, dtype: 'F32' } }],
  ['groups out of range', { [`${NAME}.g_idx`]: i32([COLUMNS], () => GROUPS) }],
  ['too few groups', { [`${NAME}.g_idx`]: i32([COLUMNS - 1], () => 0) }],
])('refuses %s when they are read', async (_, wrong) => {
  const checkpoint = await opened({ quant_method: 'gptq', bits: 4 }, { ...gptq(1), ...wrong });
  await expect(checkpoint.readRows(`${NAME}.weight`, 0, 1)).rejects.toMatchObject({
    code: 'CHECKPOINT_INVALID',
  });
  await checkpoint.close();
});
