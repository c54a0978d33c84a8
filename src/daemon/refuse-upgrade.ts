import type { Duplex } from 'node:stream';

/** Answers an upgrade that is not wanted, and closes; also where the other end never does. */
export function refuseUpgrade(socket: Duplex, status: '400 Bad Request' | '404 Not Found'): void {
  socket.once('finish', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
}
