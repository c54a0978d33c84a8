import * as v from 'valibot';
import type { FileHash, RepoFile } from './choose-files.ts';
import { isSafePath, type RepoName } from './repo-name.ts';
import { failed, type RepoRequests } from './repo-requests.ts';

const MOST_FILES = 20_000;
const MOST_PAGES = 100;
const PAGE_BYTES = 8 * 2 ** 20;
/** Far over the largest model there is. */
const MOST_BYTES = 2 ** 44;

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MOST_BYTES));
const entrySchema = v.object({
  type: v.string(),
  path: v.string(),
  size,
  oid: v.optional(v.string()),
  lfs: v.optional(v.object({ oid: v.string(), size })),
});

/**
 * All files of a repository at a revision, with sizes and hashes. Names that no checkpoint of ours has (see isSafePath) are left
 * out. Rejects with REPO_NOT_FOUND, ACCESS_DENIED or DOWNLOAD_FAILED.
 */
export async function listRepo(requests: RepoRequests, { repo, revision }: RepoName): Promise<RepoFile[]> {
  // loads in 50 ms what no other command needs
  const { listFiles } = await import('@huggingface/hub');
  const what = `${repo} (revision ${revision})`;
  let pages = 0;
  const entries = listFiles({
    repo: { type: 'model', name: repo },
    revision: encodeURIComponent(revision),
    recursive: true,
    hubUrl: requests.endpoint,
    fetch: async input => {
      if (++pages > MOST_PAGES) throw failed(`${what}: its listing has over ${MOST_PAGES} pages`);
      const { bytes, headers } = await requests.read(String(input), what, PAGE_BYTES);
      return new Response(checkedPage(bytes, what), { headers: { link: headers.get('link') ?? '' } });
    },
  });
  const files: RepoFile[] = [];
  let seen = 0;
  for await (const entry of entries) {
    if (++seen > MOST_FILES) throw failed(`${what}: it has over ${MOST_FILES} files`);
    const parsed = v.safeParse(entrySchema, entry);
    if (!parsed.success) throw failed(`${what}: the server sent a listing that makes no sense`);
    const { type, path, lfs, oid } = parsed.output;
    if (type !== 'file' || !isSafePath(path)) continue;
    files.push({ path, bytes: lfs?.size ?? parsed.output.size, hash: hashOf(lfs?.oid, oid) });
  }
  return files;
}

/** The page where it is a JSON list, which listFiles takes for granted. */
function checkedPage(bytes: Uint8Array, what: string): string {
  const text = new TextDecoder().decode(bytes);
  try {
    if (Array.isArray(JSON.parse(text))) return text;
  } catch (error) {
    throw failed(`${what}: the server sent a listing that is not JSON`, error);
  }
  throw failed(`${what}: the server sent a listing that is no list`);
}

function hashOf(sha256: string | undefined, blob: string | undefined): FileHash | null {
  if (sha256 !== undefined) return /^[0-9a-f]{64}$/.test(sha256) ? { kind: 'sha256', hex: sha256 } : null;
  return blob !== undefined && /^[0-9a-f]{40}$/.test(blob) ? { kind: 'git-sha1', hex: blob } : null;
}
