import { Worker } from 'node:worker_threads';
import type { WaitTimers } from '../engine/plan-runner.ts';
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

/** Chats are rendered within this time after their model was asked for; asked for again, it stays. */
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

/** A model in memory. */
interface Opened {
  readonly model: Promise<ServedModel>;
  /** Set while it is none of the last ones any more, but perhaps still in use by a request that began before. */
  timer: unknown;
}

/** Tokenizers and templates of the models that were asked for last. */
export class ServedModels {
  /** Names of models that brought no chat template and were asked to chat. */
  readonly withoutTemplate = new Set<string>();
  readonly #room: WorkerRoom;
  readonly #timers: WaitTimers;
  /** By id; the last one is the one that was used last. */
  readonly #opened = new Map<string, Opened>();
  #closed = false;

  constructor(room: WorkerRoom, timers: WaitTimers) {
    this.#room = room;
    this.#timers = timers;
  }

  /** Rejects as openServedModel and `find`. */
  get(id: string, find: () => Promise<LocalModel>): Promise<ServedModel> {
    if (this.#closed) return Promise.reject(new PotluckError('STOPPED', 'The daemon is stopping.'));
    const opened = this.#opened.get(id) ?? this.#open(id, find);
    this.#timers.clearTimeout(opened.timer);
    opened.timer = null;
    this.#opened.delete(id);
    this.#opened.set(id, opened);
    for (const [older, each] of [...this.#opened].slice(0, -MOST_OPEN))
      each.timer ??= this.#timers.setTimeout(() => this.#retire(older, each), RETIRED_MILLISECONDS);
    return opened.model;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { timer } of this.#opened.values()) this.#timers.clearTimeout(timer);
    await Promise.all([...this.#opened.values()].map(close));
  }

  #open(id: string, find: () => Promise<LocalModel>): Opened {
    const model = find().then(found =>
      openServedModel(found, this.#room, () => this.withoutTemplate.add(found.manifest.name)),
    );
    const opened: Opened = { model, timer: null };
    void model.catch(() => this.#forget(id, opened));
    return opened;
  }

  #retire(id: string, opened: Opened): void {
    this.#forget(id, opened);
    void close(opened);
  }

  #forget(id: string, opened: Opened): void {
    this.#timers.clearTimeout(opened.timer);
    if (this.#opened.get(id) === opened) this.#opened.delete(id);
  }
}

/** A model that could not be opened has nothing to close; whoever asked for it was told why. */
const close = ({ model }: Opened): Promise<void> =>
  model.then(
    opened => opened.close(),
    () => undefined,
  );
