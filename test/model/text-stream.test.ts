import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopStrings } from '../../src/model/stop-strings.ts';
import { TextStream } from '../../src/model/text-stream.ts';
import { byteFallbackTokenizer, byteLevelTokenizer } from './tiny-tokenizers.ts';

const tokenizers = [
  ['byte level', byteLevelTokenizer(), (text: string) => text],
  // SentencePiece writes a space as U+2581, so that character itself comes back as a space.
  ['byte fallback', byteFallbackTokenizer(), (text: string) => text.replaceAll('\u2581', ' ')],
] as const;

describe.each(tokenizers)('%s', (_, tokenizer, expected) => {
  const streamed = (ids: readonly number[], stop: string[] = []) => {
    const stream = new TextStream(tokenizer, { stop, startsText: true });
    const pieces = ids.map(id => stream.push(id));
    return { pieces, text: pieces.join('') + stream.end(), stopped: stream.stopped };
  };

  test('the pieces of any unicode text are the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), text => {
        const ids = tokenizer.encode(text, { special: false });
        const result = streamed(ids);
        expect(result.text).toBe(expected(text));
        for (const piece of result.pieces) expect(piece).not.toMatch(/[\uD800-\uDFFF]/u);
      }),
    );
  });

  test('the pieces of any ids, valid UTF-8 or not, are their whole decoding', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: tokenizer.vocabulary - 1 }), { maxLength: 40 }), ids => {
        expect(streamed(ids).text).toBe(tokenizer.decode(ids));
      }),
    );
  });

  test('a character comes only when it is whole', () => {
    const bytes = [...tokenizer.encode('😀', { special: false })];
    const { pieces } = streamed(bytes);
    expect(pieces.filter(Boolean)).toEqual(['😀']);
    expect(pieces.at(-1)).toBe('😀');
    expect(streamed(bytes.slice(0, -1)).text).toBe('\uFFFD');
  });

  test('a stop string cuts the text wherever the tokens are cut', () => {
    const ids = tokenizer.encode('hello the END of it', { special: false });
    expect(streamed(ids, ['END'])).toMatchObject({ text: 'hello the ', stopped: true });
    expect(streamed(ids, ['the E', 'END', 'of'])).toMatchObject({ text: 'hello ', stopped: true });
    expect(streamed(ids, ['ENDS', 'nothing'])).toMatchObject({ text: 'hello the END of it', stopped: false });
  });
});

test('an answer loses the leading space of SentencePiece, a continuation keeps it', () => {
  const tokenizer = byteFallbackTokenizer();
  const ids = tokenizer.encode('the', { special: false });
  const text = (startsText: boolean) => {
    const stream = new TextStream(tokenizer, { stop: [], startsText });
    return ids.map(id => stream.push(id)).join('') + stream.end();
  };
  expect(text(true)).toBe('the');
  expect(text(false)).toBe(' the');
});

/** The definition, on the whole text: the match that ends first, the longest of those. */
function cutWhole(text: string, stops: readonly string[]): string {
  for (let end = 0; end <= text.length; end++) {
    const matches = stops.filter(stop => text.slice(0, end).endsWith(stop));
    if (matches.length > 0) return text.slice(0, end - Math.max(...matches.map(stop => stop.length)));
  }
  return text;
}

test('stop strings do not depend on how the text is cut, and nothing is held back without need', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(letters, { maxLength: 12 }),
      fc.array(letters, { maxLength: 4 }),
      (pieces, stops) => {
        const search = new StopStrings(stops);
        let out = '';
        let seen = '';
        for (const piece of pieces) {
          if (search.found) break;
          out += search.push(piece);
          seen += piece;
          const held = seen.length - out.length;
          const begins = stops.some(stop => stop.length > held && stop.startsWith(seen.slice(out.length)));
          expect(search.found || held === 0 || begins).toBe(true);
        }
        out += search.end();
        const whole = pieces.join('');
        expect(out).toBe(cutWhole(whole, stops));
        expect(search.found).toBe(stops.some(stop => whole.includes(stop)));
      },
    ),
    { numRuns: 500 },
  );
});
