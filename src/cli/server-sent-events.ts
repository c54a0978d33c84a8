import { PotluckError } from '../errors/errors.ts';

/** Most characters of one event; an answer's delta is far below. */
const EVENT_LIMIT = 1 << 20;

/**
 * Splits a text stream of server-sent events into the `data` of each event (lines joined by newlines). Comments and
 * other fields are passed over. Lines end with LF, CR or CRLF, in chunks cut anywhere. Throws PROTOCOL where an
 * event is over the limit.
 */
export class EventParser {
  #line = '';
  #data: string[] = [];
  #size = 0;
  #afterReturn = false;

  /** Events that `text` completes. */
  push(text: string): string[] {
    const events: string[] = [];
    let rest = this.#afterReturn && text.startsWith('\n') ? text.slice(1) : text;
    if (text !== '') this.#afterReturn = text.endsWith('\r');
    for (;;) {
      const end = rest.search(/[\r\n]/);
      if (end < 0) break;
      this.#endLine(this.#line + rest.slice(0, end), events);
      this.#line = '';
      rest = rest.slice(end + (rest.startsWith('\r\n', end) ? 2 : 1));
    }
    this.#line += rest;
    if (this.#line.length + this.#size > EVENT_LIMIT) {
      throw new PotluckError('PROTOCOL', `The daemon sent an event of over ${EVENT_LIMIT} characters`);
    }
    return events;
  }

  #endLine(line: string, events: string[]): void {
    if (line === '') {
      if (this.#data.length > 0) events.push(this.#data.join('\n'));
      this.#data = [];
      this.#size = 0;
    } else if (line.startsWith('data:')) {
      const value = line.slice(line.startsWith('data: ') ? 6 : 5);
      this.#data.push(value);
      this.#size += value.length;
    }
  }
}

/** The `data` of every event of a response body. */
export async function* readEvents(body: AsyncIterable<Uint8Array>): AsyncIterable<string> {
  const parser = new EventParser();
  const decoder = new TextDecoder();
  for await (const chunk of body) yield* parser.push(decoder.decode(chunk, { stream: true }));
}
