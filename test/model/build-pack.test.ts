import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { type BuildPackOptions, buildPack } from '../../src/model/build-pack.ts';
import { openPackFolder } from '../../src/pack/pack-folder.ts';
import { constantOffset } from '../../src/pack/tile-shape.ts';
import { crc32c } from '../pack/crc32c-table.ts';
import { embeddingFaults } from '../pack/embedding-faults.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { withGoldenFrequencies } from './golden-frequencies.ts';
import { packLogits } from './pack-logits.ts';
import { plainBackend } from './plain-backend.ts';
import { sharedJson } from './shared-files.ts';
import { SMALL, safetensorsBytes, smallTensors, writeCheckpoint } from './small-checkpoint.ts';
import { byteLevelJson } from './tiny-tokenizers.ts';

const SHARED = fileURLToPath(new URL('../../../shared/', import.meta.url));

interface Golden {
  readonly ids: readonly number[];
  readonly logits_every_8: readonly (readonly number[])[];
  readonly argmax: readonly number[];
}

function build(checkpoint: string, target: string, more: Partial<BuildPackOptions> = {}) {
  return buildPack({
    checkpoint,
    target,
    name: 'small',
    weights: 'bf16',
    fileSystem: fs,
    crc32c,
    backend: plainBackend(),
    calibrationTokens: [5, 9, 14, 3, 8, 22, 17, 30, 41, 6, 11, 19],
    ...more,
  });
}

async function openGolden(folder: string) {
  const pack = await openPackFolder(fs, folder);
  return { ...pack, manifest: { ...pack.manifest, shape: withGoldenFrequencies(pack.manifest.shape) } };
}

for (const name of ['llama-gqa', 'llama3-rope']) {
  test(`a bf16 pack of ${name} gives the logits of transformers`, async ctx => {
    const golden = sharedJson(ctx, `golden/${name}/golden.json`) as Golden;
    const target = join(await temporaryFolder(), 'pack');
    await build(join(SHARED, 'golden', name), target);
    const logits = await packLogits(await openGolden(target), plainBackend(), golden.ids);
    expect(logits.map(row => row.indexOf(Math.max(...row)))).toEqual(golden.argmax);
    // golden.json has five decimals; the rest is float32 rounding there.
    golden.logits_every_8.forEach((row, i) => {
      row.forEach((value, j) => {
        expect(Math.abs(value - logits[i * 8 + 7]![j]!)).toBeLessThan(3e-5);
      });
    });
  });
}

test('sizes that fill no block, and query heads split over tiles, give what whole tiles give', async () => {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'checkpoint'));
  const ids = [1, 7, 33, 49, 2, 18];
  const rows = [];
  for (const [partsPerKvHead, ffnColumns, headRows] of [
    [1, 96, 64],
    [2, 32, 16],
  ] as const) {
    const target = join(folder, `pack-${partsPerKvHead}`);
    await build(join(folder, 'checkpoint'), target, { tiling: { partsPerKvHead, ffnColumns, headRows } });
    rows.push(await packLogits(await openPackFolder(fs, target), plainBackend(), ids));
  }
  for (const [i, row] of rows[0]!.entries())
    for (const [j, value] of row.entries()) expect(Math.abs(value - rows[1]![i]![j]!)).toBeLessThan(1e-5);
});

test('the same checkpoint gives the same bytes', async () => {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'checkpoint'));
  for (const name of ['a', 'b'])
    await build(join(folder, 'checkpoint'), join(folder, name), { weights: 'w4' });
  for (const file of ['manifest.json', 'tiles.bin'])
    expect(
      (await fs.readFile(join(folder, 'a', file))).equals(await fs.readFile(join(folder, 'b', file))),
    ).toBe(true);
});

test('a checkpoint in shards, in F32 or F16, gives the pack of the same numbers', async () => {
  const folder = await temporaryFolder();
  const config = { ...SMALL, tie_word_embeddings: true };
  const tensors = await writeCheckpoint(join(folder, 'whole'), config, 'F32');
  await fs.mkdir(join(folder, 'shards'));
  const halves = [[...tensors].slice(0, 8), [...tensors].slice(8)];
  const weightMap: Record<string, string> = {};
  for (const [i, half] of halves.entries()) {
    const name = `model-0000${i + 1}-of-00002.safetensors`;
    await fs.writeFile(join(folder, 'shards', name), safetensorsBytes(new Map(half), 'F32'));
    for (const [tensor] of half) weightMap[tensor] = name;
  }
  await fs.writeFile(join(folder, 'shards', 'config.json'), JSON.stringify(config));
  await fs.writeFile(
    join(folder, 'shards', 'model.safetensors.index.json'),
    JSON.stringify({ weight_map: weightMap }),
  );
  const a = await build(join(folder, 'whole'), join(folder, 'a'));
  const b = await build(join(folder, 'shards'), join(folder, 'b'));
  expect(b).toEqual(a);
  await writeCheckpoint(join(folder, 'half'), config, 'F16');
  const c = await build(join(folder, 'half'), join(folder, 'c'));
  expect(c.shape).toEqual(a.shape);
  expect(c.embedding.sha256).not.toBe(a.embedding.sha256); // other roundings
});

test('tokenizer files and special tokens come along', async () => {
  const folder = await temporaryFolder();
  const checkpoint = join(folder, 'checkpoint');
  await writeCheckpoint(checkpoint);
  await fs.writeFile(
    join(checkpoint, 'tokenizer.json'),
    JSON.stringify({ ...byteLevelJson(), added_tokens: [{ id: 9, content: '<end>' }] }),
  );
  await fs.writeFile(
    join(checkpoint, 'tokenizer_config.json'),
    '{"eos_token":{"content":"<end>"},"add_bos_token":true}',
  );
  await fs.writeFile(join(checkpoint, 'generation_config.json'), '{"eos_token_id":[7,2,5000]}');
  await fs.writeFile(join(checkpoint, 'chat_template.jinja'), '{{ messages }}');
  const manifest = await build(checkpoint, join(folder, 'pack'));
  expect(manifest.stopTokens).toEqual([2, 3, 7, 9]);
  expect(manifest.beginToken).toBe(1);
  expect(manifest.files.map(file => file.name)).toEqual([
    'tokenizer.json',
    'vocabulary.bin',
    'tokenizer_config.json',
    'chat_template.jinja',
    'embedding.crc32c',
  ]);
  const pack = await openPackFolder(fs, join(folder, 'pack'));
  expect(Buffer.from((await pack.readFile('chat_template.jinja'))!).toString()).toBe('{{ messages }}');
  expect(await pack.readFile('other')).toBeUndefined();
  expect(await embeddingFaults(pack)).toEqual([]);
});

test('norms and scales lie in the constants', async () => {
  const folder = await temporaryFolder();
  const tensors = await writeCheckpoint(join(folder, 'checkpoint'), SMALL, 'F32');
  const { shape } = await build(join(folder, 'checkpoint'), join(folder, 'pack'));
  const { constants } = await openPackFolder(fs, join(folder, 'pack'));
  const at = (offset: number) => new Float32Array(constants, offset * 4, shape.width);
  expect(at(constantOffset(shape, 'ffnNorm', 1))).toEqual(
    tensors.get('model.layers.1.post_attention_layernorm.weight')!.values,
  );
  expect(at(constantOffset(shape, 'finalNorm'))).toEqual(tensors.get('model.norm.weight')!.values);
  for (const scale of at(constantOffset(shape, 'attentionScale', 1))) {
    expect(Number.isInteger(Math.log2(scale))).toBe(true);
    expect(scale).toBeGreaterThan(2 ** 10);
    expect(scale).toBeLessThan(2 ** 40);
  }
});

test.each([
  ['a tensor of another shape', 'hidden_size', 96, /shape/],
  ['a tensor that is missing', 'num_hidden_layers', 3, /has no tensor model.layers.2/],
])('%s is refused before anything is written', async (_what, field, value, message) => {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'checkpoint'));
  await fs.writeFile(join(folder, 'checkpoint', 'config.json'), JSON.stringify({ ...SMALL, [field]: value }));
  const building = build(join(folder, 'checkpoint'), join(folder, 'pack'));
  await expect(building).rejects.toMatchObject({
    code: 'CHECKPOINT_INVALID',
    message: expect.stringMatching(message),
  });
  expect(await fs.readdir(folder)).toEqual(['checkpoint']);
});

test.each(['bf16', 'w4'] as const)(
  'a weight that none can be is refused in %s, and nothing is left',
  async weights => {
    for (const [name, value] of [
      ['model.layers.1.mlp.up_proj.weight', Number.NaN],
      ['model.layers.1.mlp.up_proj.weight', 1.7e38],
      ['model.norm.weight', 1.7e38],
      ['lm_head.weight', -1.7e38],
      ['model.embed_tokens.weight', 1e6],
    ] as const) {
      const folder = await temporaryFolder();
      const tensors = smallTensors(SMALL);
      await writeCheckpoint(join(folder, 'checkpoint'));
      tensors.get(name)!.values[5] = value;
      await fs.writeFile(join(folder, 'checkpoint', 'model.safetensors'), safetensorsBytes(tensors, 'BF16'));
      const building = build(join(folder, 'checkpoint'), join(folder, 'pack'), { weights });
      await expect(building).rejects.toMatchObject({
        code: 'CHECKPOINT_INVALID',
        message: expect.stringContaining(`tensor ${name}: row 0, column 5 is `),
      });
      expect(await fs.readdir(folder)).toEqual(['checkpoint']);
    }
  },
);

test('folders that are there, or not, and bad names are refused', async () => {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'checkpoint'));
  await fs.mkdir(join(folder, 'there'));
  await expect(build(join(folder, 'checkpoint'), join(folder, 'there'))).rejects.toMatchObject({
    code: 'BAD_OPTION',
  });
  await expect(build(join(folder, 'nothing'), join(folder, 'pack'))).rejects.toMatchObject({
    code: 'PACK_NOT_FOUND',
  });
  await expect(
    build(join(folder, 'checkpoint'), join(folder, 'pack'), { name: '../x' }),
  ).rejects.toMatchObject({ code: 'BAD_OPTION' });
});
