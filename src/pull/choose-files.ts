import { PotluckError } from '../errors/errors.ts';

/** A file of a repository, as its listing tells it. */
export interface RepoFile {
  /** Relative, with slashes; see isSafePath. */
  readonly path: string;
  readonly bytes: number;
  /** What the bytes must have; null where the listing does not tell. */
  readonly hash: FileHash | null;
}

/** SHA-256 of the bytes, or SHA-1 of the git blob (a header with the size before the bytes); hex. */
export interface FileHash {
  readonly kind: 'sha256' | 'git-sha1';
  readonly hex: string;
}

export interface ChosenFiles {
  /** Read before the weights are fetched: they tell whether the model can be used, and which shards it has. */
  readonly small: readonly RepoFile[];
  readonly weights: readonly RepoFile[];
  readonly format: 'safetensors' | 'gguf';
}

export const INDEX_FILE = 'model.safetensors.index.json';

/** Small files that a pack is made of. */
const SMALL = new Set([
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'quantize_config.json',
  'quant_config.json',
  INDEX_FILE,
]);
/** A tokenizer of a large vocabulary has some 30 MB. */
const MOST_SMALL_BYTES = 256 * 2 ** 20;
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl|pickle)$/;

/**
 * The files that are needed to make a pack: configuration, tokenizer and one form of the weights. Everything else stays where it
 * is: other forms of the same weights, folders such as original/ and onnx/, and pickle files, which can run code.
 * `file`: one GGUF file instead. Throws REPO_NOT_FOUND, UNSUPPORTED_MODEL or CHECKPOINT_INVALID.
 */
export function chooseFiles(files: readonly RepoFile[], repo: string, file: string | null): ChosenFiles {
  if (file !== null) return oneGguf(files, repo, file);
  const top = files.filter(({ path }) => !path.includes('/'));
  const weights = safetensorsOf(top);
  if (weights.length > 0) {
    const small = top.filter(({ path }) => SMALL.has(path));
    if (!small.some(({ path }) => path === 'config.json'))
      throw new PotluckError(
        'UNSUPPORTED_MODEL',
        `${repo} has safetensors but no config.json: it is not a checkpoint of transformers. Choose another repository.`,
      );
    for (const each of small) checkSmall(each, repo);
    return { small, weights, format: 'safetensors' };
  }
  const ggufs = files.filter(({ path }) => path.endsWith('.gguf'));
  if (ggufs.length === 1) return oneGguf(files, repo, ggufs[0]!.path);
  if (ggufs.length > 1) {
    const names = ggufs.slice(0, 20).map(({ path }) => path);
    throw new PotluckError(
      'BAD_OPTION',
      `${repo} has ${ggufs.length} GGUF files; name one of them, as in ${repo}/${names[0]}: ${names.join(', ')}`,
    );
  }
  if (files.some(({ path }) => PICKLE.test(path)))
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `${repo} has its weights as pickle files only (.bin, .pt). Those can run code when they are read, so they are not used. ` +
        'Choose a repository with safetensors or GGUF files.',
    );
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${repo} has no weights: neither *.safetensors nor *.gguf. Choose another repository.`,
  );
}

/** Of the shards in the listing those that the index names. Throws CHECKPOINT_INVALID where one is missing. */
export function chooseShards(
  weights: readonly RepoFile[],
  indexText: string,
  repo: string,
): readonly RepoFile[] {
  const invalid = (what: string) =>
    new PotluckError('CHECKPOINT_INVALID', `${repo}: ${INDEX_FILE} ${what}. The repository is broken.`);
  let map: unknown;
  try {
    map = (JSON.parse(indexText) as { weight_map?: unknown } | null)?.weight_map;
  } catch (error) {
    throw new PotluckError('CHECKPOINT_INVALID', `${repo}: ${INDEX_FILE} is not JSON.`, { cause: error });
  }
  if (typeof map !== 'object' || map === null) throw invalid('has no weight_map');
  const named = new Set<unknown>(Object.values(map));
  const missing = [...named].find(name => !weights.some(({ path }) => path === name));
  if (missing !== undefined)
    throw invalid(`names ${JSON.stringify(missing).slice(0, 100)}, which is not there`);
  return weights.filter(({ path }) => named.has(path));
}

/** `model.safetensors` or its shards; where there are none of that name, any others but adapters and copies. */
function safetensorsOf(top: readonly RepoFile[]): readonly RepoFile[] {
  const all = top.filter(({ path }) => path.endsWith('.safetensors'));
  const usual = all.filter(({ path }) => /^model(?:-\d+-of-\d+)?\.safetensors$/.test(path));
  const shards = usual.filter(({ path }) => path !== 'model.safetensors');
  const hasIndex = top.some(({ path }) => path === INDEX_FILE);
  if (hasIndex && shards.length > 0) return shards;
  const whole = usual.find(({ path }) => path === 'model.safetensors');
  if (whole !== undefined) return [whole];
  if (usual.length > 0) return usual;
  return all.filter(({ path }) => !/^(?:consolidated|adapter)/.test(path));
}

function oneGguf(files: readonly RepoFile[], repo: string, file: string): ChosenFiles {
  const found = files.find(({ path }) => path === file);
  if (/-\d{5}-of-\d{5}\.gguf$/.test(file))
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `${file} is one part of a GGUF file that is split; those are not supported. Choose a file that is whole, or a repository with safetensors.`,
    );
  if (found !== undefined) return { small: [], weights: [found], format: 'gguf' };
  const others = files.filter(({ path }) => path.endsWith('.gguf')).map(({ path }) => path);
  const hint = others.length === 0 ? 'It has no GGUF file.' : `It has ${others.slice(0, 20).join(', ')}.`;
  throw new PotluckError('REPO_NOT_FOUND', `${repo} has no file ${file}. ${hint}`);
}

function checkSmall({ path, bytes }: RepoFile, repo: string): void {
  if (bytes <= MOST_SMALL_BYTES) return;
  throw new PotluckError(
    'CHECKPOINT_INVALID',
    `${repo}: ${path} has ${bytes} bytes, more than ${MOST_SMALL_BYTES}. Choose another repository.`,
  );
}
