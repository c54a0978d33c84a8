import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { dialTensorLink, TensorArrivals } from '../../src/daemon/tensor-links.ts';
import { ManualTimers } from '../allreduce/manual-timers.ts';

const never = new AbortController().signal;
const id = (digit: string) => digit.repeat(32);
let server: Server;
let arrivals: TensorArrivals;
let timers: ManualTimers;
let hub: { host: string; linkPort: number };

beforeEach(async () => {
  timers = new ManualTimers();
  arrivals = new TensorArrivals({ isMember: of => of !== id('f'), timers, patience: 1000 });
  server = createServer();
  server.on('upgrade', (request, socket, head) => arrivals.accept(request, socket, head));
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  hub = { host: '127.0.0.1', linkPort: (server.address() as AddressInfo).port };
});
afterEach(() => {
  arrivals.close();
  server.closeAllConnections();
  server.close();
});

test('streams are handed over in the order asked for, whenever they came, and carry bytes both ways', async () => {
  const early = await dialTensorLink(hub, 7, id('b'), 1000, never);
  const collected = arrivals.collect(7, [id('a'), id('b')], 2000, never);
  const late = await dialTensorLink(hub, 7, id('a'), 1000, never);
  const [first, second] = await collected;
  const read = (stream: { once(event: 'data', call: (data: Buffer) => void): unknown }) =>
    new Promise<string>(resolve => stream.once('data', data => resolve(data.toString())));
  late.write('from a');
  expect(await read(first!)).toBe('from a');
  second!.write('to b');
  expect(await read(early)).toBe('to b');
  for (const stream of [early, late]) stream.destroy();
});

test('who does not come is named', async () => {
  await expect(arrivals.collect(3, [id('c')], 50, never)).rejects.toThrow(id('c'));
});

test('waiting ends when the plan is given up', async () => {
  const given = new AbortController();
  const collected = arrivals.collect(3, [id('c')], 30_000, given.signal);
  given.abort(new Error('given up'));
  await expect(collected).rejects.toThrow('given up');
});

test('a stream of an older plan is closed', async () => {
  const old = await dialTensorLink(hub, 1, id('a'), 1000, never);
  const closed = new Promise(resolve => old.once('close', resolve));
  old.resume();
  await expect(arrivals.collect(2, [id('a')], 50, never)).rejects.toMatchObject({ code: 'DEVICE_LOST' });
  await closed;
});

const closed = (stream: Socket) => {
  stream.resume();
  return once(stream, 'close');
};

test('a stream that no plan asks for is closed, and one in a plan stays', async () => {
  const unwanted = await dialTensorLink(hub, 9, id('a'), 1000, never);
  const wanted = await dialTensorLink(hub, 9, id('b'), 1000, never);
  const [stream] = await arrivals.collect(9, [id('b')], 1000, never);
  timers.advance(1000);
  await closed(unwanted);
  stream!.write('still here');
  expect(String(await new Promise(resolve => wanted.once('data', resolve)))).toBe('still here');
  expect(timers.pending).toBe(0);
  wanted.destroy();
});

test('a device has one stream on its way, the last that it opened', async () => {
  const first = await dialTensorLink(hub, 4, id('a'), 1000, never);
  const second = await dialTensorLink(hub, 5, id('a'), 1000, never);
  await closed(first);
  expect(await arrivals.collect(5, [id('a')], 1000, never)).toHaveLength(1);
  second.destroy();
});

test('strangers are refused, and everyone once it is closed', async () => {
  const refused = { code: 'DEVICE_LOST', message: expect.stringContaining('400') };
  await expect(dialTensorLink(hub, 1, id('f'), 1000, never)).rejects.toMatchObject(refused);
  const waiting = await dialTensorLink(hub, 1, id('a'), 1000, never);
  arrivals.close();
  await closed(waiting);
  await expect(dialTensorLink(hub, 1, id('a'), 1000, never)).rejects.toMatchObject(refused);
});

test('a request without a device is refused', async () => {
  await expect(dialTensorLink(hub, 1, 'nobody', 1000, never)).rejects.toMatchObject({ code: 'DEVICE_LOST' });
  await expect(
    dialTensorLink({ host: '127.0.0.1', linkPort: 1 }, 1, id('a'), 1000, never),
  ).rejects.toMatchObject({
    code: 'DEVICE_LOST',
  });
});
