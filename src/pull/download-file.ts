import { createHash, type Hash } from 'node:crypto';
import { PotluckError } from '../errors/errors.ts';
import {
  errorNumber,
  type FileSystem,
  type OpenFile,
  readFully,
  writeFully,
  writing,
} from '../pack/file-system.ts';
import type { FileHash, RepoFile } from './choose-files.ts';
import { type Answer, failed, Interrupted, type RepoRequests } from './repo-requests.ts';

const CHUNK_BYTES = 2 ** 20;

export interface DownloadOptions {
  readonly requests: RepoRequests;
  readonly fileSystem: FileSystem;
  /** Where the bytes are; redirects are followed. */
  readonly url: string;
  /** For messages: 'owner/name file'. */
  readonly what: string;
  readonly file: RepoFile;
  /** Where they go. While they come they are in a file beside it, with `.part` behind its name. */
  readonly target: string;
  /** Bytes that are here, each time there are more (or, after a failure, fewer); `kept`: they were here before. */
  readonly onBytes: (bytes: number, kept: boolean) => void;
  readonly signal: AbortSignal;
}

export interface Downloaded {
  /** False where neither the listing nor the server told a hash to check by. */
  readonly checked: boolean;
  /** The commit that the file came from, where the server told it. */
  readonly commit: string | null;
}

/**
 * Fetches a file, or the rest of it where an earlier run left a part. The file has its name only once its size and hash are right and
 * it is on disk. Rejects with DOWNLOAD_CORRUPT, DISK_WRITE, DISK_READ, or as RepoRequests.
 */
export async function downloadFile(options: DownloadOptions): Promise<Downloaded> {
  const { fileSystem, target, file, onBytes } = options;
  if (await isWhole(options)) {
    onBytes(file.bytes, true);
    return { checked: file.hash !== null, commit: null };
  }
  await writing(target, () => fileSystem.rm(target, { recursive: false, force: true }));
  for (let tries = 1; ; tries++) {
    const part = await PartialFile.open(options);
    const { right, ...result } = await part.fill().finally(() => part.close());
    if (right) {
      await writing(target, () => fileSystem.rename(part.path, target));
      return result;
    }
    await writing(part.path, () => fileSystem.rm(part.path, { recursive: false, force: true }));
    onBytes(0, false);
    if (tries === 2)
      throw new PotluckError(
        'DOWNLOAD_CORRUPT',
        `${options.what}: what came does not have its hash, twice. It was removed. The repository changed just now, ` +
          'or something on the way changes bytes: pull again.',
      );
  }
}

/** The first bytes of a file that is on its way, on disk, and their hash. */
class PartialFile {
  readonly path: string;
  readonly #options: DownloadOptions;
  readonly #out: OpenFile;
  #hash: Hash;
  #bytes = 0;
  /** The most bytes that were here; a server that ignores ranges begins anew each time, which is no progress. */
  #most = 0;
  #told: FileHash | null;
  #commit: string | null = null;

  private constructor(options: DownloadOptions, out: OpenFile) {
    this.#options = options;
    this.#out = out;
    this.path = partPath(options);
    this.#told = options.file.hash;
    this.#hash = startHash(this.#told, options.file.bytes);
  }

  /** Opens what is there already, and hashes it. */
  static async open(options: DownloadOptions): Promise<PartialFile> {
    const { fileSystem, file } = options;
    const path = partPath(options);
    const before = (await sizeOf(fileSystem, path)) ?? 0;
    const keep = before > 0 && before <= file.bytes && file.hash !== null;
    const out = await writing(path, () => fileSystem.open(path, keep ? 'r+' : 'w+'));
    const part = new PartialFile(options, out);
    if (!keep) return part;
    await readThrough(out, path, before, bytes => part.#hash.update(bytes), options.signal);
    part.#bytes = before;
    part.#most = before;
    options.onBytes(before, true);
    return part;
  }

  /** Fetches what is missing; `right` where size and hash are what they should be. */
  async fill(): Promise<Downloaded & { readonly right: boolean }> {
    const { requests, file } = this.#options;
    let before = this.#most;
    await requests.retrying(
      async () => {
        before = this.#most;
        if (this.#bytes < file.bytes || file.bytes === 0) await this.#fetch();
      },
      () => this.#most > before,
    );
    await writing(this.path, () => this.#out.sync());
    const right = this.#told === null || (await this.#digest()) === this.#told.hex;
    return { right, checked: this.#told !== null, commit: this.#commit };
  }

  close(): Promise<void> {
    return this.#out.close();
  }

  async #fetch(): Promise<void> {
    const { requests, url, what, file } = this.#options;
    const from = this.#bytes;
    const answer = await requests.get(url, what, from === 0 ? {} : { range: `bytes=${from}-` });
    try {
      this.#commit ??= answer.linked.commit;
      this.#told ??= hashOfEtag(answer.linked.etag);
      await this.#begin(answer, from);
      await this.#take(answer);
    } finally {
      answer.cancel();
    }
    if (this.#bytes < file.bytes)
      throw new Interrupted(`${what}: the connection was cut at byte ${this.#bytes} of ${file.bytes}`);
  }

  /** Where the bytes of the answer begin: where the request said, or at 0 with a server that ignores ranges. */
  async #begin(answer: Answer, from: number): Promise<void> {
    if (answer.status === 206) {
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(answer.headers.get('content-range') ?? '');
      const total = range?.[2];
      if (range === null || Number(range[1]) !== from || !(total === '*' || Number(total) === this.#size))
        throw failed(`${this.#options.what}: the server sent another part than was asked for`);
    } else if (from > 0) {
      // 200: all of it comes. 416: there is less than the listing says.
      await this.#restart();
      if (answer.status === 416)
        throw new Interrupted(`${this.#options.what}: the server does not go on from byte ${from}`);
    }
    const length = Number(answer.headers.get('content-length') ?? this.#size - this.#bytes);
    if (length > this.#size - this.#bytes) throw this.#tooLong();
  }

  /** Every part goes to the file at once, so that a process that is killed loses next to nothing. */
  async #take(answer: Answer): Promise<void> {
    for await (const part of answer.body) {
      if (this.#bytes + part.length > this.#size) throw this.#tooLong();
      await writeFully(this.#out, this.path, part, this.#bytes);
      this.#hash.update(part);
      this.#bytes += part.length;
      this.#most = Math.max(this.#most, this.#bytes);
      this.#options.onBytes(this.#bytes, false);
    }
  }

  async #restart(): Promise<void> {
    await writing(this.path, () => this.#out.truncate(0));
    this.#hash = startHash(this.#told, this.#size);
    this.#bytes = 0;
    this.#options.onBytes(0, false);
  }

  /** The running hash; where its kind became known too late for that, the file is read again. */
  async #digest(): Promise<string> {
    if (this.#options.file.hash !== null) return this.#hash.digest('hex');
    const hash = startHash(this.#told, this.#size);
    await readThrough(this.#out, this.path, this.#size, bytes => hash.update(bytes), this.#options.signal);
    return hash.digest('hex');
  }

  get #size(): number {
    return this.#options.file.bytes;
  }

  #tooLong(): PotluckError {
    return failed(
      `${this.#options.what}: the server sends more than the ${this.#size} bytes of the listing. Pull again`,
    );
  }
}

const partPath = ({ target }: DownloadOptions): string => `${target}.part`;

/** A git blob is hashed with its kind and size before it. */
function startHash(hash: FileHash | null, bytes: number): Hash {
  if (hash?.kind !== 'git-sha1') return createHash('sha256');
  return createHash('sha1').update(`blob ${bytes}\0`);
}

/** The ETag of a file is its hash. */
function hashOfEtag(etag: string | null): FileHash | null {
  const hex = /^(?:W\/)?"?([0-9a-f]+)"?$/.exec(etag ?? '')?.[1];
  if (hex?.length === 64) return { kind: 'sha256', hex };
  return hex?.length === 40 ? { kind: 'git-sha1', hex } : null;
}

/** The file of an earlier run, if it still is what the listing says. */
async function isWhole({ fileSystem, target, file, signal }: DownloadOptions): Promise<boolean> {
  if (file.hash === null || (await sizeOf(fileSystem, target)) !== file.bytes) return false;
  const hash = startHash(file.hash, file.bytes);
  const opened = await fileSystem.open(target, 'r');
  try {
    await readThrough(opened, target, file.bytes, bytes => hash.update(bytes), signal);
  } finally {
    await opened.close();
  }
  return hash.digest('hex') === file.hash.hex;
}

async function readThrough(
  file: OpenFile,
  path: string,
  bytes: number,
  take: (bytes: Uint8Array) => void,
  signal: AbortSignal,
): Promise<void> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    signal.throwIfAborted();
    const piece = chunk.subarray(0, Math.min(CHUNK_BYTES, bytes - at));
    await readFully(file, path, piece, at);
    take(piece);
  }
}

/** Null where there is no such file. Rejects with DISK_READ. */
export async function sizeOf(fileSystem: FileSystem, path: string): Promise<number | null> {
  try {
    return (await fileSystem.stat(path)).size;
  } catch (error) {
    if (errorNumber(error) === 'ENOENT') return null;
    throw new PotluckError('DISK_READ', `${path} cannot be looked at.`, { cause: error });
  }
}
