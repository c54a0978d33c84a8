#!/usr/bin/env node
// Makes models/potluck-36m of the checkpoint that scripts/train-embedded-model.py wrote:
//   node scripts/pack-embedded-model.mjs CHECKPOINT_FOLDER [TARGET_FOLDER]

import * as fs from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { projectRoot, setupOrExit } from './setup.mjs';

const [checkpoint, target = join(projectRoot, 'models', 'potluck-36m')] = process.argv.slice(2);
if (checkpoint === undefined) {
  process.stderr.write('usage: node scripts/pack-embedded-model.mjs CHECKPOINT_FOLDER [TARGET_FOLDER]\n');
  process.exit(2);
}
await setupOrExit();
const { buildPack } = await import('../build/js/model/build-pack.js');
const { tokenizerOfJson } = await import('../build/js/model/pack-tokenizer.js');
const { createNativeBackend } = await import('../build/js/kernels/native-backend.js');

const readJson = async name => JSON.parse(await fs.readFile(join(checkpoint, name), 'utf8'));
const tokenizer = tokenizerOfJson(await readJson('tokenizer.json'), await readJson('tokenizer_config.json'));
const text = await fs.readFile(join(projectRoot, 'models', 'calibration.txt'), 'utf8');
// It begins as a chat, which is what the model is for.
const chat = '<|im_start|>user\nHello! Who are you?<|im_end|>\n<|im_start|>assistant\n';
const tokens = tokenizer.encode(chat + text, { special: true });

const addon = createRequire(import.meta.url)(join(projectRoot, 'build', 'potluck.node'));
const backend = createNativeBackend(addon, { threads: availableParallelism() });
const started = Date.now();
try {
  const manifest = await buildPack({
    checkpoint,
    target,
    name: 'potluck-36m',
    weights: 'w4',
    tiling: { ffnColumns: 192 },
    fileSystem: fs,
    crc32c: (bytes, before) => addon.crc32c(bytes, before),
    backend,
    rounding: addon,
    calibrationTokens: tokens,
    origin: {
      source: 'trained for this project by scripts/train-embedded-model.py; the data are named in NOTICE',
      quantization:
        'weights in 4 bits, groups of 32, rounded by their inputs (GPTQ); embedding rows in 8 bits',
    },
  });
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  process.stdout.write(`${target}: ${manifest.tiles.length} tiles, ${seconds} s\n`);
} finally {
  backend.close();
}
