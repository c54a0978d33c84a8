import type { Server } from 'node:http';
import { createAdaptorServer } from '@hono/node-server';
import { createApi } from '../api/api.ts';
import type { ApiHost } from '../api/host.ts';
import { type InternalHost, internalRoutes } from './internal-routes.ts';
import { listen } from './listen.ts';

/** More than the engine's queue holds; others are closed. */
const MOST_CONNECTIONS = 256;

export interface ApiServer {
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/** Serves the OpenAI-compatible endpoint and Potluck's own routes. Rejects with PORT_IN_USE. */
export async function openApiServer(
  host: string,
  port: number,
  api: ApiHost,
  internal: InternalHost,
): Promise<ApiServer> {
  const app = createApi(api).route('/', internalRoutes(internal));
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  server.maxConnections = MOST_CONNECTIONS;
  server.headersTimeout = 10_000;
  const actual = await listen(server, port, host, '--port');
  return {
    port: actual,
    url: `http://${host.includes(':') ? `[${host}]` : host === '0.0.0.0' ? '127.0.0.1' : host}:${actual}`,
    close: async () => {
      const closed = new Promise<void>(resolve => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}
