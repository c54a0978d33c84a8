import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeFolder } from '../../src/pack/file-system.ts';
import { temporaryFolder } from './temporary-folder.ts';

test('a folder is made with those above it, by two at once too, and one that is there is left', async () => {
  const folder = join(await temporaryFolder(), 'a', 'b', 'c');
  await Promise.all([makeFolder(fs, folder), makeFolder(fs, folder)]);
  await makeFolder(fs, folder);
  expect((await fs.stat(folder)).isDirectory()).toBe(true);
});

test('what the file system says of a folder that cannot be made is passed on', async () => {
  const parent = await temporaryFolder();
  await fs.writeFile(join(parent, 'file'), '');
  await expect(makeFolder(fs, join(parent, 'file'))).rejects.toMatchObject({ code: 'EEXIST' });
  await expect(makeFolder(fs, join(parent, 'file', 'under'))).rejects.toMatchObject({ code: 'EEXIST' });
  const readOnly = {
    stat: fs.stat,
    mkdir: async () => {
      throw Object.assign(new Error('EROFS: read-only file system'), { code: 'EROFS' });
    },
  };
  await expect(makeFolder(readOnly, join(parent, 'x', 'y'))).rejects.toThrow('EROFS: read-only file system');
  await makeFolder(readOnly, parent);
});
