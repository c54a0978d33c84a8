import { PotluckError } from '../errors/errors.ts';
import type { Chat, RenderReply, RenderRequest } from './chat-template-render.ts';

export type { Chat, ChatMessage, TemplateVariables, ToolCall } from './chat-template-render.ts';

/** What is used of a node:worker_threads Worker that runs src/daemon/chat-template-worker.ts. */
export interface TemplateWorker {
  postMessage(request: RenderRequest): void;
  on(event: 'message', listener: (reply: RenderReply) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'exit', listener: (code: number) => void): unknown;
  terminate(): Promise<unknown>;
}

export interface TemplateTimers {
  setTimeout(callback: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

export interface TemplateLimits {
  /** Milliseconds a rendering may take, and the start of a worker before it. */
  readonly renderMs: number;
  readonly startMs: number;
  /** Milliseconds without work after which the worker ends. */
  readonly idleMs: number;
  /** Most characters of a rendered chat. */
  readonly maxCharacters: number;
  /** Most chats that wait for the worker. */
  readonly queue: number;
}

const TEMPLATE_LIMITS: TemplateLimits = {
  renderMs: 2000,
  startMs: 15_000,
  idleMs: 30_000,
  maxCharacters: 8 * 1024 * 1024,
  queue: 32,
};

/** Memory of the worker in MiB, for `resourceLimits` of whoever creates it. */
export const TEMPLATE_WORKER_MEMORY = {
  maxOldGenerationSizeMb: 96,
  maxYoungGenerationSizeMb: 8,
  stackSizeMb: 2,
};

export interface ChatTemplateOptions {
  /** The model's Jinja template; null for the plain fallback. */
  readonly source: string | null;
  /** Another one for chats with tools, where the model has one. */
  readonly toolSource?: string | null;
  /** Tokens by the names that templates use: bos_token, eos_token ... */
  readonly variables: Readonly<Record<string, string>>;
  /** May wait until there is room for one. */
  createWorker(): Promise<TemplateWorker>;
  readonly timers: TemplateTimers;
  /** Milliseconds since 1970. */
  now(): number;
  readonly limits?: Partial<TemplateLimits>;
}

export interface RenderedChat {
  readonly text: string;
  /** True where the model has no template and the plain form was used. */
  readonly fallback: boolean;
}

export interface ChatTemplate {
  readonly source: string | null;
  /** Rejects with TEMPLATE_FAILED (refused, too slow, too long), BUSY (queue full) or STOPPED (closed). */
  render(chat: Chat): Promise<RenderedChat>;
  /** Ends the worker; waiting chats are rejected with STOPPED. */
  close(): Promise<void>;
}

/** Renders chats in a worker that starts at the first one, renders one at a time, and ends when idle. */
export function createChatTemplate(options: ChatTemplateOptions): ChatTemplate {
  const { source, toolSource, variables, now } = options;
  if (source === null) return plainTemplate;
  const limits = { ...TEMPLATE_LIMITS, ...options.limits };
  const queue = new RenderQueue(limits, options.timers, () => options.createWorker());
  return {
    source,
    async render(chat) {
      const request = {
        ...chat,
        source: (chat.tools?.length ? toolSource : null) ?? source,
        variables: { ...chat.variables, ...variables },
        now: now(),
        maxCharacters: limits.maxCharacters,
      };
      return { text: await queue.add(request), fallback: false };
    },
    close: () => queue.close(),
  };
}

/** A line per message, for models that bring no template. */
const plainTemplate: ChatTemplate = {
  source: null,
  async render({ messages }) {
    const lines = messages.map(({ role, content }) => `${role}: ${content}\n`);
    return { text: `${lines.join('')}assistant:`, fallback: true };
  },
  async close() {
    // Nothing was started.
  },
};

interface Job {
  readonly request: RenderRequest;
  resolve(text: string): void;
  reject(error: PotluckError): void;
}

class RenderQueue {
  readonly #limits: TemplateLimits;
  readonly #timers: TemplateTimers;
  readonly #createWorker: () => Promise<TemplateWorker>;
  readonly #waiting: Job[] = [];
  #worker: TemplateWorker | null = null;
  /** A worker is being created. */
  #creating = false;
  #ready = false;
  #current: Job | null = null;
  /** The one deadline at a time: start, rendering or idle. */
  #timer: unknown = null;
  #closed = false;
  /** Ends of workers that are under way. */
  readonly #ending = new Set<Promise<unknown>>();

  constructor(
    limits: TemplateLimits,
    timers: TemplateTimers,
    createWorker: ChatTemplateOptions['createWorker'],
  ) {
    this.#limits = limits;
    this.#timers = timers;
    this.#createWorker = createWorker;
  }

  add(request: RenderRequest): Promise<string> {
    if (this.#closed) return Promise.reject(stopped());
    if (this.#waiting.length >= this.#limits.queue) {
      return Promise.reject(
        new PotluckError('BUSY', 'Too many chats wait for the template. Try again later.'),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, resolve, reject });
      this.#next();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#endWorker();
    const jobs = [...(this.#current === null ? [] : [this.#current]), ...this.#waiting.splice(0)];
    this.#current = null;
    for (const job of jobs) job.reject(stopped());
    await Promise.all(this.#ending);
  }

  #next(): void {
    if (this.#current !== null || this.#closed) return;
    if (this.#waiting.length === 0) {
      if (this.#worker !== null) this.#deadline(this.#limits.idleMs, () => this.#endWorker());
      return;
    }
    if (this.#worker === null && !this.#creating) void this.#startWorker();
    if (!this.#ready) return;
    const job = this.#waiting.shift()!;
    this.#current = job;
    this.#deadline(this.#limits.renderMs, () => this.#broken(`took longer than ${this.#limits.renderMs} ms`));
    this.#worker?.postMessage(job.request);
  }

  async #startWorker(): Promise<void> {
    this.#creating = true;
    try {
      this.#adopt(await this.#createWorker());
    } catch (error) {
      this.#creating = false;
      const said = error instanceof Error ? error.message : String(error);
      this.#failFirst(error instanceof PotluckError ? error : failed(`could not be run: ${said}`));
    }
  }

  #adopt(worker: TemplateWorker): void {
    this.#creating = false;
    this.#worker = worker;
    this.#ready = false;
    if (this.#closed) {
      this.#endWorker();
      return;
    }
    this.#deadline(this.#limits.startMs, () => this.#broken('could not be run: its worker did not start'));
    // A worker that was ended may still report: only the present one counts.
    worker.on('message', reply => worker === this.#worker && this.#answer(reply));
    worker.on('error', error => worker === this.#worker && this.#broken(`failed: ${error.message}`));
    worker.on('exit', () => worker === this.#worker && this.#broken('ended without an answer'));
  }

  #answer(reply: RenderReply): void {
    this.#clearDeadline();
    if (reply.type === 'ready') {
      this.#ready = true;
    } else {
      const job = this.#current;
      this.#current = null;
      if (reply.type === 'text') job?.resolve(reply.text);
      else job?.reject(failed(`refused these messages: ${reply.message}`));
    }
    this.#next();
  }

  /** The worker is of no more use: the chat it had fails, the others get a new worker. */
  #broken(reason: string): void {
    this.#endWorker();
    this.#failFirst(failed(reason));
  }

  #failFirst(error: PotluckError): void {
    const job = this.#current ?? this.#waiting.shift();
    this.#current = null;
    job?.reject(error);
    this.#next();
  }

  #endWorker(): void {
    this.#clearDeadline();
    const worker = this.#worker;
    this.#worker = null;
    this.#ready = false;
    if (worker === null) return;
    const end = worker.terminate().finally(() => this.#ending.delete(end));
    this.#ending.add(end);
  }

  #deadline(milliseconds: number, callback: () => void): void {
    this.#clearDeadline();
    this.#timer = this.#timers.setTimeout(callback, milliseconds);
  }

  #clearDeadline(): void {
    if (this.#timer !== null) this.#timers.clearTimeout(this.#timer);
    this.#timer = null;
  }
}

function failed(reason: string): PotluckError {
  return new PotluckError(
    'TEMPLATE_FAILED',
    `The chat template ${reason}. Change the messages or use /v1/completions.`,
  );
}

function stopped(): PotluckError {
  return new PotluckError('STOPPED', 'The daemon is stopping.');
}
