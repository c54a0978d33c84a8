import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { Wait } from '../allreduce/deadline.ts';
import { MAX_MESSAGE_BYTES } from '../cluster/messages.ts';
import type { TileBuffer } from '../cluster/tile-buffer.ts';
import { type RouteAnswer, type TileReaders, tileRoutes } from '../cluster/tile-routes.ts';
import { asPotluckError, ERRORS, PotluckError } from '../errors/errors.ts';
import { LinkTurns } from './link-turns.ts';
import { listen } from './listen.ts';
import { refuseUpgrade } from './refuse-upgrade.ts';
import { TENSOR_PATH, type TensorArrivals } from './tensor-links.ts';
import { TIMERS } from './timers.ts';
import { type TransferPatience, transferMilliseconds } from './transfer-deadline.ts';

/** The port that other devices connect to: control (WebSocket), tensors (raw stream), tiles, pack files and embedding rows (GET). */

const CONTROL_PATH = '/potluck/control';
const DIAL_MILLISECONDS = 5000;
const MOST_CONNECTIONS = 256;
/** Tiles and files in memory on their way to others, whatever the number of devices that ask. */
const MOST_SENDING = 2;

export interface LinkServer {
  readonly port: number;
  close(): Promise<void>;
}

export interface LinkServerOptions {
  readonly port: number;
  readonly arrivals: TensorArrivals;
  readonly readers: TileReaders;
  readonly patience: TransferPatience;
  onControl(socket: WebSocket, remoteHost: string): void;
  onError(error: PotluckError): void;
}

/** Listens on all addresses. Rejects with PORT_IN_USE. */
export async function openLinkServer(options: LinkServerOptions): Promise<LinkServer> {
  const turns = new LinkTurns(MOST_SENDING, options.patience.turn, TIMERS);
  const server = createServer((request, response) => void answer(request, response, options, turns));
  server.maxConnections = MOST_CONNECTIONS;
  server.headersTimeout = 10_000;
  server.requestTimeout = 60_000;
  // Whoever asks for more asks on another connection, of which there are so many: none can queue requests without end.
  server.maxRequestsPerSocket = 1;
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Node leaves the socket without a listener here. Who uses it sees it close; a peer that resets it is no error of ours.
    socket.on('error', () => undefined);
    const path = request.url;
    if (path === TENSOR_PATH) return options.arrivals.accept(request, socket, head);
    // A page in a browser must not speak for a device.
    if (path !== CONTROL_PATH || request.headers.origin !== undefined)
      return refuseUpgrade(socket, '404 Not Found');
    sockets.handleUpgrade(request, socket, head, ws =>
      options.onControl(ws, request.socket.remoteAddress ?? ''),
    );
  });
  const port = await listen(server, options.port, '0.0.0.0', '--link-port');
  return { port, close: () => closeServer(server, sockets) };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: LinkServerOptions,
  turns: LinkTurns,
): Promise<void> {
  const gone = new AbortController();
  const closed = new Promise<void>(resolve =>
    response.once('close', () => {
      gone.abort();
      resolve();
    }),
  );
  try {
    const turn = await turns.take(gone.signal);
    if (turn === null) return; // who asked gave up while it waited
    const found = await readInTurn(request, options, turns, turn);
    send(request, response, options, found);
    // Only then is nothing sent from its memory.
    void closed.then(() => turns.giveBack(turn));
  } catch (error) {
    const known = asPotluckError(error);
    if (known.code !== 'BUSY') options.onError(known);
    const status = known.code === 'BUSY' ? ERRORS.BUSY.status : 500;
    response.writeHead(status, { 'content-type': 'text/plain' }).end(`${known.code}\n`);
  }
}

/** What is asked for, in the memory of the turn, which is the caller's again; where this rejects it was given back. */
async function readInTurn(
  request: IncomingMessage,
  { readers, patience }: LinkServerOptions,
  turns: LinkTurns,
  turn: TileBuffer,
): Promise<RouteAnswer | null> {
  const path = request.url ?? '';
  const reading = request.method === 'GET' ? tileRoutes(path, readers, turn.take) : Promise.resolve(null);
  let late = false;
  const wait = new Wait(TIMERS, patience.read, () => {
    late = true;
    wait.reject(new PotluckError('DEADLINE', `${path} was not read from disk within ${patience.read} ms.`));
  });
  reading.then(
    () => wait.resolve(),
    () => wait.resolve(),
  );
  try {
    await wait.promise;
    return await reading;
  } catch (error) {
    if (late) turns.giveBackHanging(turn, reading);
    else turns.giveBack(turn);
    throw error;
  }
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { patience, onError }: LinkServerOptions,
  found: RouteAnswer | null,
): void {
  if (found === null) {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('There is nothing here.\n');
    return;
  }
  if (response.closed) return;
  const { length } = found.bytes;
  const milliseconds = transferMilliseconds(length, patience);
  const late = TIMERS.setTimeout(() => {
    const device = request.socket.remoteAddress ?? 'a device';
    const what = `${request.url ?? ''} (${length} bytes)`;
    onError(new PotluckError('DEADLINE', `${device} did not take ${what} within ${milliseconds} ms.`));
    response.destroy();
  }, milliseconds);
  response.once('close', () => TIMERS.clearTimeout(late));
  response.writeHead(found.status, { ...found.headers }).end(found.bytes);
}

async function closeServer(server: Server, sockets: WebSocketServer): Promise<void> {
  for (const client of sockets.clients) client.terminate();
  const closed = new Promise<void>(resolve => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}

/** Connects to the control link of another device. Rejects with DEVICE_LOST. */
export function dialControl(host: string, port: number): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${host.includes(':') ? `[${host}]` : host}:${port}${CONTROL_PATH}`, {
      handshakeTimeout: DIAL_MILLISECONDS,
      maxPayload: MAX_MESSAGE_BYTES,
      perMessageDeflate: false,
    });
    const failed = (error: Error) =>
      reject(new PotluckError('DEVICE_LOST', `No device answers at ${host}:${port}: ${error.message}`));
    socket.once('error', failed);
    socket.once('open', () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}
