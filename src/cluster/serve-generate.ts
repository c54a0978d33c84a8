import type { GenerateEvent, GenerateRequest } from '../engine/generate.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { requestFromMessage } from './generate-messages.ts';
import type { Member } from './members.ts';
import type { Message, MessageOf } from './messages.ts';

/** Tokens that may be on their way to a device before it says that it took some. */
export const TOKEN_WINDOW = 64;
/** Most streams of one device. */
const MOST_STREAMS = 64;

interface Stream {
  readonly cancel: AbortController;
  credits: number;
  /** Set while the stream waits for credits. */
  wake: (() => void) | null;
}

export interface ServeGenerateOptions {
  /** The engine for a model. */
  readonly generate: (
    modelId: string,
    request: GenerateRequest,
    signal: AbortSignal,
  ) => AsyncIterable<GenerateEvent>;
  readonly isHub: () => boolean;
}

/** The hub's side of requests that came in at other devices. */
export class ServeGenerate {
  readonly #options: ServeGenerateOptions;
  readonly #streams = new Map<Member, Map<number, Stream>>();

  constructor(options: ServeGenerateOptions) {
    this.#options = options;
  }

  /** A message of `member`; false where it is not about a stream that is served. */
  receive(member: Member, message: Message): boolean {
    if (message.type === 'generate') void this.#serve(member, message);
    else if (message.type === 'credit') this.#credit(member, message);
    else if (message.type === 'cancel') this.#end(member, message.stream);
    else return false;
    return true;
  }

  memberLeft(member: Member): void {
    for (const id of [...(this.#streams.get(member)?.keys() ?? [])]) this.#end(member, id);
    this.#streams.delete(member);
  }

  /** This device is hub no more: every stream ends, and the devices turn to the new hub. */
  stop(): void {
    for (const [member, streams] of this.#streams) {
      for (const id of [...streams.keys()]) {
        this.#end(member, id);
        this.#sendFailure(member, id, new PotluckError('NOT_READY', 'Another device is hub now.'));
      }
    }
  }

  async #serve(member: Member, message: MessageOf<'generate'>): Promise<void> {
    const { stream: id, modelId, request } = message;
    const streams = this.#streams.get(member) ?? new Map<number, Stream>();
    this.#streams.set(member, streams);
    if (!this.#options.isHub()) {
      return this.#sendFailure(member, id, new PotluckError('NOT_READY', 'This device is not the hub.'));
    }
    if (streams.size >= MOST_STREAMS || streams.has(id)) {
      return this.#sendFailure(
        member,
        id,
        new PotluckError('BUSY', `The hub serves ${streams.size} requests of this device.`),
      );
    }
    const stream: Stream = { cancel: new AbortController(), credits: TOKEN_WINDOW, wake: null };
    streams.set(id, stream);
    try {
      const events = this.#options.generate(modelId, requestFromMessage(request), stream.cancel.signal);
      for await (const event of events) {
        if (stream.credits === 0) await this.#creditOf(stream);
        if (stream.cancel.signal.aborted) break;
        stream.credits -= 1;
        this.#send(member, id, event);
      }
    } catch (error) {
      if (!stream.cancel.signal.aborted) this.#sendFailure(member, id, error);
    } finally {
      if (streams.get(id) === stream) streams.delete(id);
    }
  }

  #creditOf(stream: Stream): Promise<void> {
    if (stream.cancel.signal.aborted) return Promise.resolve();
    return new Promise(resolve => {
      stream.wake = resolve;
    });
  }

  #credit(member: Member, { stream: id, tokens }: MessageOf<'credit'>): void {
    const stream = this.#streams.get(member)?.get(id);
    if (stream === undefined) return;
    stream.credits = Math.min(TOKEN_WINDOW, stream.credits + tokens);
    this.#wake(stream);
  }

  #end(member: Member, id: number): void {
    const stream = this.#streams.get(member)?.get(id);
    if (stream === undefined) return;
    this.#streams.get(member)?.delete(id);
    stream.cancel.abort();
    this.#wake(stream);
  }

  #wake(stream: Stream): void {
    stream.wake?.();
    stream.wake = null;
  }

  #send(member: Member, stream: number, event: GenerateEvent): void {
    if (event.type === 'token') member.link.send({ type: 'token', stream, id: event.id });
    else member.link.send({ type: 'finish', stream, reason: event.reason });
  }

  #sendFailure(member: Member, stream: number, error: unknown): void {
    const { code, message } = asPotluckError(error);
    member.link.send({ type: 'generate-failed', stream, code, message });
  }
}
