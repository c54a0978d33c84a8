import * as v from 'valibot';
import { invalidCheckpoint } from './checkpoint-error.ts';
import { parseJsonFile } from './json-file.ts';
import { sentencePieceTokenizer } from './sentencepiece.ts';

/** Reads a file of a folder; undefined where there is none. */
export type ReadFile = (name: string, limit: number) => Promise<Uint8Array | undefined>;

const TOKENIZER_BYTES = 2 ** 28;
const CONFIG_BYTES = 2 ** 24;

const addedTokensSchema = v.record(v.string(), v.pipe(v.number(), v.integer(), v.minValue(0)));
const tokenizerConfigSchema = v.object({
  added_tokens_decoder: v.optional(
    v.record(v.string(), v.object({ content: v.string(), special: v.optional(v.boolean()) })),
  ),
});
const chatTemplateSchema = v.object({ chat_template: v.string() });

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/**
 * tokenizer.json of a folder that has none, made of its tokenizer.model and the tokens that were added to that; undefined where
 * there is neither. `folder` names it. Rejects with CHECKPOINT_INVALID, UNSUPPORTED_MODEL or DISK_READ.
 */
export async function tokenizerJsonOfModel(readFile: ReadFile, folder: string): Promise<object | undefined> {
  const model = await readFile('tokenizer.model', TOKENIZER_BYTES);
  if (model === undefined) return undefined;
  const json = sentencePieceTokenizer(model, `${folder}/tokenizer.model`) as { added_tokens: AddedToken[] };
  const added = new Map(json.added_tokens.map(token => [token.content, token]));
  for (const token of await furtherTokens(readFile, folder)) added.set(token.content, token);
  return { ...json, added_tokens: [...added.values()] };
}

/** Tokens of added_tokens.json and of tokenizer_config.json; the latter knows which are special. */
async function furtherTokens(readFile: ReadFile, folder: string): Promise<AddedToken[]> {
  const plain = await readParsed(readFile, folder, 'added_tokens.json', addedTokensSchema);
  const config = await readParsed(readFile, folder, 'tokenizer_config.json', tokenizerConfigSchema);
  return [
    ...Object.entries(plain ?? {}).map(([content, id]) => ({
      id,
      content,
      special: false,
      normalized: false,
    })),
    ...Object.entries(config?.added_tokens_decoder ?? {}).map(([id, { content, special }]) => ({
      id: Number(id),
      content,
      special: special === true,
      normalized: false,
    })),
  ];
}

/** The template of a folder's chat_template.json, or undefined. Rejects with CHECKPOINT_INVALID or DISK_READ. */
export async function templateOfJson(readFile: ReadFile, folder: string): Promise<string | undefined> {
  return (await readParsed(readFile, folder, 'chat_template.json', chatTemplateSchema))?.chat_template;
}

async function readParsed<T>(
  readFile: ReadFile,
  folder: string,
  name: string,
  schema: v.GenericSchema<unknown, T>,
): Promise<T | undefined> {
  const bytes = await readFile(name, CONFIG_BYTES);
  if (bytes === undefined) return undefined;
  const parsed = v.safeParse(schema, parseJsonFile(bytes, `${folder}/${name}`));
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw invalidCheckpoint(`${folder}/${name}`, `${v.getDotPath(issue) ?? 'the top level'}: ${issue.message}`);
}
