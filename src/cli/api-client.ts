import { tableCode } from '../api/openai-errors.ts';
import type { DaemonStatus } from '../daemon/status.ts';
import { PotluckError } from '../errors/errors.ts';
import { readEvents } from './server-sent-events.ts';

/** Talks to the API of a daemon. Every call rejects with NOT_RUNNING where none answers, else with the daemon's error. */

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export type Finish = 'stop' | 'length';

const QUICK = 10_000;
/** Prompts on slow devices with small memory take long; a daemon that is gone is noticed by its socket. */
const SLOW = 30 * 60_000;

const CUT = 'The answer broke off: the daemon closed the connection';

export async function fetchStatus(url: string): Promise<DaemonStatus> {
  const response = await request(url, '/potluck/status', null, AbortSignal.timeout(QUICK));
  return (await json(response)) as DaemonStatus;
}

/** Streams the text of an answer; returns why it ended. Thoughts before it go to `onThought`. */
export async function* streamChat(
  url: string,
  messages: readonly ChatMessage[],
  options: {
    /** Null: the one that is served. */
    readonly model: string | null;
    readonly maxTokens: number | null;
    readonly temperature: number | null;
  },
  signal: AbortSignal,
  onThought: (text: string) => void = () => undefined,
): AsyncGenerator<string, string> {
  const body = {
    model: options.model ?? (await modelName(url)),
    messages,
    stream: true,
    ...(options.maxTokens === null ? {} : { max_completion_tokens: options.maxTokens }),
    ...(options.temperature === null ? {} : { temperature: options.temperature }),
  };
  const response = await request(url, '/v1/chat/completions', body, signal);
  let finish = 'cut';
  for await (const data of readEvents(bodyOf(response))) {
    if (data === '[DONE]') return finish;
    const event = parse(data) as ChatChunk;
    if (event.error !== undefined) throw fromDaemon(event.error, 500);
    const choice = event.choices?.[0];
    if (typeof choice?.delta?.reasoning_content === 'string') onThought(choice.delta.reasoning_content);
    if (typeof choice?.delta?.content === 'string') yield choice.delta.content;
    if (typeof choice?.finish_reason === 'string') finish = choice.finish_reason;
  }
  if (finish === 'cut') throw new PotluckError('DEVICE_LOST', CUT);
  return finish;
}

interface ChatChunk {
  readonly error?: WireError;
  readonly choices?: readonly {
    readonly delta?: { readonly content?: unknown; readonly reasoning_content?: unknown };
    readonly finish_reason?: unknown;
  }[];
}

async function modelName(url: string): Promise<string> {
  const response = await request(url, '/v1/models', null, AbortSignal.timeout(QUICK));
  const list = (await json(response)) as { data?: readonly { id?: unknown }[] };
  const id = list.data?.[0]?.id;
  if (typeof id === 'string') return id;
  throw new PotluckError(
    'NOT_READY',
    `The daemon at ${url} has no model yet; \`potluck status\` says what it waits for`,
  );
}

/** Continues `prompt`, without streaming; how many tokens that gave. */
export async function complete(
  url: string,
  body: {
    readonly prompt: string;
    readonly temperature: number;
    readonly seed: number;
    readonly max_tokens: number;
  },
): Promise<number> {
  const response = await request(
    url,
    '/v1/completions',
    { model: 'default', ...body },
    AbortSignal.timeout(SLOW),
  );
  return ((await json(response)) as { usage: { completion_tokens: number } }).usage.completion_tokens;
}

/** Greedy continuation of `tokens`. */
export async function generate(
  url: string,
  tokens: readonly number[],
  maxTokens: number,
  stopTokens: readonly number[],
): Promise<{ tokens: number[]; reason: Finish }> {
  const body = { tokens, maxTokens, stopTokens };
  const response = await request(url, '/potluck/generate', body, AbortSignal.timeout(SLOW));
  return (await json(response)) as { tokens: number[]; reason: Finish };
}

/** Logits at the positions `at` (rising) of `tokens`; one row of [vocabulary] float32 for each. */
export async function evaluateLogits(
  url: string,
  tokens: readonly number[],
  at: readonly number[],
): Promise<Float32Array[]> {
  const body = { tokens, at, want: 'logits' };
  const response = await request(url, '/potluck/evaluate', body, AbortSignal.timeout(SLOW));
  const bytes = await response.arrayBuffer();
  if (bytes.byteLength === 0 || bytes.byteLength % (at.length * 4) !== 0) {
    throw new PotluckError(
      'PROTOCOL',
      `The daemon sent ${bytes.byteLength} bytes for ${at.length} rows of logits`,
    );
  }
  const vocabulary = bytes.byteLength / 4 / at.length;
  return at.map((_, row) => new Float32Array(bytes, row * vocabulary * 4, vocabulary));
}

/** SHA-256 over those rows. */
export async function evaluateHash(
  url: string,
  tokens: readonly number[],
  at: readonly number[],
): Promise<string> {
  const response = await request(
    url,
    '/potluck/evaluate',
    { tokens, at, want: 'hash' },
    AbortSignal.timeout(SLOW),
  );
  return ((await json(response)) as { sha256: string }).sha256;
}

/** Sum of -ln p(tokens[i + 1]) for i in `at`, and how many. */
export async function evaluateLoss(
  url: string,
  tokens: readonly number[],
  at: readonly number[],
): Promise<{ loss: number; count: number }> {
  const response = await request(
    url,
    '/potluck/evaluate',
    { tokens, at, want: 'loss' },
    AbortSignal.timeout(SLOW),
  );
  return (await json(response)) as { loss: number; count: number };
}

async function request(url: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url + path, {
      signal,
      ...(body === null
        ? {}
        : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    });
  } catch (error) {
    throw connectionError(url, error);
  }
  if (response.ok) return response;
  const text = (await response.text()).slice(0, 10_000);
  const wire = text.startsWith('{') ? (parse(text) as { error?: WireError }).error : undefined;
  throw fromDaemon(
    wire ?? { message: `${url}${path} answered with status ${response.status}` },
    response.status,
  );
}

function connectionError(url: string, error: unknown): unknown {
  if (error instanceof Error && error.name === 'AbortError') return error;
  if (error instanceof Error && error.name === 'TimeoutError') {
    return new PotluckError('DEADLINE', `The daemon at ${url} did not answer in time`, { cause: error });
  }
  const advice = 'start one with `npm start`, or give its address with --url';
  return new PotluckError('NOT_RUNNING', `No daemon answers at ${url}: ${advice}`, { cause: error });
}

interface WireError {
  readonly message?: unknown;
  readonly code?: unknown;
}

function fromDaemon(error: WireError, status: number): PotluckError {
  const text =
    typeof error.message === 'string' ? error.message : `The daemon answered with status ${status}`;
  const code = typeof error.code === 'string' ? tableCode(error.code) : null;
  return new PotluckError(code ?? 'PROTOCOL', text);
}

async function* bodyOf(response: Response): AsyncGenerator<Uint8Array> {
  if (response.body === null) throw new PotluckError('PROTOCOL', 'The daemon sent an empty answer');
  try {
    yield* response.body;
  } catch (error) {
    throw brokenOff(error);
  }
}

/** Why the rest of an answer did not come: the daemon ended, or its device did. */
function brokenOff(error: unknown): unknown {
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')) return error;
  return new PotluckError('DEVICE_LOST', CUT, { cause: error });
}

async function json(response: Response): Promise<unknown> {
  return parse(await response.text());
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PotluckError('PROTOCOL', `The daemon sent something that is not JSON: ${text.slice(0, 80)}`, {
      cause: error,
    });
  }
}
