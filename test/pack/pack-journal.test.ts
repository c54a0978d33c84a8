import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PackJournal, type PackStep } from '../../src/pack/pack-journal.ts';
import { temporaryFolder } from './temporary-folder.ts';

const step = (layer: number): PackStep => ({ layer, crc32c: 7, tiles: [], damage: [layer, 0.5] });

it('gives its steps back, and goes on', async () => {
  const path = join(await temporaryFolder(), 'journal');
  const journal = await PackJournal.create(fs, path, 'run');
  await journal.append(step(-1));
  await journal.close();
  const found = await PackJournal.resume(fs, path, 'run');
  expect(found?.steps).toEqual([step(-1)]);
  await found!.journal.append(step(0));
  await found!.journal.close();
  const again = await PackJournal.resume(fs, path, 'run');
  expect(again?.steps).toEqual([step(-1), step(0)]);
  await again!.journal.close();
});

it('cuts off a line that was not written whole', async () => {
  const path = join(await temporaryFolder(), 'journal');
  const journal = await PackJournal.create(fs, path, 'run');
  await journal.append(step(-1));
  await journal.close();
  await fs.appendFile(path, '{"layer":0,"crc32c":0,"til');
  const found = await PackJournal.resume(fs, path, 'run');
  expect(found?.steps).toEqual([step(-1)]);
  await found!.journal.append(step(0));
  await found!.journal.close();
  const again = await PackJournal.resume(fs, path, 'run');
  expect(again?.steps.length).toBe(2);
  await again!.journal.close();
});

it('is of no use to another run, or where a line is none of its own', async () => {
  const path = join(await temporaryFolder(), 'journal');
  expect(await PackJournal.resume(fs, path, 'run')).toBeUndefined();
  await (await PackJournal.create(fs, path, 'run')).close();
  expect(await PackJournal.resume(fs, path, 'other')).toBeUndefined();
  await fs.appendFile(path, '{"layer":"x"}\n');
  expect(await PackJournal.resume(fs, path, 'run')).toBeUndefined();
});
