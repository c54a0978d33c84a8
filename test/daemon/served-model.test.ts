import { expect, test } from 'vitest';
import type { LocalModel } from '../../src/daemon/model-store.ts';
import { ServedModels } from '../../src/daemon/served-model.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { splitFiles } from '../../src/model/pack-tokenizer.ts';
import { ManualTimers } from '../cluster/manual-timers.ts';
import { byteLevelJson } from '../model/tiny-tokenizers.ts';

const files = new Map(splitFiles(byteLevelJson()).map(({ name, bytes }) => [name, bytes]));

function start() {
  const timers = new ManualTimers();
  const served = new ServedModels(
    { roomForWorker: () => Promise.resolve(), workerEnded: () => undefined },
    timers,
  );
  const opened: string[] = [];
  const get = (id: string) =>
    served.get(id, async () => {
      opened.push(id);
      if (id === 'broken') throw new PotluckError('DEVICE_LOST', 'gone');
      return {
        id,
        manifest: { name: id },
        readFile: async (name: string) => files.get(name),
      } as unknown as LocalModel;
    });
  return { timers, served, opened, get };
}

test('models that are asked for in turn are opened once each, and go when nobody asked for them for a while', async () => {
  const { timers, served, opened, get } = start();
  for (let turn = 0; turn < 5; turn++)
    for (const id of ['a', 'b', 'c']) {
      expect((await get(id)).id).toBe(id);
      timers.advance(10_000);
    }
  expect(opened).toEqual(['a', 'b', 'c']);
  expect(timers.pending).toBe(1);
  timers.advance(60_000);
  expect(timers.pending).toBe(0);
  await Promise.all(['b', 'c'].map(get));
  expect(opened).toEqual(['a', 'b', 'c']);
  await get('a');
  expect(opened).toEqual(['a', 'b', 'c', 'a']);
  await served.close();
  expect(timers.pending).toBe(0);
});

test('a model that could not be opened is tried again', async () => {
  const { served, opened, get } = start();
  for (let i = 0; i < 2; i++) await expect(get('broken')).rejects.toMatchObject({ code: 'DEVICE_LOST' });
  expect(opened).toEqual(['broken', 'broken']);
  await served.close();
  await expect(get('a')).rejects.toMatchObject({ code: 'STOPPED' });
});
