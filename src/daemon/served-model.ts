import { Worker } from 'node:worker_threads';
import { PotluckError } from '../errors/errors.ts';
import { type AnswerFormat, answerFormatOf } from '../model/answer-format.ts';
import {
  type Chat,
  type ChatTemplate,
  createChatTemplate,
  TEMPLATE_WORKER_MEMORY,
} from '../model/chat-template.ts';
import { encodeChat } from '../model/chat-template-tokens.ts';
import { packTokenizer } from '../model/pack-tokenizer.ts';
import type { Tokenizer } from '../model/tokenizer.ts';
import type { LocalModel } from './model-store.ts';
import { TIMERS } from './timers.ts';

/** Who counts the memory of workers that render chats. */
export interface WorkerRoom {
  roomForWorker(): Promise<void>;
  workerEnded(): void;
}

/** What the API needs of a model: its tokenizer and its chat template. */
export interface ServedModel {
  readonly id: string;
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  readonly answerFormat: AnswerFormat;
  renderChat(chat: Chat): Promise<number[]>;
  close(): Promise<void>;
}

/** Most models whose tokenizers are in memory. */
const MOST_OPEN = 2;

/** Chats are rendered within this time after their model was asked for. */
const RETIRED_MILLISECONDS = 60_000;

/**
 * Reads the tokenizer's files. Rejects with PACK_INVALID where the pack has none. `onFallback`: a chat was rendered without a
 * template of the model's own.
 */
async function openServedModel(
  model: LocalModel,
  room: WorkerRoom,
  onFallback: () => void,
): Promise<ServedModel> {
  const { manifest } = model;
  const tokenizer = await packTokenizer(name => model.readFile(name), manifest.name);
  if (tokenizer === undefined)
    throw new PotluckError(
      'PACK_INVALID',
      `Model ${manifest.name} has no tokenizer.json: it takes token ids, not text.`,
    );
  const jinja = await model.readFile('chat_template.jinja');
  const template = createChatTemplate({
    source: jinja ? Buffer.from(jinja).toString('utf8') : tokenizer.chatTemplate,
    toolSource: tokenizer.toolTemplate,
    variables: tokenizer.named,
    createWorker: () => createWorker(room),
    timers: {
      setTimeout: (call, milliseconds) => setTimeout(call, milliseconds),
      clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout),
    },
    now: () => Date.now(),
  });
  return {
    id: model.id,
    name: manifest.name,
    tokenizer,
    template,
    answerFormat: answerFormatOf(template.source, tokenizer.toolTemplate),
    async renderChat(chat) {
      const { beginToken, shape } = manifest;
      const tokens = await encodeChat({ tokenizer, template, beginToken, context: shape.context }, chat);
      if (tokens.fallback) onFallback();
      return tokens.ids;
    },
    close: () => template.close(),
  };
}

async function createWorker(room: WorkerRoom): Promise<Worker> {
  await room.roomForWorker();
  try {
    const worker = new Worker(new URL('./chat-template-worker.js', import.meta.url), {
      resourceLimits: TEMPLATE_WORKER_MEMORY,
    });
    return worker.on('exit', () => room.workerEnded());
  } catch (error) {
    room.workerEnded();
    throw error;
  }
}

/** Tokenizers and templates of the models that were asked for last. */
export class ServedModels {
  /** Names of models that brought no chat template and were asked to chat. */
  readonly withoutTemplate = new Set<string>();
  readonly #room: WorkerRoom;
  readonly #open = new Map<string, Promise<ServedModel>>();
  /** Not the last ones any more, but perhaps still in use by a request that began before. */
  readonly #retired = new Map<Promise<ServedModel>, unknown>();
  #closed = false;

  constructor(room: WorkerRoom) {
    this.#room = room;
  }

  /** Rejects as openServedModel and `find`. */
  get(id: string, find: () => Promise<LocalModel>): Promise<ServedModel> {
    if (this.#closed) return Promise.reject(new PotluckError('STOPPED', 'The daemon is stopping.'));
    const known = this.#open.get(id);
    const opened =
      known ??
      find().then(model =>
        openServedModel(model, this.#room, () => this.withoutTemplate.add(model.manifest.name)),
      );
    // the last one is the one that was used last
    this.#open.delete(id);
    this.#open.set(id, opened);
    if (known === undefined) void opened.catch(() => this.#open.delete(id));
    const [oldest] = this.#open;
    if (this.#open.size > MOST_OPEN && oldest !== undefined) this.#retire(...oldest);
    return opened;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of this.#retired.values()) TIMERS.clearTimeout(timer);
    await Promise.all([...this.#open.values(), ...this.#retired.keys()].map(close));
  }

  #retire(id: string, model: Promise<ServedModel>): void {
    this.#open.delete(id);
    const timer = TIMERS.setTimeout(() => {
      this.#retired.delete(model);
      void close(model);
    }, RETIRED_MILLISECONDS);
    this.#retired.set(model, timer);
  }
}

/** A model that could not be opened has nothing to close; whoever asked for it was told why. */
const close = (model: Promise<ServedModel>): Promise<void> =>
  model.then(
    opened => opened.close(),
    () => undefined,
  );
