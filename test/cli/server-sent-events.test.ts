import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EventParser, readEvents } from '../../src/cli/server-sent-events.ts';

const all = (chunks: readonly string[]): string[] => {
  const parser = new EventParser();
  return chunks.flatMap(chunk => parser.push(chunk));
};

test('events end with an empty line; comments and other fields are passed over', () => {
  expect(all(['data: a\n\n: keep-alive\n\nevent: x\nid: 1\ndata:b\ndata:  c\n\ndata: unfinished\n'])).toEqual(
    ['a', 'b\n c'],
  );
});

test('an empty data line is an event, a block without data is none', () => {
  expect(all(['data:\n\n\n\nretry: 5\n\n'])).toEqual(['']);
});

test('lines may end with CR, LF or CRLF, and chunks may be cut anywhere', () => {
  const ends = fc.constantFrom('\n', '\r', '\r\n');
  const contents = fc.array(
    fc.string({ maxLength: 8 }).map(text => text.replace(/[\r\n]/g, '')),
    { maxLength: 5 },
  );
  fc.assert(
    fc.property(contents, ends, fc.array(fc.nat(60), { maxLength: 8 }), (events, end, cuts) => {
      // A lone CR before an empty line reads as one line end; servers do not mix them.
      const text = events.map(event => `data: ${event}${end}${end}`).join('');
      const at = [...new Set(cuts)].sort((a, b) => a - b);
      const chunks = [0, ...at].map((start, i) => text.slice(start, at[i] ?? text.length));
      expect(all(chunks)).toEqual(events);
    }),
  );
});

test('a CRLF cut in two is one line end', () => {
  expect(all(['data: a\r', '\ndata: b\r', '', '\n\r', '\n'])).toEqual(['a\nb']);
});

test('an event without end is refused', () => {
  const parser = new EventParser();
  expect(() => {
    for (let i = 0; i < 20; i++) parser.push(`data: ${'x'.repeat(100_000)}\n`);
  }).toThrow(/over 1048576/);
});

test('characters cut between chunks of bytes stay whole', async () => {
  const bytes = Buffer.from('data: é😀\n\n');
  async function* body(): AsyncIterable<Uint8Array> {
    for (const byte of bytes) yield Uint8Array.of(byte);
  }
  const events: string[] = [];
  for await (const event of readEvents(body())) events.push(event);
  expect(events).toEqual(['é😀']);
});
