import { PotluckError } from '../errors/errors.ts';

export interface PullTimers {
  /** Milliseconds of a clock that rises. */
  now(): number;
  setTimeout(call: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

export interface RepoRequestsOptions {
  /** Of the server, such as https://huggingface.co, without a slash at the end. */
  readonly endpoint: string;
  /** Sent to the endpoint's own origin only; null: none. */
  readonly token: string | null;
  readonly fetch: typeof fetch;
  readonly timers: PullTimers;
  readonly signal: AbortSignal;
  /** Told before a request is tried again; for people. */
  readonly onRetry: (reason: string) => void;
}

/** A connection that was cut, or a server that is busy: worth another try. */
export class Interrupted extends Error {
  /** Milliseconds that the server asked to wait; null: it did not say. */
  readonly waitMs: number | null;

  constructor(message: string, waitMs: number | null = null, cause?: unknown) {
    super(message, { cause });
    this.waitMs = waitMs;
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** What the endpoint itself said of the file before it redirected to where the bytes are; null where it said nothing. */
  readonly linked: { readonly etag: string | null; readonly commit: string | null };
  /** Throws Interrupted where it breaks off, or where nothing comes for IDLE_MS. Read it, or call `cancel`. */
  readonly body: AsyncIterable<Uint8Array>;
  cancel(): void;
}

/** Headers come within this time, and then some part of the body at least this often. */
const IDLE_MS = 30_000;
const MOST_REDIRECTS = 5;
/** Tries of a request in a row that bring nothing. */
const TRIES = 5;
const FIRST_PAUSE_MS = 500;
/** A server that asks for more patience than this is given up. */
const LONGEST_PAUSE_MS = 300_000;
const BUSY = new Set([408, 425, 429, 500, 502, 503, 504]);

/** GETs from a model server that speaks the protocol of the Hugging Face Hub. */
export class RepoRequests {
  readonly endpoint: string;
  readonly #options: RepoRequestsOptions;

  constructor(options: RepoRequestsOptions) {
    this.#options = options;
    this.endpoint = options.endpoint;
  }

  /**
   * The whole body of a GET, of at most `limit` bytes, and its headers. Rejects with REPO_NOT_FOUND, ACCESS_DENIED,
   * DOWNLOAD_FAILED, or the reason of the signal.
   */
  read(url: string, what: string, limit: number): Promise<{ bytes: Uint8Array; headers: Headers }> {
    return this.retrying(async () => {
      const answer = await this.get(url, what, {});
      const parts: Uint8Array[] = [];
      let bytes = 0;
      for await (const part of answer.body) {
        bytes += part.length;
        if (bytes > limit) throw failed(`${what}: the answer has over ${limit} bytes`);
        parts.push(part);
      }
      return { bytes: Buffer.concat(parts), headers: answer.headers };
    });
  }

  /** Calls `work` until it does not throw Interrupted; `progressed` tells whether the last try brought something new. */
  async retrying<T>(work: () => Promise<T>, progressed: () => boolean = () => false): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await work();
      } catch (error) {
        this.#options.signal.throwIfAborted();
        if (!(error instanceof Interrupted)) throw error;
        if (progressed()) tries = 1;
        const wait = error.waitMs ?? FIRST_PAUSE_MS * 2 ** (tries - 1);
        if (tries >= TRIES || wait > LONGEST_PAUSE_MS) {
          const advice =
            wait > LONGEST_PAUSE_MS
              ? `The server asks to wait ${Math.ceil(wait / 1000)} s: pull again then`
              : 'Pull again: what is here already is kept';
          throw failed(`${error.message}. ${advice}`, error);
        }
        this.#options.onRetry(`${error.message}; trying again in ${(wait / 1000).toFixed(1)} s`);
        await this.#pause(wait);
      }
    }
  }

  /**
   * One GET, redirects followed. The token does not follow to another origin. `what` is for messages. Throws Interrupted where another
   * try may help, else as `read`. Statuses other than 200, 206 and 416 never come back.
   */
  async get(url: string, what: string, headers: Readonly<Record<string, string>>): Promise<Answer> {
    const { signal, token, endpoint } = this.#options;
    let target = new URL(url);
    const linked = { etag: null as string | null, commit: null as string | null };
    for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
      signal.throwIfAborted();
      const ender = new AbortController();
      const own = token !== null && target.origin === new URL(endpoint).origin;
      const response = await this.#patiently(
        what,
        target.host,
        ender,
        this.#options.fetch(target, {
          redirect: 'manual',
          signal: AbortSignal.any([signal, ender.signal]),
          headers: {
            'user-agent': 'potluck',
            'accept-encoding': 'identity',
            ...headers,
            ...(own ? { authorization: `Bearer ${token}` } : {}),
          },
        }),
      );
      if (target.origin === new URL(endpoint).origin) {
        linked.etag ??=
          response.headers.get('x-linked-etag') ?? (response.ok ? response.headers.get('etag') : null);
        linked.commit ??= response.headers.get('x-repo-commit');
      }
      if ([200, 206, 416].includes(response.status))
        return this.#answer(response, linked, what, target.host, ender);
      const location = response.headers.get('location');
      if (response.status >= 300 && response.status < 400 && location !== null) {
        ender.abort();
        target = redirected(target, location, what);
        continue;
      }
      const error = refusal(response, what, endpoint, token !== null);
      ender.abort();
      throw error;
    }
    throw failed(`${what}: more than ${MOST_REDIRECTS} redirects`);
  }

  #answer(
    response: Response,
    linked: Answer['linked'],
    what: string,
    host: string,
    ender: AbortController,
  ): Answer {
    const read = async function* (this: RepoRequests): AsyncGenerator<Uint8Array> {
      const reader = response.body?.getReader();
      try {
        for (;;) {
          const part = await this.#patiently(
            what,
            host,
            ender,
            reader?.read() ?? Promise.resolve({ done: true, value: undefined }),
          );
          if (part.done) return;
          yield part.value;
        }
      } finally {
        ender.abort();
      }
    };
    return {
      status: response.status,
      headers: response.headers,
      linked,
      body: read.call(this),
      cancel: () => ender.abort(),
    };
  }

  /** What `work` becomes; Interrupted where the network fails or nothing comes in time. */
  async #patiently<T>(what: string, host: string, ender: AbortController, work: Promise<T>): Promise<T> {
    const { timers, signal } = this.#options;
    const timer = timers.setTimeout(() => ender.abort(new Error('late')), IDLE_MS);
    try {
      return await work;
    } catch (error) {
      signal.throwIfAborted();
      const late = ender.signal.aborted ? `nothing came for ${IDLE_MS / 1000} s` : networkReason(error, host);
      throw new Interrupted(`${what}: ${late}`, null, error);
    } finally {
      timers.clearTimeout(timer);
    }
  }

  #pause(milliseconds: number): Promise<void> {
    const { timers, signal } = this.#options;
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        timers.clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = timers.setTimeout(() => {
        signal.removeEventListener('abort', aborted);
        resolve();
      }, milliseconds);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }
}

export const failed = (message: string, cause?: unknown): PotluckError =>
  new PotluckError('DOWNLOAD_FAILED', `${message}.`, { cause });

function redirected(from: URL, location: string, what: string): URL {
  if (!URL.canParse(location, from.href)) throw failed(`${what}: the server redirects to nowhere`);
  const to = new URL(location, from);
  if (to.protocol !== 'https:' && to.protocol !== 'http:')
    throw failed(`${what}: the server redirects to ${to.protocol}, which is not followed`);
  if (from.protocol === 'https:' && to.protocol === 'http:')
    throw failed(`${what}: the server redirects from https to http, which is not followed`);
  return to;
}

/** What a status other than success means for the user. The Hub tells more in X-Error-Code. */
function refusal(response: Response, what: string, endpoint: string, hasToken: boolean): Error {
  const { status, headers } = response;
  const code = headers.get('x-error-code') ?? '';
  const gated = code === 'GatedRepo' || (status === 403 && code === '');
  if (BUSY.has(status)) return new Interrupted(`${what}: the server answered ${status}`, retryAfter(headers));
  if (status === 401 || status === 403 || gated) {
    const [repo] = what.split(' ');
    const advice = gated
      ? `It may be gated: accept its licence at ${endpoint}/${repo} and set HF_TOKEN to a token of that account`
      : hasToken
        ? 'HF_TOKEN is not valid, or its account may not read it. If the name is right, check the token'
        : 'It does not exist, or it is private or gated: check the name, accept its licence where it has one, and set HF_TOKEN';
    return new PotluckError('ACCESS_DENIED', `${what}: the server refused it (${status}). ${advice}.`);
  }
  if (status === 404 || status === 410) {
    const missing =
      code === 'RevisionNotFound'
        ? 'there is no such revision'
        : code === 'EntryNotFound'
          ? 'there is no such file'
          : 'it is not there';
    return new PotluckError('REPO_NOT_FOUND', `${what}: ${missing}. Check the name at ${endpoint}.`);
  }
  return failed(`${what}: the server answered ${status}`);
}

/** Milliseconds of a Retry-After in seconds; dates and nonsense count as none. */
function retryAfter(headers: Headers): number | null {
  const text = headers.get('retry-after') ?? '';
  return /^\d{1,6}$/.test(text) ? Number(text) * 1000 : null;
}

/** fetch hides the reason in `cause`. */
function networkReason(error: unknown, host: string): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = (cause as { code?: unknown } | null)?.code;
  if (code === 'ECONNREFUSED') return `nothing answers at ${host}`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return `the server ${host} was not found (is this machine on the network?)`;
  return `the connection broke: ${cause instanceof Error ? cause.message : String(cause)}`;
}
