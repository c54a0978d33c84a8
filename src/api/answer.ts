import { asPotluckError } from '../errors/errors.ts';
import { type Choice, type ChoiceEvent, type MadeCall, runChoices, type Usage } from './choices.ts';
import { eventStreamResponse } from './event-stream.ts';
import type { ApiHost, ApiModel } from './host.ts';
import { errorBody } from './openai-errors.ts';

/** How a kind of answer (chat or completion) is written. */
export interface AnswerShape {
  /** Fields that every chunk and the whole answer begin with: id, created, model ... */
  readonly head: Readonly<Record<string, unknown>>;
  readonly object: string;
  readonly chunkObject: string;
  /** A choice of a whole answer. */
  choice(index: number, answer: WholeChoice, reason: string): unknown;
  /** A choice of a chunk; `first` for the first chunk of that choice. */
  chunk(event: ChoiceEvent, first: boolean): unknown;
}

/** All of one choice. */
export interface WholeChoice {
  text: string;
  reasoning: string;
  readonly calls: MadeCall[];
}

export interface Answer {
  readonly host: ApiHost;
  readonly model: ApiModel;
  readonly choices: readonly Choice[];
  /** Sum of the tokens of the prompts. */
  readonly promptTokens: number;
  readonly shape: AnswerShape;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Aborts when the client is gone. */
  readonly gone: AbortSignal;
}

/** Generates and writes an answer. Rejects with what the generator throws, unless a stream already began. */
export async function respond(answer: Answer): Promise<Response> {
  const { host, model, choices, promptTokens, gone } = answer;
  const ender = new AbortController();
  const signal = AbortSignal.any([gone, ender.signal]);
  const usage: Usage = { prompt_tokens: promptTokens, completion_tokens: 0, total_tokens: promptTokens };
  const events = runChoices(choices, model, usage, signal);
  if (!answer.stream) return Response.json(await wholeAnswer(answer, events, usage));
  return eventStreamResponse({
    events: chunks(answer, events, usage),
    describe(thrown) {
      const error = asPotluckError(thrown);
      if (error.status === 500) host.reportDefect(error);
      return JSON.stringify(errorBody(error));
    },
    abort: () => ender.abort(),
    timers: host.timers,
  });
}

async function wholeAnswer(
  answer: Answer,
  events: AsyncIterable<ChoiceEvent>,
  usage: Usage,
): Promise<object> {
  const wholes = answer.choices.map((): WholeChoice => ({ text: '', reasoning: '', calls: [] }));
  const reasons = answer.choices.map(() => 'stop');
  for await (const event of events) {
    const whole = wholes[event.index]!;
    if (event.type === 'text') whole.text += event.text;
    else if (event.type === 'reasoning') whole.reasoning += event.text;
    else if (event.type === 'call') whole.calls.push(event.call);
    else reasons[event.index] = event.reason;
  }
  const { head, object, choice } = answer.shape;
  return { ...head, object, choices: wholes.map((whole, i) => choice(i, whole, reasons[i]!)), usage };
}

async function* chunks(
  answer: Answer,
  events: AsyncIterable<ChoiceEvent>,
  usage: Usage,
): AsyncGenerator<string, void> {
  const { shape, includeUsage } = answer;
  const head = { ...shape.head, object: shape.chunkObject };
  const begun = new Set<number>();
  for await (const event of events) {
    const chunk = shape.chunk(event, !begun.has(event.index));
    begun.add(event.index);
    // OpenAI sends `usage: null` with each chunk when it was asked for.
    yield JSON.stringify({ ...head, choices: [chunk], ...(includeUsage ? { usage: null } : {}) });
  }
  if (includeUsage) yield JSON.stringify({ ...head, choices: [], usage });
}
