import { randomUUID } from 'node:crypto';
import type { GenerateRequest } from '../engine/generate.ts';
import { PotluckError } from '../errors/errors.ts';
import { marksOf } from '../model/answer-format.ts';
import { TextStream } from '../model/text-stream.ts';
import { AnswerParser, type AnswerParsing, type ParsedPart } from './answer-parser.ts';
import type { ApiModel } from './host.ts';
import { FieldError } from './openai-errors.ts';

/** One answer that a request asks for. */
export interface Choice {
  readonly index: number;
  readonly request: GenerateRequest;
  readonly stop: readonly string[];
  /** True for the answer of a chat, false where the text goes on from the prompt. */
  readonly startsText: boolean;
  /** Null: all of the answer is text. */
  readonly parsing: AnswerParsing | null;
  /** Most calls of tools; the answer ends behind the last. */
  readonly mostCalls: number;
}

export type FinishReason = 'stop' | 'length' | 'tool_calls';

export type ChoiceEvent =
  | { readonly index: number; readonly type: 'text'; readonly text: string }
  | { readonly index: number; readonly type: 'reasoning'; readonly text: string }
  | { readonly index: number; readonly type: 'call'; readonly call: MadeCall }
  | { readonly index: number; readonly type: 'finish'; readonly reason: FinishReason };

/** A call of a tool, as OpenAI's clients read it. */
export interface MadeCall {
  /** Place among the calls of the answer, from 0. */
  readonly place: number;
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}

/** Ids have nine letters and digits: what Mistral's templates ask for. */
const madeCall = (part: { name: string; arguments: string }, place: number): MadeCall => ({
  place,
  id: randomUUID().replaceAll('-', '').slice(0, 9),
  name: part.name,
  arguments: part.arguments,
});

/** OpenAI's usage. A stop token is not counted; tokens of a text that a stop string cut away are. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** Tokens that an answer may have. Throws FieldError CONTEXT_TOO_LONG where prompt and answer do not fit. */
export function maxTokensOf(
  promptTokens: number,
  asked: number | null,
  model: ApiModel,
  param: string,
): number {
  const room = model.context - promptTokens;
  if (room >= (asked ?? 1)) return asked ?? room;
  const wish = asked === null ? 'an answer' : `${asked} tokens of answer`;
  throw new FieldError(
    'CONTEXT_TOO_LONG',
    param,
    `The prompt has ${promptTokens} tokens; with ${wish} that is more than the context of ${model.context} tokens. Shorten the prompt or ask for less.`,
  );
}

/**
 * Generates all choices at once and gives their events as they come, at the pace of the reader: one event per choice is
 * ready at most. Ends early, without the finishes, when `signal` aborts. When one choice fails, the others are ended and its
 * error is thrown. `usage` counts along.
 */
export async function* runChoices(
  choices: readonly Choice[],
  model: ApiModel,
  usage: Usage,
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent, void> {
  const ender = new AbortController();
  const both = AbortSignal.any([signal, ender.signal]);
  const runs = choices.map(choice => runChoice(choice, model, usage, both));
  const pending = new Map<
    (typeof runs)[number],
    Promise<{ run: (typeof runs)[number]; result: IteratorResult<ChoiceEvent, void> }>
  >();
  for (const run of runs)
    pending.set(
      run,
      run.next().then(result => ({ run, result })),
    );
  try {
    while (pending.size > 0) {
      const { run, result } = await Promise.race(pending.values());
      // Asked again at the end of the line, so that no choice starves the others.
      pending.delete(run);
      if (result.done) continue;
      yield result.value;
      pending.set(
        run,
        run.next().then(next => ({ run, result: next })),
      );
    }
  } finally {
    ender.abort();
    await Promise.allSettled(runs.map(run => run.return()));
  }
}

async function* runChoice(
  choice: Choice,
  model: ApiModel,
  usage: Usage,
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent, void> {
  const { index, request, stop, startsText, parsing, mostCalls } = choice;
  const shownControls = parsing === null ? [] : marksOf(parsing.format);
  const text = new TextStream(model.tokenizer, { stop, startsText, shownControls });
  const parser = parsing === null ? null : new AnswerParser(parsing);
  const parts = (piece: string): ParsedPart[] =>
    parser?.push(piece) ?? (piece === '' ? [] : [{ type: 'text', text: piece }]);
  const ender = new AbortController();
  let calls = 0;
  try {
    for await (const event of model.generator.generate(request, AbortSignal.any([signal, ender.signal]))) {
      if (event.type === 'token') {
        usage.completion_tokens++;
        usage.total_tokens++;
      }
      const found = parts(event.type === 'token' ? text.push(event.id) : text.end());
      const ends = text.stopped || event.type === 'finish';
      if (ends && parser !== null) found.push(...parser.end());
      for (const part of found) {
        yield part.type === 'call'
          ? { index, type: 'call', call: madeCall(part, calls++) }
          : { index, ...part };
        if (calls >= mostCalls) return yield { index, type: 'finish', reason: 'tool_calls' };
      }
      if (!ends) continue;
      const reason = event.type === 'finish' ? event.reason : 'stop';
      return yield { index, type: 'finish', reason: calls > 0 && reason === 'stop' ? 'tool_calls' : reason };
    }
  } finally {
    ender.abort();
  }
  if (signal.aborted) return;
  throw new PotluckError(
    'INTERNAL',
    'An answer ended without a reason. Try again, and report it if it stays.',
  );
}
