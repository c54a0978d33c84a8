import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { Relay } from '../../../src/cli/emulate/relay.ts';

const LIMITS = { latencyMilliseconds: 1, bytesPerSecond: 50e6 };
const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function serve(onConnection: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, socket => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    onConnection(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise(resolve => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

async function relayTo(port: number | null): Promise<Relay> {
  const relay = await Relay.open(LIMITS);
  closing.push(() => relay.close());
  if (port !== null) relay.target = { host: '127.0.0.1', port };
  return relay;
}

function dial(relay: Relay): Socket {
  const socket = connect({ host: '127.0.0.1', port: relay.port, allowHalfOpen: true });
  closing.push(() => socket.destroy());
  return socket;
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

test('bytes go both ways and each direction ends by itself', async () => {
  const port = await serve(socket => socket.pipe(socket));
  const socket = dial(await relayTo(port));
  const sent = Buffer.from(Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 31) & 255));
  socket.end(sent);
  expect((await readAll(socket)).equals(sent)).toBe(true);
});

test('without a target connections are closed', async () => {
  const socket = dial(await relayTo(null));
  expect((await readAll(socket)).length).toBe(0);
});

test('a target that is not there breaks the connection', async () => {
  const relay = await relayTo(1);
  const socket = dial(relay);
  const broken = await readAll(socket).then(
    bytes => bytes.length,
    () => 0,
  );
  expect(broken).toBe(0);
});

test('a device that dies breaks its connections, also when the other side is paused', async () => {
  const port = await serve(socket => {
    socket.pause();
    setTimeout(() => socket.resetAndDestroy(), 50);
  });
  const socket = dial(await relayTo(port));
  // More than the relay and the kernel hold: the socket before it is paused by then.
  const flood = Buffer.alloc(8 << 20);
  socket.on('error', () => undefined);
  socket.write(flood);
  socket.resume();
  await new Promise(resolve => socket.once('close', resolve));
  expect(socket.destroyed).toBe(true);
});

test('closing the relay ends everything', async () => {
  const port = await serve(socket => socket.resume());
  const relay = await relayTo(port);
  const socket = dial(relay);
  socket.on('error', () => undefined);
  socket.write('hello');
  await once(socket, 'connect');
  socket.resume();
  const closed = once(socket, 'close');
  await new Promise(resolve => setTimeout(resolve, 20));
  await relay.close();
  socket.end();
  await closed;
});
