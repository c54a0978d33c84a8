import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { MAX_MESSAGE_BYTES } from '../cluster/messages.ts';
import { type TileReaders, tileRoutes } from '../cluster/tile-routes.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { listen } from './listen.ts';
import { TENSOR_PATH, type TensorArrivals } from './tensor-links.ts';

/** The port that other devices connect to: control (WebSocket), tensors (raw stream), tiles and pack files (GET). */

export const CONTROL_PATH = '/potluck/control';
const DIAL_MILLISECONDS = 5000;
const MOST_CONNECTIONS = 256;
/** Tiles and files in memory on their way to others, whatever the number of devices that ask. */
const MOST_SENDING = 2;
/** A device that takes nothing for this long makes room for others. */
const SENDING_MILLISECONDS = 30_000;

export interface LinkServer {
  readonly port: number;
  close(): Promise<void>;
}

export interface LinkServerOptions {
  readonly port: number;
  readonly arrivals: TensorArrivals;
  readonly readers: TileReaders;
  onControl(socket: WebSocket, remoteHost: string): void;
  onError(error: PotluckError): void;
}

/** Listens on all addresses. Rejects with PORT_IN_USE. */
export async function openLinkServer(options: LinkServerOptions): Promise<LinkServer> {
  const turns = new Turns(MOST_SENDING);
  const server = createServer((request, response) => void answer(request, response, options, turns));
  server.maxConnections = MOST_CONNECTIONS;
  server.headersTimeout = 10_000;
  server.requestTimeout = 60_000;
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const path = request.url;
    if (path === TENSOR_PATH) return options.arrivals.accept(request, socket, head);
    // A page in a browser must not speak for a device.
    if (path !== CONTROL_PATH || request.headers.origin !== undefined) {
      socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n');
      return;
    }
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
  { readers, onError }: LinkServerOptions,
  turns: Turns,
): Promise<void> {
  const closed = new Promise<void>(resolve => response.once('close', () => resolve()));
  const turn = await turns.take();
  response.setTimeout(SENDING_MILLISECONDS, () => response.destroy());
  try {
    if (response.closed) return; // who asked gave up while it waited
    const found = request.method === 'GET' ? await tileRoutes(request.url ?? '', readers, turn.memory) : null;
    if (found === null) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('There is nothing here.\n');
      return;
    }
    response.writeHead(found.status, { ...found.headers }).end(found.bytes);
  } catch (error) {
    const known = asPotluckError(error);
    onError(known);
    response.writeHead(500, { 'content-type': 'text/plain' }).end(`${known.code}\n`);
  } finally {
    // Only now, that nothing is read into the memory or sent from it.
    void closed.then(() => turns.giveBack(turn));
  }
}

/** Memory for one tile on its way, used again for the next: new memory for each would be garbage for long. */
class Turn {
  #bytes = new Uint8Array(0);

  readonly memory = (bytes: number): Uint8Array => {
    if (this.#bytes.length < bytes) this.#bytes = new Uint8Array(bytes);
    return this.#bytes.subarray(0, bytes);
  };
}

/** Lets so many go on at a time; the others wait in line. */
class Turns {
  readonly #free: Turn[];
  readonly #waiting: ((turn: Turn) => void)[] = [];

  constructor(count: number) {
    this.#free = Array.from({ length: count }, () => new Turn());
  }

  take(): Promise<Turn> {
    const turn = this.#free.pop();
    if (turn) return Promise.resolve(turn);
    return new Promise(resolve => this.#waiting.push(resolve));
  }

  giveBack(turn: Turn): void {
    const next = this.#waiting.shift();
    if (next) next(turn);
    else this.#free.push(turn);
  }
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
