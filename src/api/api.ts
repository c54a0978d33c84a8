import { Hono } from 'hono';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { answerChat } from './chat-completions.ts';
import { answerCompletion } from './completions.ts';
import type { ApiHost } from './host.ts';
import { checkCaller } from './local-only.ts';
import { describeModel, findListed } from './models.ts';
import { errorResponse } from './openai-errors.ts';
import { readJsonObject } from './read-body.ts';

/**
 * The OpenAI-compatible endpoint, see docs/api.md. It opens nothing: give `fetch` of the result to a server. Every error is an
 * answer in OpenAI's shape with the status of src/errors/errors.ts.
 */
export function createApi(host: ApiHost): Hono {
  const api = new Hono();
  api.use(async (c, next) => {
    checkCaller(c.req.header('host'), c.req.header('origin'));
    await next();
  });

  api.get('/v1/models', async c =>
    c.json({ object: 'list', data: (await host.models()).map(describeModel) }),
  );
  api.get('/v1/models/:id{.+}', async c => c.json(describeModel(await findListed(host, c.req.param('id')))));
  api.post('/v1/chat/completions', async c =>
    answerChat(host, await readJsonObject(c.req.raw), c.req.raw.signal),
  );
  api.post('/v1/completions', async c =>
    answerCompletion(host, await readJsonObject(c.req.raw), c.req.raw.signal),
  );
  api.get('/healthz', c => {
    const status = host.state();
    return c.json({ status, version: host.version }, status === 'serving' ? 200 : 503);
  });

  api.notFound(c => {
    const place = `${c.req.method} ${c.req.path.slice(0, 200)}`;
    return errorResponse(new PotluckError('UNKNOWN_ROUTE', `There is nothing at ${place}. See docs/api.md.`));
  });
  api.onError(thrown => {
    const error = asPotluckError(thrown);
    if (error.status === 500) host.reportDefect(error);
    return errorResponse(error);
  });
  return api;
}
