import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { openApiServer } from '../../src/daemon/api-server.ts';
import { fakeHost } from '../api/fake-host.ts';

test('connections have a limit, under which others are served', async () => {
  const server = await openApiServer('127.0.0.1', 0, fakeHost(), {
    status: () => Promise.reject(new Error('not asked for')),
    engine: () => {
      throw new Error('not asked for');
    },
    vocabulary: () => 3,
  });
  const open: Socket[] = [];
  const another = async () => {
    const socket = connect(server.port, '127.0.0.1');
    open.push(socket);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    return socket;
  };
  for (let i = 0; i < 256; i++) await another();
  const refused = await another();
  await new Promise(resolve => refused.once('close', resolve).resume());
  const [first] = open;
  first!.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n');
  expect(String((await once(first!, 'data'))[0])).toContain('HTTP/1.1 200');
  for (const socket of open) socket.destroy();
  await server.close();
});
