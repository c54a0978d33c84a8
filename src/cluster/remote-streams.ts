import { EventQueue } from '../engine/event-queue.ts';
import type { GenerateEvent, GenerateRequest } from '../engine/generate.ts';
import { PotluckError } from '../errors/errors.ts';
import { checkedRequest } from './generate-messages.ts';
import type { Member } from './members.ts';
import type { Message } from './messages.ts';
import { TOKEN_WINDOW } from './serve-generate.ts';

/** Credits are given back in lots of this many tokens. */
const CREDIT_TOKENS = TOKEN_WINDOW / 4;

interface RemoteStream {
  readonly member: Member;
  readonly queue: EventQueue<GenerateEvent>;
}

/** Requests of this device that another one, the hub, computes. */
export class RemoteStreams {
  readonly #streams = new Map<number, RemoteStream>();
  #next = 1;

  /** A message of `member`; false where it is not about a stream of this device. */
  receive(member: Member, message: Message): boolean {
    if (message.type !== 'token' && message.type !== 'finish' && message.type !== 'generate-failed')
      return false;
    const stream = this.#streams.get(message.stream);
    // ended here while it was on its way
    if (stream?.member !== member) return true;
    if (message.type === 'generate-failed') {
      stream.queue.end(new PotluckError(message.code, message.message));
    } else if (stream.queue.size > TOKEN_WINDOW) {
      member.link.close(new PotluckError('PROTOCOL', `${member.device.name} sent more tokens than it may.`));
    } else if (message.type === 'token') {
      stream.queue.push({ type: 'token', id: message.id });
    } else {
      stream.queue.push({ type: 'finish', reason: message.reason });
      stream.queue.end();
    }
    return true;
  }

  memberLeft(member: Member, error: PotluckError): void {
    for (const stream of this.#streams.values()) if (stream.member === member) stream.queue.end(error);
  }

  /** Lets `member` compute with a model; see Generator. Also throws BAD_REQUEST where the hub would not take the request. */
  async *generate(
    member: Member,
    modelId: string,
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerateEvent> {
    if (signal.aborted) return;
    if (!member.link.isOpen) throw new PotluckError('DEVICE_LOST', `${member.device.name} is gone.`);
    const message = checkedRequest(request);
    const id = this.#next++;
    let taken = 0;
    const queue = new EventQueue<GenerateEvent>(() => {
      taken += 1;
      if (taken % CREDIT_TOKENS === 0)
        member.link.send({ type: 'credit', stream: id, tokens: CREDIT_TOKENS });
    });
    let finished = false;
    const end = (): void => {
      if (this.#streams.delete(id) && !finished) member.link.send({ type: 'cancel', stream: id });
    };
    // at once: who does not read the answer does not ask for its end either
    const cancel = (): void => {
      queue.cancel();
      end();
    };
    signal.addEventListener('abort', cancel, { once: true });
    this.#streams.set(id, { member, queue });
    try {
      member.link.send({ type: 'generate', stream: id, modelId, request: message });
      for (let event = await queue.next(); event !== undefined; event = await queue.next()) {
        finished = event.type === 'finish';
        yield event;
      }
    } finally {
      signal.removeEventListener('abort', cancel);
      end();
    }
  }
}
