import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { fetchStatus, streamChat } from './api-client.ts';
import { ChatHistory } from './chat-history.ts';
import { errorText } from './print-error.ts';

export interface ChatOptions {
  readonly url: string;
  /** One question, then the end; null: a conversation. */
  readonly prompt: string | null;
  /** Null: the model that is served. */
  readonly model: string | null;
  readonly maxTokens: number | null;
  readonly temperature: number | null;
}

export interface Terminal {
  readonly input: Readable & { readonly isTTY?: boolean };
  readonly output: Writable;
  readonly error: Writable;
}

/** Most characters read from a pipe as a prompt. */
const PROMPT_LIMIT = 1 << 20;

/** How thoughts look on a terminal. */
const [DIM, PLAIN] = ['\u001b[2m', '\u001b[0m'];

const FORGOTTEN = '(The conversation is longer than the context: its oldest turns are forgotten.)';

const HELP = `/clear forgets what was said, /exit leaves, /help prints this.
Ctrl-C stops an answer; pressed twice, or between answers, it leaves.
`;

/** `potluck chat`: a conversation on a terminal, or one answer to a prompt or to standard input. */
export async function chat(options: ChatOptions, terminal: Terminal): Promise<void> {
  if (options.prompt !== null) return answerOnce(options, options.prompt, terminal);
  if (!terminal.input.isTTY) return answerOnce(options, await readAll(terminal.input), terminal);
  const { model, devices } = await fetchStatus(options.url);
  const name = options.model ?? model?.name ?? 'no model yet';
  terminal.output.write(
    `${name} on ${devices.length === 1 ? '1 device' : `${devices.length} devices`}. ${HELP}\n`,
  );
  await converse(options, terminal);
}

async function answerOnce(options: ChatOptions, prompt: string, terminal: Terminal): Promise<void> {
  if (prompt.trim() === '')
    throw new PotluckError('BAD_OPTION', 'The prompt is empty: write it after `chat`, or pipe it in');
  const never = new AbortController().signal;
  for await (const text of streamChat(options.url, [{ role: 'user', content: prompt }], options, never)) {
    terminal.output.write(text);
  }
  terminal.output.write('\n');
}

async function readAll(input: Readable): Promise<string> {
  let text = '';
  for await (const chunk of input.setEncoding('utf8')) {
    text += chunk;
    if (text.length > PROMPT_LIMIT) {
      throw new PotluckError('BAD_OPTION', `The prompt has over ${PROMPT_LIMIT} characters`);
    }
  }
  return text.trimEnd();
}

async function converse(options: ChatOptions, terminal: Terminal): Promise<void> {
  const lines = createInterface({
    input: terminal.input,
    output: terminal.output,
    terminal: true,
    prompt: '> ',
  });
  const history = new ChatHistory();
  let answering: AbortController | null = null;
  lines.on('SIGINT', () => {
    if (answering === null || answering.signal.aborted) lines.close();
    else answering.abort();
  });
  lines.prompt();
  for await (const line of lines) {
    const text = line.trim();
    if (text === '/exit' || text === '/quit') break;
    if (text === '/clear') history.clear();
    else if (text.startsWith('/')) terminal.output.write(HELP);
    else if (text !== '') {
      answering = new AbortController();
      await answer(options, terminal, history, text, answering.signal);
      answering = null;
    }
    if (isClosed(lines)) break;
    lines.prompt();
  }
  lines.close();
  terminal.output.write('\n');
}

/** Node has `closed` on the interface; its types do not say so. */
const isClosed = (lines: Interface): boolean => 'closed' in lines && lines.closed === true;

async function answer(
  options: ChatOptions,
  terminal: Terminal,
  history: ChatHistory,
  question: string,
  signal: AbortSignal,
): Promise<void> {
  history.ask(question);
  let said = '';
  let thinking = false;
  const think = (text: string): void => {
    terminal.output.write(thinking ? text : DIM + text);
    thinking = true;
  };
  const speak = (): void => {
    if (thinking) terminal.output.write(`${PLAIN}\n\n`);
    thinking = false;
  };
  try {
    for await (const text of streamWhatFits(options, terminal, history, signal, think)) {
      speak();
      said += text;
      terminal.output.write(text);
    }
    speak();
    terminal.output.write('\n');
  } catch (error) {
    speak();
    // A conversation outlives an answer that failed: a device may have left, and another plan is made.
    if (signal.aborted) terminal.output.write(' (stopped)\n');
    else terminal.error.write(`\n${errorText(error, process.env.POTLUCK_DEBUG === '1')}\n`);
  }
  history.answer(said);
}

/** As streamChat; where the conversation is longer than the context, its oldest turns are left out, and that is said. */
async function* streamWhatFits(
  options: ChatOptions,
  terminal: Terminal,
  history: ChatHistory,
  signal: AbortSignal,
  think: (text: string) => void,
): AsyncGenerator<string> {
  for (let told = false; ; told = true) {
    const parts = streamChat(options.url, history.messages, options, signal, think);
    let first: IteratorResult<string, unknown>;
    try {
      first = await parts.next();
    } catch (error) {
      if (asPotluckError(error).code !== 'CONTEXT_TOO_LONG' || !history.forgetOldest()) throw error;
      if (!told) terminal.output.write(`${DIM}${FORGOTTEN}${PLAIN}\n`);
      continue;
    }
    if (first.done) return;
    yield first.value;
    yield* parts;
    return;
  }
}
