import * as v from 'valibot';

/**
 * Which tokens begin a text and end an answer, from the files of a checkpoint. config.json alone does not say: models
 * with a begin token in it may never see one, and the end of a chat turn is often only in the other files.
 */

const tokenText = v.nullish(v.union([v.string(), v.object({ content: v.string() })]));
const tokenId = v.pipe(v.number(), v.integer(), v.minValue(0));

const tokenizerConfigSchema = v.object({
  add_bos_token: v.nullish(v.boolean()),
  bos_token: v.fallback(tokenText, null),
  eos_token: v.fallback(tokenText, null),
});

const tokenizerSchema = v.object({
  added_tokens: v.fallback(v.array(v.object({ id: tokenId, content: v.string() })), []),
  post_processor: v.fallback(v.unknown(), null),
});

const generationSchema = v.object({
  bos_token_id: v.fallback(v.nullish(tokenId), null),
  eos_token_id: v.fallback(v.nullish(v.union([tokenId, v.array(tokenId)])), null),
});

export interface TokenFiles {
  /** tokenizer.json, tokenizer_config.json, generation_config.json: parsed, not checked; undefined where missing. */
  readonly tokenizer: unknown;
  readonly tokenizerConfig: unknown;
  readonly generationConfig: unknown;
}

export interface SpecialTokens {
  readonly stopTokens: readonly number[];
  readonly beginToken: number | null;
}

/** What config.json says, and what its family means where neither it nor another file says anything. */
export interface ConfigTokens extends SpecialTokens {
  readonly usualTokens: SpecialTokens;
}

/** Ids outside the vocabulary are left out. */
export function specialTokens(files: TokenFiles, config: ConfigTokens, vocabulary: number): SpecialTokens {
  const tokenizer = v.safeParse(tokenizerSchema, files.tokenizer);
  const tokenizerConfig = v.safeParse(tokenizerConfigSchema, files.tokenizerConfig);
  const generation = v.safeParse(generationSchema, files.generationConfig);
  const named = tokenizerConfig.success ? tokenizerConfig.output : null;
  const generated = generation.success ? generation.output : null;
  const idOf = (token: v.InferOutput<typeof tokenText>): number | undefined => {
    const text = typeof token === 'string' ? token : token?.content;
    return tokenizer.success ? tokenizer.output.added_tokens.find(t => t.content === text)?.id : undefined;
  };
  const stops = new Set(
    [config.stopTokens, generated?.eos_token_id ?? [], idOf(named?.eos_token) ?? []].flat(),
  );
  if (stops.size === 0) for (const id of config.usualTokens.stopTokens) stops.add(id);
  const first = tokenizer.success ? firstSpecialToken(tokenizer.output.post_processor) : undefined;
  const begins = tokenizer.success ? (named?.add_bos_token ?? first !== undefined) : true;
  // What the tokenizer puts before a text is what the model saw there, whatever the configs call it.
  const begin =
    idOf(named?.add_bos_token ? named.bos_token : undefined) ??
    idOf(first) ??
    config.beginToken ??
    generated?.bos_token_id ??
    config.usualTokens.beginToken;
  const inVocabulary = (id: number | null): id is number => id !== null && id < vocabulary;
  return {
    stopTokens: [...stops].filter(inVocabulary).sort((a, b) => a - b),
    beginToken: begins && inVocabulary(begin) ? begin : null,
  };
}

const templateSchema = v.object({
  type: v.literal('TemplateProcessing'),
  single: v.array(v.object({ SpecialToken: v.optional(v.object({ id: v.string() })) })),
});
const sequenceSchema = v.object({ type: v.literal('Sequence'), processors: v.array(v.unknown()) });

/** The special token that a post-processor of a tokenizer.json puts before a text, or undefined. */
function firstSpecialToken(processor: unknown): string | undefined {
  const template = v.safeParse(templateSchema, processor);
  if (template.success) return template.output.single[0]?.SpecialToken?.id;
  const sequence = v.safeParse(sequenceSchema, processor);
  const inner = sequence.success ? sequence.output.processors : [];
  return inner.flatMap(each => (v.is(templateSchema, each) ? (firstSpecialToken(each) ?? []) : []))[0];
}
