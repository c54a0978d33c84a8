import { createAdaptorServer } from '@hono/node-server';
import OpenAI from 'openai';
import { createApi } from '../../src/api/api.ts';
import type { ApiHost, ApiModel } from '../../src/api/host.ts';
import type { GenerateEvent, GenerateRequest, Generator } from '../../src/engine/generate.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { PLAIN_ANSWERS } from '../../src/model/answer-format.ts';
import type { Chat } from '../../src/model/chat-template.ts';
import { byteLevelTokenizer } from '../model/tiny-tokenizers.ts';

export const tokenizer = byteLevelTokenizer();

/** Gives the ids of a script; records what it was asked and which requests were aborted. */
export class FakeGenerator implements Generator {
  readonly requests: GenerateRequest[] = [];
  readonly aborted: number[] = [];
  /** Ids of each answer, in the order of requests; the last one for all that follow. */
  scripts: readonly (readonly number[])[] = [[]];
  /** Thrown after the script instead of the finish. */
  error: Error | null = null;
  /** Waits for the abort after the script. */
  hang = false;
  /** Tokens given so far. */
  given = 0;

  say(...texts: string[]): void {
    this.scripts = texts.map(text => tokenizer.encode(text, { special: false }));
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent> {
    const place = this.requests.push(request) - 1;
    signal.addEventListener('abort', () => this.aborted.push(place), { once: true });
    const script = this.scripts[Math.min(place, this.scripts.length - 1)]!;
    for (const id of script.slice(0, request.maxTokens)) {
      if (signal.aborted) return;
      this.given++;
      yield { type: 'token', id };
    }
    if (this.error !== null) throw this.error;
    if (this.hang)
      return new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    yield { type: 'finish', reason: script.length > request.maxTokens ? 'length' : 'stop' };
  }
}

export interface FakeHost extends ApiHost {
  readonly generator: FakeGenerator;
  readonly chats: Chat[];
  readonly defects: PotluckError[];
  readonly model: ApiModel;
  ready: boolean;
}

/** A host whose chats render as their contents, joined by lines. */
export function fakeHost(): FakeHost {
  const chats: FakeHost['chats'] = [];
  const generator = new FakeGenerator();
  const model: ApiModel = {
    id: 'home/tiny',
    generator,
    context: 100,
    vocabulary: tokenizer.vocabulary,
    tokenizer,
    async renderChat(chat) {
      const { messages } = chat;
      chats.push(chat);
      if (messages.some(message => message.content === 'refuse')) {
        throw new PotluckError('TEMPLATE_FAILED', 'The chat template refused these messages.');
      }
      return tokenizer.encode(messages.map(message => message.content).join('\n'), { special: false });
    },
    answerFormat: PLAIN_ANSWERS,
    stopTokens: [2],
    beginToken: 0,
  };
  return {
    version: '1.2.3',
    now: () => 5000_900,
    model,
    async models() {
      if (this.ready) return [{ id: model.id, aliases: ['tiny'], created: 1234, open: async () => model }];
      throw new PotluckError('NOT_READY', 'Tiles are still being moved. Try again.');
    },
    generator,
    state: () => 'serving',
    randomSeed: () => 77,
    timers: {
      setTimeout: (callback, ms) => setTimeout(callback, ms),
      clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout),
    },
    reportDefect(error) {
      this.defects.push(error);
    },
    chats,
    defects: [],
    ready: true,
  };
}

export interface RunningApi {
  readonly host: FakeHost;
  readonly client: OpenAI;
  readonly url: string;
  close(): Promise<void>;
}

/** The API of a fake host on a loopback port, and OpenAI's client for it. */
export async function startApi(): Promise<RunningApi> {
  const host = fakeHost();
  const server = createAdaptorServer({ fetch: createApi(host).fetch });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', () => resolve()));
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('no address');
  const url = `http://127.0.0.1:${address.port}`;
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const close = () =>
    new Promise<void>(resolve => {
      server.close(() => resolve());
      if ('closeAllConnections' in server) server.closeAllConnections();
    });
  return { host, client, url, close };
}

/** Resolves when `condition` holds; fails after about five seconds. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (condition()) return;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  throw new Error('it did not happen');
}
