import { get, type IncomingMessage } from 'node:http';
import { ERRORS, PotluckError } from '../errors/errors.ts';
import { describeError } from '../pack/file-system.ts';
import { receivedBytes } from './small-heap.ts';
import { TIMERS } from './timers.ts';
import { type TransferPatience, transferMilliseconds } from './transfer-deadline.ts';

/** A device that sends nothing for this long beyond a turn and a read is given up. */
const IDLE_MILLISECONDS = 1000;
/** How often a device is asked that sends to too many others: each time the request waits for its turn there. */
const MOST_ASKS = 20;

/**
 * GETs from another device's link port: the body of a 200, else DEVICE_LOST, or BUSY where no turn came in MOST_ASKS times. The body ends with DEVICE_LOST where the
 * connection breaks, or where it comes slower than `patience` allows.
 */
export function httpGetter(host: string, port: number, patience: TransferPatience) {
  const received = receivedBytes();
  const timeout = patience.turn + patience.read + IDLE_MILLISECONDS;
  const ask = (path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> =>
    new Promise((resolve, reject) => {
      const from = `GET ${path} from ${host}:${port}`;
      const lost = (reason: string) => new PotluckError('DEVICE_LOST', `${from}: ${reason}`);
      const call = get({ host, port, path, signal, timeout, agent: false });
      call.on('response', (response: IncomingMessage) => {
        const bytes = Number(response.headers['content-length'] ?? Number.NaN);
        if (response.statusCode === 200 && bytes >= 0) {
          limitTime(response, transferMilliseconds(bytes, patience), lost);
          return resolve(counted(response, received, lost));
        }
        response.destroy();
        if (response.statusCode === ERRORS.BUSY.status)
          return reject(new PotluckError('BUSY', `${from}: it sends to too many others.`));
        reject(
          lost(response.statusCode === 200 ? 'it does not say how long' : `status ${response.statusCode}`),
        );
      });
      call.on('timeout', () => call.destroy(new Error(`nothing came for ${timeout} ms`)));
      call.on('error', error => reject(lost(error.message)));
    });
  return async (path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> => {
    for (let asked = 1; ; asked++) {
      try {
        return await ask(path, signal);
      } catch (error) {
        if (asked === MOST_ASKS || !(error instanceof PotluckError && error.code === 'BUSY')) throw error;
      }
    }
  };
}

function limitTime(
  response: IncomingMessage,
  milliseconds: number,
  lost: (reason: string) => PotluckError,
): void {
  const timer = TIMERS.setTimeout(
    () => response.destroy(lost(`the rest did not come within ${milliseconds} ms`)),
    milliseconds,
  );
  response.once('close', () => TIMERS.clearTimeout(timer));
}

/** What a socket gives is collected every few megabytes, see small-heap.ts. A connection that breaks is told as `lost` says it. */
async function* counted(
  response: IncomingMessage,
  received: (bytes: number) => void,
  lost: (reason: string) => PotluckError,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const part of response as AsyncIterable<Uint8Array>) {
      yield part;
      received(part.length);
    }
  } catch (error) {
    throw error instanceof PotluckError ? error : lost(describeError(error));
  }
}
