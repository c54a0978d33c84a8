import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a request is answered with instead of what it asks for. */
export type Fault = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface ModelServer {
  readonly endpoint: string;
  /** 'METHOD path' with range and 'token' where it was sent, of both hosts, in order. */
  readonly seen: string[];
  /** Tried before the endpoint, or before the host of the large files, answers. */
  onApi: Fault | null;
  onFiles: Fault | null;
  /** Entries of a page of the listing. */
  pageSize: number;
  /** Further entries of the listing, without files. */
  readonly extra: object[];
  readonly ranges: { works: boolean };
  close(): Promise<void>;
}

export const COMMIT = 'c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00';
const LARGE = /\.(?:safetensors|gguf|bin)$/;

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const blobSha1 = (bytes: Uint8Array) =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

/**
 * A server with one repository 'home/tiny', which speaks as the Hub does: a listing in pages, small files from the endpoint, large ones by a
 * redirect to another host (another port). `files` may be changed while it runs.
 */
export async function modelServer(files: Map<string, Uint8Array>): Promise<ModelServer> {
  const seen: string[] = [];
  const note = (request: IncomingMessage) => {
    const { range, authorization } = request.headers;
    seen.push([request.method, request.url, range, authorization && 'token'].filter(Boolean).join(' '));
  };
  const storage = createServer((request, response) => {
    note(request);
    if (server.onFiles?.(request, response)) return;
    const bytes = files.get(decodeURIComponent(request.url!.slice('/storage/'.length)))!;
    sendBytes(request, response, bytes, { etag: '"of-the-storage"' }, server.ranges.works);
  });
  const filesUrl = await listen(storage);
  const api = createServer((request, response) => {
    note(request);
    if (server.onApi?.(request, response)) return;
    const url = new URL(request.url!, 'http://host');
    if (url.pathname.startsWith('/api/models/home/tiny/tree/')) return list(url, response);
    const match = /^\/home\/tiny\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    const path = decodeURIComponent(match?.[2] ?? '');
    const bytes = files.get(path);
    if (!url.pathname.startsWith('/home/tiny/') && !url.pathname.startsWith('/api/models/home/tiny/'))
      return refuse(response, 401, 'RepoNotFound');
    if (bytes === undefined) return refuse(response, 404, 'EntryNotFound');
    const headers = { 'x-repo-commit': COMMIT };
    if (!LARGE.test(path))
      return sendBytes(request, response, bytes, { ...headers, etag: `"${blobSha1(bytes)}"` }, true);
    response
      .writeHead(302, {
        ...headers,
        location: `${filesUrl}/storage/${encodeURIComponent(path)}`,
        'x-linked-etag': `"${sha256(bytes)}"`,
        'x-linked-size': bytes.length,
      })
      .end();
  });
  const list = (url: URL, response: ServerResponse) => {
    const revision = decodeURIComponent(url.pathname.split('/tree/')[1] ?? '');
    if (!['main', 'v1', 'refs/pr/1', COMMIT].includes(revision))
      return refuse(response, 404, 'RevisionNotFound');
    const at = Number(url.searchParams.get('cursor') ?? 0);
    const all = [...files].map(([path, bytes]) => entryOf(path, bytes)).concat(server.extra as never[]);
    const next = at + server.pageSize;
    const link = `<${server.endpoint}${url.pathname}?recursive=true&expand=false&cursor=${next}>; rel="next"`;
    response
      .writeHead(200, { 'content-type': 'application/json', ...(next < all.length ? { link } : {}) })
      .end(JSON.stringify(all.slice(at, next)));
  };
  const endpoint = await listen(api);
  const server: ModelServer = {
    endpoint,
    seen,
    onApi: null,
    onFiles: null,
    pageSize: 1000,
    extra: [],
    ranges: { works: true },
    close: async () => {
      for (const each of [api, storage]) {
        each.closeAllConnections();
        await new Promise<void>(resolve => each.close(() => resolve()));
      }
    },
  };
  return server;
}

function entryOf(path: string, bytes: Uint8Array) {
  const entry = { type: 'file', path, size: bytes.length, oid: blobSha1(bytes) };
  if (!LARGE.test(path)) return entry;
  return {
    ...entry,
    oid: 'b'.repeat(40),
    lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 },
    xetHash: 'd'.repeat(64),
  };
}

export function refuse(response: ServerResponse, status: number, code: string, headers = {}): void {
  response
    .writeHead(status, { 'content-type': 'application/json', 'x-error-code': code, ...headers })
    .end(JSON.stringify({ error: code }));
}

export function sendBytes(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Uint8Array,
  headers: object,
  ranges: boolean,
): void {
  const from = ranges ? /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] : undefined;
  if (from === undefined) {
    response.writeHead(200, { ...headers, 'content-length': bytes.length }).end(bytes);
  } else if (Number(from) >= bytes.length) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
  } else {
    const rest = bytes.subarray(Number(from));
    response
      .writeHead(206, {
        ...headers,
        'content-length': rest.length,
        'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
      })
      .end(rest);
  }
}

/** Sends the first `count` bytes of what was asked for, then breaks the connection. */
export const cutAfter =
  (files: ReadonlyMap<string, Uint8Array>, count: number): Fault =>
  (request, response) => {
    const bytes = files.get(decodeURIComponent(request.url!.slice('/storage/'.length)))!;
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const rest = bytes.subarray(from);
    response.writeHead(from === 0 ? 200 : 206, {
      'content-length': rest.length,
      'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
    });
    response.write(rest.subarray(0, count), () => setTimeout(() => response.destroy(), 20));
    return true;
  };

function listen(server: Server): Promise<string> {
  return new Promise(resolve =>
    server.listen(0, '127.0.0.1', () =>
      resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    ),
  );
}
