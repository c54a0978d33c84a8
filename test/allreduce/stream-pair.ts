import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { type FrameHeader, OutgoingFrame } from '../../src/allreduce/frame.ts';

/** Both ends of a TCP connection over loopback. */
export async function tcpPair(): Promise<[Socket, Socket]> {
  const server = createServer({ noDelay: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const far = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true });
  const [near] = (await once(server, 'connection')) as [Socket];
  await once(far, 'connect');
  server.close();
  return [near, far];
}

/** A frame as bytes; the length in the header is that of `words` unless `header` says otherwise. */
export function frameBytes(
  header: Omit<FrameHeader, 'length'> & { length?: number },
  words: ArrayLike<number> = [],
): Buffer {
  const frame = new OutgoingFrame(words.length * 4);
  frame.ints.set(words);
  frame.seal({ ...header, length: header.length ?? words.length * 4 });
  return frame.bytes;
}

/** Collects what a socket receives, and waits for a number of bytes of it. */
export class Received {
  #bytes = Buffer.alloc(0);
  #notify: () => void = () => undefined;

  constructor(socket: Socket) {
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#notify();
    });
  }

  async take(bytes: number): Promise<Buffer> {
    while (this.#bytes.length < bytes) await new Promise<void>(resolve => (this.#notify = resolve));
    const taken = this.#bytes.subarray(0, bytes);
    this.#bytes = this.#bytes.subarray(bytes);
    return taken;
  }

  get waiting(): number {
    return this.#bytes.length;
  }
}
