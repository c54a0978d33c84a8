import { Worker } from 'node:worker_threads';
import { PotluckError } from '../errors/errors.ts';
import {
  type Chat,
  type ChatTemplate,
  createChatTemplate,
  TEMPLATE_WORKER_MEMORY,
} from '../model/chat-template.ts';
import { encodeChat } from '../model/chat-template-tokens.ts';
import { createTokenizer, type Tokenizer } from '../model/tokenizer.ts';
import type { LocalModel } from './model-store.ts';

/** What the API needs of a model: its tokenizer and its chat template. */
export interface ServedModel {
  readonly id: string;
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** True once a chat was rendered without a template of the model's own. */
  readonly fallbackTemplate: boolean;
  renderChat(chat: Chat): Promise<number[]>;
  close(): Promise<void>;
}

/** Reads the tokenizer's files. Rejects with PACK_INVALID where the pack has none. */
export async function openServedModel(model: LocalModel): Promise<ServedModel> {
  const { manifest } = model;
  const tokenizerJson = await readJson(model, 'tokenizer.json');
  if (tokenizerJson === undefined)
    throw new PotluckError(
      'PACK_INVALID',
      `Model ${manifest.name} has no tokenizer.json: it takes token ids, not text.`,
    );
  const tokenizer = createTokenizer(tokenizerJson, (await readJson(model, 'tokenizer_config.json')) ?? {});
  const jinja = await model.readFile('chat_template.jinja');
  const template = createChatTemplate({
    source: jinja ? Buffer.from(jinja).toString('utf8') : tokenizer.chatTemplate,
    variables: tokenizer.named,
    createWorker: () =>
      new Worker(new URL('./chat-template-worker.js', import.meta.url), {
        resourceLimits: TEMPLATE_WORKER_MEMORY,
      }),
    timers: {
      setTimeout: (call, milliseconds) => setTimeout(call, milliseconds),
      clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout),
    },
    now: () => Date.now(),
  });
  let fallbackTemplate = false;
  return {
    id: model.id,
    name: manifest.name,
    tokenizer,
    template,
    get fallbackTemplate() {
      return fallbackTemplate;
    },
    async renderChat(chat) {
      const { beginToken, shape } = manifest;
      const tokens = await encodeChat({ tokenizer, template, beginToken, context: shape.context }, chat);
      fallbackTemplate ||= tokens.fallback;
      return tokens.ids;
    },
    close: () => template.close(),
  };
}

async function readJson(model: LocalModel, name: string): Promise<unknown> {
  const bytes = await model.readFile(name);
  return bytes && JSON.parse(Buffer.from(bytes).toString('utf8'));
}
