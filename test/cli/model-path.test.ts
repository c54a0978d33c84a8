import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { besideCheckpoint, findPack, modelKind } from '../../src/cli/model-path.ts';
import { smallGguf } from '../model/gguf/small-gguf.ts';
import { SMALL, smallTensors, writeCheckpoint } from '../model/small-checkpoint.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';

const silent = { write: () => true };

test('a checkpoint is packed once into the models folder, and found there by its path and by its name', async () => {
  const folder = await temporaryFolder();
  const places = { home: join(folder, 'home'), builtIn: join(folder, 'none') };
  const checkpoint = join(folder, 'tiny model');
  await writeCheckpoint(checkpoint);
  expect(modelKind(checkpoint)).toBe('checkpoint');
  const pack = await findPack(checkpoint, places, silent);
  expect(pack).toBe(join(folder, 'home', 'models', 'tiny-model'));
  expect(modelKind(pack)).toBe('pack');
  const written = (await fs.stat(join(pack, 'manifest.json'))).mtimeMs;
  expect(await findPack(checkpoint, places, silent)).toBe(pack);
  expect(await findPack('tiny-model', places, silent)).toBe(pack);
  expect(await findPack(pack, places, silent)).toBe(pack);
  expect((await fs.stat(join(pack, 'manifest.json'))).mtimeMs).toBe(written);
  await fs.utimes(join(checkpoint, 'config.json'), 1, 1);
  await expect(findPack(checkpoint, places, silent)).rejects.toMatchObject({ code: 'BAD_OPTION' });
});

test('so is a GGUF file; what is neither is looked for by name', async () => {
  const folder = await temporaryFolder();
  const places = { home: join(folder, 'home'), builtIn: join(folder, 'none') };
  const file = join(folder, 'Small-Q8.gguf');
  await fs.writeFile(file, smallGguf(SMALL, smallTensors(SMALL)));
  expect(await findPack(file, places, silent)).toBe(join(folder, 'home', 'models', 'Small-Q8'));
  expect(besideCheckpoint(file, 'golden.json')).toBe(join(folder, 'golden.json'));
  expect(besideCheckpoint(folder, 'golden.json')).toBe(join(folder, 'golden.json'));
  expect(modelKind(join(folder, 'other.gguf'))).toBeNull();
  await expect(findPack(join(folder, 'other'), places, silent)).rejects.toMatchObject({
    code: 'PACK_NOT_FOUND',
  });
});
