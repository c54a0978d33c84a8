import type { GenerateRequest } from '../engine/generate.ts';
import { PotluckError } from '../errors/errors.ts';
import { TextStream } from '../model/text-stream.ts';
import type { ApiModel } from './host.ts';
import { FieldError } from './openai-errors.ts';

/** One answer that a request asks for. */
export interface Choice {
  readonly index: number;
  readonly request: GenerateRequest;
  readonly stop: readonly string[];
  /** True for the answer of a chat, false where the text goes on from the prompt. */
  readonly startsText: boolean;
}

export type ChoiceEvent =
  | { readonly index: number; readonly type: 'text'; readonly text: string }
  | { readonly index: number; readonly type: 'finish'; readonly reason: 'stop' | 'length' };

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
  const { index, request, stop, startsText } = choice;
  const text = new TextStream(model.tokenizer, { stop, startsText });
  const ender = new AbortController();
  try {
    for await (const event of model.generator.generate(request, AbortSignal.any([signal, ender.signal]))) {
      if (event.type === 'token') {
        usage.completion_tokens++;
        usage.total_tokens++;
      }
      const piece = event.type === 'token' ? text.push(event.id) : text.end();
      if (piece !== '') yield { index, type: 'text', text: piece };
      if (text.stopped) return yield { index, type: 'finish', reason: 'stop' };
      if (event.type === 'finish') return yield { index, type: 'finish', reason: event.reason };
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
