import { createHash } from 'node:crypto';
import { type Context, Hono } from 'hono';
import * as v from 'valibot';
import { readJsonObject } from '../api/read-body.ts';
import type { Engine } from '../engine/engine.ts';
import { GREEDY } from '../engine/generate.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { DaemonStatus } from './status.ts';

/** Routes of the API port that Potluck's own commands use: status, and running bare token ids on the hub. */

export type HubEngine = Pick<Engine, 'evaluate' | 'generate'>;

export interface InternalHost {
  status(): Promise<DaemonStatus>;
  /** The engine where this device is the hub of an active plan. Throws NOT_READY, saying whom to ask instead. */
  engine(): HubEngine;
  vocabulary(): number;
}

const MOST_LOGITS = 64 << 20;
/** No context is longer. */
const MOST_TOKENS = 1 << 20;
const MOST_STOP_TOKENS = 1024;
const tokenId = v.pipe(v.number(), v.integer(), v.minValue(0));
const tokens = v.pipe(v.array(tokenId), v.minLength(1), v.maxLength(MOST_TOKENS));

const evaluateSchema = v.strictObject({
  tokens,
  at: v.pipe(
    v.array(v.pipe(v.number(), v.integer(), v.minValue(0))),
    v.minLength(1),
    v.maxLength(MOST_TOKENS),
  ),
  want: v.picklist(['logits', 'hash', 'loss']),
});

const generateSchema = v.strictObject({
  tokens,
  maxTokens: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MOST_TOKENS)),
  stopTokens: v.optional(v.pipe(v.array(tokenId), v.maxLength(MOST_STOP_TOKENS)), []),
});

export function internalRoutes(host: InternalHost): Hono {
  const app = new Hono();
  app.onError((error, c) => {
    const known = asPotluckError(error);
    return c.json({ error: { code: known.code, message: known.message } }, known.status as 500);
  });
  app.get('/potluck/status', async c => c.json(await host.status()));
  app.post('/potluck/evaluate', async c => evaluate(c, host, await readBody(c, evaluateSchema)));
  app.post('/potluck/generate', async c =>
    c.json(await generate(host.engine(), await readBody(c, generateSchema), c.req.raw.signal)),
  );
  return app;
}

async function readBody<S extends v.GenericSchema>(c: Context, schema: S): Promise<v.InferOutput<S>> {
  const result = v.safeParse(schema, await readJsonObject(c.req.raw));
  if (result.success) return result.output as v.InferOutput<S>;
  const issue = result.issues[0];
  throw new PotluckError('BAD_REQUEST', `${v.getDotPath(issue) ?? 'body'}: ${issue.message}`);
}

/** Logits at positions of a text: the rows themselves, a hash of them, or the loss of the tokens that follow. */
async function evaluate(
  c: Context,
  host: InternalHost,
  body: v.InferOutput<typeof evaluateSchema>,
): Promise<Response> {
  const engine = host.engine();
  const { tokens, at, want } = body;
  if (want === 'logits') {
    const bytes = at.length * host.vocabulary() * 4;
    if (bytes > MOST_LOGITS)
      throw new PotluckError(
        'BAD_REQUEST',
        `at: ${at.length} rows are ${bytes} bytes; ask for fewer at a time.`,
      );
    const rows: Uint8Array[] = [];
    await engine.evaluate(
      tokens,
      at,
      (_, row) => rows.push(Uint8Array.from(rowBytes(row))),
      c.req.raw.signal,
    );
    return c.body(new Uint8Array(Buffer.concat(rows)), 200, { 'content-type': 'application/octet-stream' });
  }
  if (want === 'hash') {
    const hash = createHash('sha256');
    await engine.evaluate(tokens, at, (_, row) => hash.update(rowBytes(row)), c.req.raw.signal);
    return c.json({ sha256: hash.digest('hex') });
  }
  if (at.some(position => position + 1 >= tokens.length))
    throw new PotluckError('BAD_REQUEST', 'at: the last token has no token after it to compute a loss of.');
  let loss = 0;
  const add = (position: number, row: Float32Array) => {
    loss += negativeLogProbability(row, tokens[position + 1]!);
  };
  await engine.evaluate(tokens, at, add, c.req.raw.signal);
  return c.json({ loss, count: at.length });
}

const rowBytes = (row: Float32Array): Uint8Array =>
  new Uint8Array(row.buffer, row.byteOffset, row.byteLength);

/** -ln softmax(row)[id]; row [vocabulary]. */
function negativeLogProbability(row: Float32Array, id: number): number {
  let most = -Infinity;
  for (const x of row) if (x > most) most = x;
  let sum = 0;
  for (const x of row) sum += Math.exp(x - most);
  return most + Math.log(sum) - row[id]!;
}

/** The greedy continuation of token ids; ends where `signal` aborts. */
async function generate(engine: HubEngine, body: v.InferOutput<typeof generateSchema>, signal: AbortSignal) {
  const request = {
    prompt: body.tokens,
    generated: [],
    maxTokens: body.maxTokens,
    stopTokens: body.stopTokens,
    sampling: GREEDY,
  };
  const ids: number[] = [];
  let reason = 'stopped';
  for await (const event of engine.generate(request, signal)) {
    if (event.type === 'token') ids.push(event.id);
    else reason = event.reason;
  }
  return { tokens: ids, reason };
}
