/**
 * Vocabularies of SentencePiece, whose pieces have scores, in the form of tokenizer.json. They come from GGUF files and from
 * tokenizer.model.
 */

/** Kinds of pieces, by the numbers of SentencePiece's format, which GGUF files share. */
export const TokenKind = { Normal: 1, Unknown: 2, Control: 3, UserDefined: 4, Unused: 5, Byte: 6 } as const;

export interface VocabularyToken {
  readonly text: string;
  /** One of TokenKind. */
  readonly kind: number;
  /** The greater, the earlier it is merged (BPE) or the likelier it is (Unigram). */
  readonly score: number;
  /** Takes the white space behind it away. */
  readonly rstrip?: boolean;
}

export interface ScoredOptions {
  /** Whether texts are encoded as if a space stood before them. */
  readonly spaceBefore: boolean;
  /** What happens to text before it is cut, or null; see the `normalizer` of tokenizer.json. */
  readonly normalizers?: readonly object[];
}

const SPACE = '\u2581';

/** A tokenizer.json, as an object; ids are places in `tokens`. */
export function scoredTokenizer(
  type: 'BPE' | 'Unigram',
  tokens: readonly VocabularyToken[],
  { spaceBefore, normalizers = [] }: ScoredOptions,
): object {
  const pieces = tokens.map(token => pieceOf(token));
  const unknown = tokens.findIndex(({ kind }) => kind === TokenKind.Unknown);
  const byteFallback = tokens.some(({ kind }) => kind === TokenKind.Byte);
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const prepend = { type: 'Prepend', prepend: SPACE };
  const strip = { type: 'Strip', content: ' ', start: 1, stop: 0 };
  return {
    version: '1.0',
    added_tokens: tokens.flatMap((token, id) => addedToken(token, id)),
    normalizer: {
      type: 'Sequence',
      normalizers: [...normalizers, ...(spaceBefore ? [prepend] : []), replace],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(spaceBefore ? [strip] : []),
      ],
    },
    model:
      type === 'BPE'
        ? {
            type,
            byte_fallback: byteFallback,
            fuse_unk: true,
            unk_token: pieces[unknown] ?? null,
            vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
            merges: mergesOf(tokens, pieces),
          }
        : {
            type,
            byte_fallback: byteFallback,
            unk_id: Math.max(0, unknown),
            vocab: tokens.map(({ score, kind }, id) => [pieces[id]!, mayBeFound(kind) ? score : null]),
          },
  };
}

const mayBeFound = (kind: number): boolean => kind === TokenKind.Normal || kind === TokenKind.UserDefined;

/** Some files write the spaces of pieces of the user as spaces. */
const pieceOf = ({ text, kind }: VocabularyToken): string =>
  kind === TokenKind.UserDefined ? text.replaceAll(' ', SPACE) : text;

function addedToken({ text, kind, rstrip }: VocabularyToken, id: number): object[] {
  const special = kind === TokenKind.Control || kind === TokenKind.Unknown;
  if (!special && kind !== TokenKind.UserDefined) return [];
  // Looked for in the text as it came, where spaces are spaces.
  const content = kind === TokenKind.UserDefined ? text.replaceAll(SPACE, ' ') : text;
  return content === '' ? [] : [{ id, content, special, normalized: false, rstrip: rstrip === true }];
}

/**
 * Pairs of pieces that make a piece, the best score first; of the same score, the longer left part first, as Hugging Face's
 * converter orders them.
 */
function mergesOf(tokens: readonly VocabularyToken[], pieces: readonly string[]): [string, string][] {
  const known = new Set(pieces.filter((_, id) => mayBeFound(tokens[id]!.kind)));
  const merges: { left: string; right: string; score: number }[] = [];
  for (const [id, piece] of pieces.entries()) {
    if (!mayBeFound(tokens[id]!.kind)) continue;
    for (let cut = 1; cut < piece.length; cut++) {
      if (isLowSurrogate(piece.charCodeAt(cut))) continue;
      const left = piece.slice(0, cut);
      const right = piece.slice(cut);
      if (known.has(left) && known.has(right)) merges.push({ left, right, score: tokens[id]!.score });
    }
  }
  merges.sort(
    (a, b) => b.score - a.score || b.left.length - a.left.length || b.right.length - a.right.length,
  );
  return merges.map(({ left, right }) => [left, right]);
}

const isLowSurrogate = (code: number): boolean => code >= 0xdc00 && code <= 0xdfff;
