import type { Generator } from '../engine/generate.ts';
import type { PotluckError } from '../errors/errors.ts';
import type { AnswerFormat } from '../model/answer-format.ts';
import type { Chat } from '../model/chat-template.ts';
import type { Tokenizer } from '../model/tokenizer.ts';

/** A model that requests may name. */
export interface ListedModel {
  readonly id: string;
  /** Other names that clients may use. */
  readonly aliases: readonly string[];
  /** Seconds since 1970. */
  readonly created: number;
  /** Reads what answers with it need. Rejects with NOT_READY, DEVICE_LOST or PACK_INVALID. */
  open(): Promise<ApiModel>;
}

/** The model that answers. */
export interface ApiModel {
  readonly id: string;
  /** Answers with this model, wherever it is computed. */
  readonly generator: Generator;
  /** Most positions of a sequence: prompt and answer together. */
  readonly context: number;
  /** Number of token ids. */
  readonly vocabulary: number;
  readonly tokenizer: Tokenizer;
  /** Ids of a chat with the generation prompt. Rejects with TEMPLATE_FAILED, CONTEXT_TOO_LONG, BUSY, STOPPED. */
  renderChat(chat: Chat): Promise<readonly number[]>;
  /** How its answers tell thoughts and calls of tools. */
  readonly answerFormat: AnswerFormat;
  readonly stopTokens: readonly number[];
  /** Put before a text prompt of /v1/completions, or null. */
  readonly beginToken: number | null;
}

/** What the API needs from the daemon that serves it. */
export interface ApiHost {
  readonly version: string;
  /** Milliseconds since 1970. */
  now(): number;
  /** The models of the cluster, that which is served now first. Rejects with NOT_READY while there is none. */
  models(): Promise<readonly ListedModel[]>;
  state(): 'serving' | 'preparing' | 'waiting';
  /** A seed for a request that brings none: a whole number that is safe in a double. */
  randomSeed(): number;
  readonly timers: ApiTimers;
  /** Told of every error of status 500, for the log. Its message never holds text of a prompt unless a defect puts it there. */
  reportDefect(error: PotluckError): void;
}

export interface ApiTimers {
  setTimeout(callback: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}
