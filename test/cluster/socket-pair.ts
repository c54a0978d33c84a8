import { EventEmitter } from 'node:events';
import type { WebSocketLike } from '../../src/cluster/control-link.ts';

/** One end of a WebSocket in memory. What is sent lies in `sent` until `deliver` takes it to the other end. */
export class PairSocket extends EventEmitter implements WebSocketLike {
  bufferedAmount = 0;
  other: PairSocket | null = null;
  readonly sent: string[] = [];
  closedWith: number | null = null;
  #reason = '';
  terminated = false;

  send(text: string): void {
    this.sent.push(text);
  }

  close(code = 1000, reason = ''): void {
    this.closedWith = code;
    this.#reason = reason;
  }

  terminate(): void {
    this.terminated = true;
  }

  /** Takes what was sent, and a close, to the other end; false where there was nothing. */
  deliver(): boolean {
    const texts = this.sent.splice(0);
    for (const text of texts) this.other?.emit('message', Buffer.from(text), false);
    if (this.closedWith !== null && this.other !== null) {
      const { other, closedWith } = this;
      this.other = null;
      other.other = null;
      other.emit('close', closedWith, Buffer.from(this.#reason));
      return true;
    }
    return texts.length > 0;
  }
}

export function socketPair(): [PairSocket, PairSocket] {
  const pair: [PairSocket, PairSocket] = [new PairSocket(), new PairSocket()];
  pair[0].other = pair[1];
  pair[1].other = pair[0];
  return pair;
}

/** Delivers until nothing is on its way. */
export function deliverAll(...sockets: readonly PairSocket[]): void {
  while (sockets.map(s => s.deliver()).includes(true));
}
