import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { compiledMain } from '../../src/cli/project.ts';
import { writeCheckpoint } from '../model/small-checkpoint.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';

test('a pack that is stopped by Ctrl-C says that the same command goes on', async () => {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'small'));
  // Ctrl-C comes as soon as the command listens for it.
  const press = 'name => name === "SIGINT" && setImmediate(() => process.kill(process.pid, "SIGINT"))';
  const child = spawn(process.execPath, [
    ...['--import', `data:text/javascript,process.on('newListener', ${press})`],
    ...[compiledMain(), 'pack', join(folder, 'small'), '--out', join(folder, 'pack')],
  ]);
  const [said, [code]] = await Promise.all([text(child.stderr), once(child, 'close')]);
  expect(said).toContain('Stopped. The same command goes on');
  expect(code).toBe(130);
});
