import { createServer } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { listen } from '../../src/daemon/listen.ts';

const servers = [createServer(), createServer()];
afterEach(() => {
  for (const server of servers) server.close();
});

test.each(['203.0.113.9', 'bogus.invalid'])(
  'a host that is not here, %s, is named, and the option',
  async host => {
    await expect(listen(servers[0]!, 0, host, '--port')).rejects.toMatchObject({
      code: 'BAD_OPTION',
      message: expect.stringMatching(new RegExp(`^${host} is no address of this device .*--host ADDRESS$`)),
    });
  },
);

test('a port that is taken names its holder and the option', async () => {
  const [first, second] = servers;
  const port = await listen(first!, 0, '127.0.0.1', '--port');
  expect(port).toBeGreaterThan(0);
  const error = await listen(second!, port, '127.0.0.1', '--port').catch((e: unknown) => e);
  expect(error).toMatchObject({ code: 'PORT_IN_USE' });
  expect((error as Error).message).toContain(String(port));
  expect((error as Error).message).toContain('--port PORT');
  if (process.platform === 'linux') expect((error as Error).message).toContain(`process ${process.pid}`);
});
