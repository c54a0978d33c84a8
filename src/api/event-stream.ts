import type { ApiTimers } from './host.ts';

/** Milliseconds without an event after which a comment is sent, so that nobody between takes the connection for dead. */
const KEEP_ALIVE_MS = 10_000;
/** Milliseconds that the headers wait for the first event, so that an early error still has its status. */
const FIRST_EVENT_MS = 5_000;

const UTF8 = new TextEncoder();
const KEEP_ALIVE = UTF8.encode(': working\n\n');

export interface EventStreamOptions {
  /** Data of the server-sent events, in order. It turns its own errors into events once it gave one. */
  readonly events: AsyncGenerator<string, void>;
  /** Data of the event that tells a late error. */
  describe(error: unknown): string;
  /** Called when the reader is gone. */
  abort(): void;
  readonly timers: ApiTimers;
}

/**
 * A response of server-sent events, made as fast as the client reads and no faster. Rejects with what `events` throws before its
 * first event, if that comes soon; a later error becomes an event, and the stream ends without `[DONE]`.
 */
export async function eventStreamResponse(options: EventStreamOptions): Promise<Response> {
  const { events, describe, abort, timers } = options;
  let next: Promise<IteratorResult<string, void>> | null = events.next();
  await within(next, FIRST_EVENT_MS, timers);
  let gone = false;

  /** The next bytes, and whether they are the last. */
  const read = async (): Promise<{ bytes: Uint8Array; last: boolean }> => {
    next ??= events.next();
    try {
      const result = await within(next, KEEP_ALIVE_MS, timers);
      if (result === null) return { bytes: KEEP_ALIVE, last: false };
      next = null;
      return result.done
        ? { bytes: encode('[DONE]'), last: true }
        : { bytes: encode(result.value), last: false };
    } catch (error) {
      return { bytes: gone ? KEEP_ALIVE : encode(describe(error)), last: true };
    }
  };
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { bytes, last } = await read();
        if (gone) return;
        controller.enqueue(bytes);
        if (last) controller.close();
      },
      async cancel() {
        gone = true;
        abort();
        await events.return();
      },
    },
    { highWaterMark: 1 },
  );
  return new Response(body, {
    headers: { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' },
  });
}

function encode(data: string): Uint8Array {
  return UTF8.encode(`data: ${data}\n\n`);
}

/** What `promise` becomes, or null when that takes longer. */
async function within<T>(promise: Promise<T>, milliseconds: number, timers: ApiTimers): Promise<T | null> {
  let timer: unknown;
  const late = new Promise<null>(resolve => {
    timer = timers.setTimeout(() => resolve(null), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    timers.clearTimeout(timer);
  }
}
