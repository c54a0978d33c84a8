import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { httpGetter } from '../../src/daemon/http-get.ts';
import { type LinkServer, openLinkServer } from '../../src/daemon/link-server.ts';
import { TensorArrivals } from '../../src/daemon/tensor-links.ts';
import { TIMERS } from '../../src/daemon/timers.ts';
import { PATIENCE, type TransferPatience, transferMilliseconds } from '../../src/daemon/transfer-deadline.ts';
import type { PotluckError } from '../../src/errors/errors.ts';

/** More than the buffers of a connection take. */
const LARGE = 48 << 20;
const path = (digit: string) => `/potluck/tile/${digit.repeat(64)}`;
const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

/** Serves tiles of LARGE bytes, and small ones (`b...`); `errors` resolves to what is told, one each. */
async function serve(patience: TransferPatience) {
  const errors: PotluckError[] = [];
  const hung = new Promise<undefined>(() => undefined);
  let told: (() => void) | null = null;
  const server: LinkServer = await openLinkServer({
    port: 0,
    patience,
    arrivals: new TensorArrivals({ isMember: () => true, timers: TIMERS, patience: 60_000 }),
    readers: {
      readTile: (sha256, memory) =>
        sha256.startsWith('c') ? hung : Promise.resolve(memory(sha256.startsWith('b') ? 4096 : LARGE)),
      readOwnTile: async () => undefined,
      readPackFile: async () => undefined,
      readEmbeddingRow: async () => undefined,
    },
    onControl: socket => socket.close(),
    onError: error => {
      errors.push(error);
      told?.();
    },
  });
  open.push(() => server.close());
  const error = async () => {
    while (errors.length === 0)
      await new Promise<void>(resolve => {
        told = resolve;
      });
    return errors.shift()!;
  };
  return { port: server.port, error };
}

/** Asks for a large tile and takes a byte every few milliseconds. */
async function trickle(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  open.push(() => socket.destroy());
  await once(socket, 'connect');
  socket.write(`GET ${path('a')} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await once(socket, 'readable');
  const timer = setInterval(() => socket.read(1), 5);
  socket.once('close', () => clearInterval(timer));
  return socket;
}

async function fetched(port: number, digit: string): Promise<number> {
  let bytes = 0;
  for await (const part of await httpGetter(
    '127.0.0.1',
    port,
    PATIENCE,
  )(path(digit), new AbortController().signal))
    bytes += part.length;
  return bytes;
}

test('devices that take a byte now and then are cut, and others get their turn', async () => {
  const { port, error } = await serve({ turn: 60_000, read: 60_000, least: 300, bytesPerSecond: 2 ** 40 });
  await Promise.all([trickle(port), trickle(port)]);
  const third = fetched(port, 'b');
  for (let i = 0; i < 2; i++) {
    const { code, message } = await error();
    expect(code).toBe('DEADLINE');
    expect(message).toContain(`127.0.0.1 did not take ${path('a')} (${LARGE} bytes)`);
  }
  expect(await third).toBe(4096);
});

test('who waits too long for a turn is told to come again; who gave up waits no more', async () => {
  const { port } = await serve({ ...PATIENCE, turn: 100 });
  const slow = await Promise.all([trickle(port), trickle(port)]);
  const gone = new AbortController();
  const given = httpGetter('127.0.0.1', port, PATIENCE)(path('b'), gone.signal);
  gone.abort();
  await expect(given).rejects.toMatchObject({ code: 'DEVICE_LOST' });
  await expect(fetched(port, 'b')).rejects.toMatchObject({ code: 'BUSY' });
  slow[0]!.destroy();
  expect(await fetched(port, 'b')).toBe(4096);
});

test('reads that never end do not keep their turns', async () => {
  const { port, error } = await serve({ ...PATIENCE, read: 100 });
  const asked = [fetched(port, 'c'), fetched(port, 'c')].map(each => each.catch(reason => reason));
  const third = fetched(port, 'b');
  for (let i = 0; i < 2; i++) expect(await error()).toMatchObject({ code: 'DEADLINE' });
  expect(await third).toBe(4096);
  for (const reason of await Promise.all(asked)) expect(String(reason)).toMatch(/500|DEADLINE/);
});

/** Asks for an upgrade; the socket closes only when it is told to. */
function upgrade(port: number, where: string): Socket {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  open.push(() => socket.destroy());
  socket.on('error', () => undefined);
  socket.write(`GET ${where} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`);
  return socket;
}

test.each([
  ['/potluck/tensor', '400 Bad Request'],
  ['/nothing', '404 Not Found'],
])('a peer that resets or keeps a refused upgrade of %s does no harm', async (where, status) => {
  const { port } = await serve(PATIENCE);
  for (let i = 0; i < 50; i++) {
    const socket = upgrade(port, where);
    await once(socket, i % 2 === 0 ? 'data' : 'connect');
    socket.resetAndDestroy();
  }
  const kept = upgrade(port, where);
  const closed = new Promise(resolve => kept.once('close', resolve));
  const [answer] = await once(kept, 'data');
  expect(String(answer)).toContain(status);
  const writing = setInterval(() => kept.write('x'), 5);
  await closed;
  clearInterval(writing);
  expect(await fetched(port, 'b')).toBe(4096);
});

test('many that ask at once all get their turn', async () => {
  const { port } = await serve(PATIENCE);
  const all = Array.from({ length: 20 }, () => fetched(port, 'b'));
  expect(await Promise.all(all)).toEqual(all.map(() => 4096));
});

test('a device that never answers is given up', async () => {
  const server = createServer(() => undefined);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  open.push(() => server.close());
  open.push(() => server.closeAllConnections());
  const { port } = server.address() as AddressInfo;
  const get = httpGetter('127.0.0.1', port, { ...PATIENCE, turn: 20, read: 30 });
  await expect(get(path('a'), new AbortController().signal)).rejects.toMatchObject({
    code: 'DEVICE_LOST',
    message: expect.stringContaining('nothing came for 1050 ms'),
  });
});

test('a device that gives a byte now and then is given up', async () => {
  const server: Server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': '100000' });
    const timer = setInterval(() => response.write('x'), 5);
    response.once('close', () => clearInterval(timer));
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  open.push(() => server.close());
  open.push(() => server.closeAllConnections());
  const { port } = server.address() as AddressInfo;
  const get = httpGetter('127.0.0.1', port, { ...PATIENCE, least: 50, bytesPerSecond: 2 ** 40 });
  const body = await get(path('a'), new AbortController().signal);
  const all = async () => {
    for await (const _ of body);
  };
  await expect(all()).rejects.toMatchObject({
    code: 'DEVICE_LOST',
    message: expect.stringContaining('the rest did not come within'),
  });
});

test.each(['reset', 'abort'])('a transfer that ends in the middle (%s) is a lost device', async how => {
  const gone = new AbortController();
  const server: Server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': '100000' });
    response.write('x');
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  open.push(() => server.close());
  open.push(() => server.closeAllConnections());
  const { port } = server.address() as AddressInfo;
  const body = await httpGetter('127.0.0.1', port, PATIENCE)(path('a'), gone.signal);
  const all = async () => {
    for await (const _ of body)
      if (how === 'reset') server.closeAllConnections();
      else gone.abort();
  };
  await expect(all()).rejects.toMatchObject({
    code: 'DEVICE_LOST',
    message: expect.stringContaining(`${path('a')} from 127.0.0.1:${port}: `),
  });
});

test('an answer that does not say how long it is is refused', async () => {
  const server: Server = createServer((_, response) => response.write('x'));
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  open.push(() => server.close());
  open.push(() => server.closeAllConnections());
  await expect(fetched((server.address() as AddressInfo).port, 'b')).rejects.toThrow('does not say how long');
});

test('the time of a transfer grows with its bytes, to a limit', () => {
  const patience = { turn: 1, read: 1, least: 1000, bytesPerSecond: 1024 };
  expect(transferMilliseconds(0, patience)).toBe(1000);
  expect(transferMilliseconds(10 * 1024, patience)).toBe(11_000);
  expect(transferMilliseconds(1e300, patience)).toBe(transferMilliseconds(256 << 20, patience));
});
