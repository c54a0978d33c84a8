import { get, type IncomingMessage } from 'node:http';
import { PotluckError } from '../errors/errors.ts';

/** A device that sends nothing for this long is given up. */
const IDLE_MILLISECONDS = 15_000;

/** GETs from another device's link port: the body of a 200, else DEVICE_LOST. */
export function httpGetter(host: string, port: number) {
  return (path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> =>
    new Promise((resolve, reject) => {
      const lost = (reason: string) =>
        reject(new PotluckError('DEVICE_LOST', `GET ${path} from ${host}:${port}: ${reason}`));
      const call = get({ host, port, path, signal, timeout: IDLE_MILLISECONDS, agent: false });
      call.on('response', (response: IncomingMessage) => {
        if (response.statusCode === 200) return resolve(response);
        response.destroy();
        lost(`status ${response.statusCode}`);
      });
      call.on('timeout', () => call.destroy(new Error(`nothing came for ${IDLE_MILLISECONDS} ms`)));
      call.on('error', error => lost(error.message));
    });
}
