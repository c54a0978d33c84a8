import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { benchDecode } from '../../../src/cli/bench/bench-decode.ts';
import { benchPrompt } from '../../../src/cli/bench/bench-prompt.ts';
import { decodeText, promptText } from '../../../src/cli/bench/bench-text.ts';
import { fillPages, keyValueBytes, writeAttentionPack } from '../../../src/cli/bench/part-packs.ts';
import { passSeconds } from '../../../src/cli/bench/passes.ts';
import { ResidentModel } from '../../../src/cli/bench/resident-model.ts';
import { parseShapes } from '../../../src/model/named-shapes.ts';
import { writeSyntheticPack } from '../../../src/model/synthetic-pack.ts';
import { openPackFolder } from '../../../src/pack/pack-folder.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';

const SHAPE = parseShapes(
  `name model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size max_position_embeddings
   tiny llama 256 3 8 2 32 704 2000 640`,
  'shapes.txt',
)[0]!;

async function tinyPack() {
  const target = join(await temporaryFolder(), 'pack');
  await writeSyntheticPack({ shape: SHAPE, seed: 1, storedLayers: 2, target, fileSystem: fs, crc32c });
  return openPackFolder(fs, target);
}

test('decode: what it reports fits together', async () => {
  const pack = await tinyPack();
  const bench = await benchDecode(pack, { threads: 2, runs: 2 });
  expect(bench).toMatchObject({ model: 'tiny', threads: 2, runs: 2, unit: 'tokens/s', saturated: 0 });
  expect(bench.weightBytesPerToken).toBe(pack.manifest.tiles.reduce((sum, { bytes }) => sum + bytes, 0));
  expect(bench.ratio).toBeCloseTo(bench.measured / bench.limit, 10);
  expect(bench.limit).toBeCloseTo(bench.readRate / bench.weightBytesPerToken, 3);
  expect(bench.measured).toBeGreaterThan(0);
  expect(decodeText(bench)).toMatch(/^tiny, .*2 threads, decode[\s\S]*ratio/);
});

test('prompt: longer than a pass, and not longer than the context', async () => {
  const pack = await tinyPack();
  const bench = await benchPrompt(pack, { threads: 1, runs: 1, tokens: 300 });
  expect(bench).toMatchObject({ tokens: 300, unit: 'multiply-adds/s', saturated: 0 });
  expect(bench.measured).toBeGreaterThan(0);
  const multiplyAdds = 300 * 3 * 256 * (2 * (8 + 2) * 32 + 3 * 704) + 2000 * 256;
  expect(bench.measured / bench.tokensPerSecond / (multiplyAdds / 300)).toBeCloseTo(1, 9);
  expect(promptText(bench)).toMatch(/^tiny, .*1 thread, prompt of 300 tokens/);
  await expect(benchPrompt(pack, { threads: 1, runs: 1, tokens: 641 })).rejects.toMatchObject({
    code: 'BAD_OPTION',
  });
});

test('the model that is little but attention computes over all positions', async () => {
  const pack = await writeAttentionPack(SHAPE.config.shape, 256, await temporaryFolder());
  const model = await ResidentModel.open(pack, 256);
  try {
    const lane = await model.lane({ threads: 2 });
    await fillPages(lane, model.pages);
    expect(await passSeconds(lane, model.pages, 255, 1)).toBeGreaterThan(0);
    expect(keyValueBytes(pack, 256)).toBeGreaterThan(model.weightBytes / 8);
    expect(lane.device.saturated).toBe(0);
  } finally {
    await model.close();
  }
});
