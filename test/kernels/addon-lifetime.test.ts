import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const node = (args: string[], env: Record<string, string> = {}) =>
  promisify(execFile)(process.execPath, args, { env: { ...process.env, ...env }, timeout: 20_000 });

it.each(['job-ends', 'process-exits', 'worker-ends', 'worker-exits', 'worker-terminated'])(
  'nothing crashes or hangs when a job is under way and: %s',
  async mode => {
    const { stderr } = await node([path('exit-while-running.mjs'), path('../../build/potluck.node'), mode]);
    expect(stderr).toBe('');
  },
);

it('the build says what is missing', async () => {
  const build = node([path('../../scripts/build-addon.mjs')], { CXX: '/nowhere/c++' });
  await expect(build).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/no C\+\+ compiler: tried \/nowhere\/c\+\+\. Install g\+\+/),
  });
});
