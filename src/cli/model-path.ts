import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import { modelsFolder } from './home-folder.ts';
import { findModelFolder, installedModel, type ModelPlaces } from './installed-models.ts';
import { nameOf, packCheckpoint } from './pack-checkpoint.ts';
import { PackProgress } from './pack-progress.ts';
import { ProgressLine } from './progress-line.ts';

/**
 * What lies at a path that a user gave for a model: a pack; a checkpoint, which is a folder of Hugging Face's layout or a GGUF file;
 * or null: neither.
 */
export function modelKind(path: string): 'pack' | 'checkpoint' | null {
  if (existsSync(join(path, 'manifest.json'))) return 'pack';
  const isCheckpoint = existsSync(join(path, 'config.json')) || (/\.gguf$/i.test(path) && existsSync(path));
  return isCheckpoint ? 'checkpoint' : null;
}

/** A file that lies beside the weights of a checkpoint: in its folder, or in that of a GGUF file. */
export const besideCheckpoint = (checkpoint: string, name: string): string =>
  join(/\.gguf$/i.test(checkpoint) ? dirname(checkpoint) : checkpoint, name);

/**
 * The folder of the pack that a user means by a name or a path. A checkpoint is packed (4 bits a weight) into the models folder, where
 * it is found the next time. Rejects with PACK_NOT_FOUND, BAD_OPTION where another model has that name, or as packing does.
 */
export async function findPack(
  text: string,
  places: ModelPlaces,
  output: { write(text: string): unknown; readonly isTTY?: boolean },
): Promise<string> {
  if (modelKind(text) !== 'checkpoint') return findModelFolder(text, places);
  const checkpoint = resolve(text);
  const packedFrom = await fingerprint(checkpoint);
  const name = nameOf(checkpoint);
  const target = join(modelsFolder(places.home), name);
  const there = await installedModel(modelsFolder(places.home), name);
  if (there !== null) {
    if (there.origin.packedFrom === packedFrom) return target;
    throw new PotluckError(
      'BAD_OPTION',
      `A model named ${name} is here already, and it was not made of ${checkpoint} as that is now. Remove it with \`potluck models remove ${name}\`, or pack this one under another name with \`potluck pack --name\`.`,
    );
  }
  const line = new ProgressLine(output);
  const shown = new PackProgress();
  line.show(`Packing ${checkpoint}`);
  await packCheckpoint({
    checkpoint,
    target,
    name,
    weights: 'w4',
    attentionParts: null,
    ropePrecision: 'float32',
    origin: { packedFrom },
    onProgress: progress => shown.show(line, progress),
  });
  line.end(`Packed ${checkpoint} as ${name}`);
  return target;
}

/** Tells a checkpoint from others, and from itself after a change: a hash of its path and of when its files changed. */
async function fingerprint(checkpoint: string): Promise<string> {
  const names = ['config.json', 'model.safetensors', 'model.safetensors.index.json', 'tokenizer.json'];
  const paths = [checkpoint, ...names.map(name => join(checkpoint, name))].filter(path => existsSync(path));
  const times = await Promise.all(paths.map(async path => (await stat(path)).mtimeMs));
  return createHash('sha256')
    .update(JSON.stringify([checkpoint, times]))
    .digest('hex')
    .slice(0, 16);
}
