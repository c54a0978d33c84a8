import { PotluckError } from '../errors/errors.ts';

/** Most bytes of a request body. */
export const BODY_LIMIT = 4 * 1024 * 1024;

/** The JSON object of a request. Throws BODY_TOO_LARGE or BAD_REQUEST. */
export async function readJsonObject(request: Request): Promise<Record<string, unknown>> {
  const text = decode(await readBytes(request));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message quotes the body; say it without.
    throw new PotluckError('BAD_REQUEST', 'The request body is not valid JSON. Send a JSON object.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new PotluckError('BAD_REQUEST', 'The request body must be a JSON object.');
  }
  return value as Record<string, unknown>;
}

async function readBytes(request: Request): Promise<Uint8Array> {
  if (Number(request.headers.get('content-length') ?? 0) > BODY_LIMIT) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  if (request.body !== null) {
    for await (const chunk of request.body as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (bytes > BODY_LIMIT) throw tooLarge();
      chunks.push(chunk);
    }
  }
  return Buffer.concat(chunks, bytes);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new PotluckError('BAD_REQUEST', 'The request body is not valid UTF-8. Send JSON in UTF-8.');
  }
}

function tooLarge(): PotluckError {
  return new PotluckError(
    'BODY_TOO_LARGE',
    `The request body is over ${BODY_LIMIT} bytes. Send a smaller one.`,
  );
}
