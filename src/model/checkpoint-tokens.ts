import * as v from 'valibot';

/**
 * Which tokens begin a text and end an answer, from the files of a checkpoint. config.json alone does not say: models
 * with a begin token in it may never see one, and the end of a chat turn is often only in the other files.
 */

const tokenText = v.nullish(v.union([v.string(), v.object({ content: v.string() })]));
const tokenId = v.pipe(v.number(), v.integer(), v.minValue(0));

const tokenizerConfigSchema = v.object({
  add_bos_token: v.nullish(v.boolean()),
  eos_token: v.fallback(tokenText, null),
});

const tokenizerSchema = v.object({
  added_tokens: v.fallback(v.array(v.object({ id: tokenId, content: v.string() })), []),
  post_processor: v.fallback(v.unknown(), null),
});

const generationSchema = v.object({
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

/** `config`: what config.json says. Ids outside the vocabulary are left out. */
export function specialTokens(files: TokenFiles, config: SpecialTokens, vocabulary: number): SpecialTokens {
  const tokenizer = v.safeParse(tokenizerSchema, files.tokenizer);
  const tokenizerConfig = v.safeParse(tokenizerConfigSchema, files.tokenizerConfig);
  const generation = v.safeParse(generationSchema, files.generationConfig);
  const stops = new Set(config.stopTokens);
  for (const id of [generation.success ? (generation.output.eos_token_id ?? []) : []].flat()) stops.add(id);
  const end = tokenizerConfig.success ? tokenizerConfig.output.eos_token : null;
  const endText = typeof end === 'string' ? end : end?.content;
  const added = tokenizer.success ? tokenizer.output.added_tokens : [];
  for (const token of added) if (token.content === endText) stops.add(token.id);
  const begins = tokenizer.success
    ? ((tokenizerConfig.success ? tokenizerConfig.output.add_bos_token : null) ??
      startsWithSpecialToken(tokenizer.output.post_processor))
    : true;
  const inVocabulary = (id: number | null): id is number => id !== null && id < vocabulary;
  return {
    stopTokens: [...stops].filter(inVocabulary).sort((a, b) => a - b),
    beginToken: begins && inVocabulary(config.beginToken) ? config.beginToken : null,
  };
}

const templateSchema = v.object({
  type: v.literal('TemplateProcessing'),
  single: v.array(v.record(v.string(), v.unknown())),
});
const sequenceSchema = v.object({ type: v.literal('Sequence'), processors: v.array(v.unknown()) });

/** Whether a post-processor of a tokenizer.json puts a special token before a text. */
function startsWithSpecialToken(processor: unknown): boolean {
  const template = v.safeParse(templateSchema, processor);
  if (template.success) return 'SpecialToken' in (template.output.single[0] ?? {});
  const sequence = v.safeParse(sequenceSchema, processor);
  return (
    sequence.success &&
    sequence.output.processors.some(inner => v.is(templateSchema, inner) && startsWithSpecialToken(inner))
  );
}
