import { PotluckError } from '../errors/errors.ts';

/** A repository as a user names it. */
export interface RepoName {
  /** 'owner/name', or the name alone for the oldest repositories. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
  /** One file of the repository instead of its whole checkpoint; a path with slashes. */
  readonly file: string | null;
}

const PART = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;
const REVISION = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$/;
const SITE = /^(?:https?:\/\/)?(?:huggingface\.co|hf\.co)\//;

/** Reads REPO[@revision] and REPO/FILE.gguf[@revision]. Throws BAD_OPTION. */
export function parseRepoName(text: string): RepoName {
  const [place = '', revision = 'main', ...more] = text.replace(SITE, '').split('@');
  const parts = place.split('/');
  const isFile = parts.length > 2;
  const file = isFile ? parts.slice(2).join('/') : null;
  const names = isFile ? parts.slice(0, 2) : parts;
  const valid =
    more.length === 0 &&
    names.every(name => PART.test(name) && !name.includes('..')) &&
    REVISION.test(revision) &&
    !revision.includes('..') &&
    (file === null || (isSafePath(file) && file.toLowerCase().endsWith('.gguf')));
  if (valid) return { repo: names.join('/'), revision, file };
  throw new PotluckError(
    'BAD_OPTION',
    `${JSON.stringify(text.slice(0, 200))} names no repository: write it as OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME/FILE.gguf`,
  );
}

/** True for a relative path of plain names, which stays below the folder that it is joined to on every system. */
export function isSafePath(path: string): boolean {
  return (
    path.length <= 255 &&
    path.split('/').every(part => /^[A-Za-z0-9_][A-Za-z0-9._+-]*$/.test(part) && !part.endsWith('.'))
  );
}
