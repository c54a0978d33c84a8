import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { httpGetter } from './http-get.ts';
import type { HttpGet } from './model-store.ts';
import { PATIENCE } from './transfer-deadline.ts';

/** One tile or row comes from another device within this time. */
export const RECOVER_MILLISECONDS = 20_000;

/** Where another device is. */
export interface OtherDevice {
  readonly name: string;
  readonly host: string;
  readonly linkPort: number;
}

/** Asks one device, and rejects where it gives nothing, or something wrong. */
export type AskOne<T> = (get: HttpGet, signal: AbortSignal) => Promise<T>;

/**
 * Asks the other devices, one after another, until one gives what is asked for; and which one that was. Rejects with what the last one
 * answered, with DEVICE_LOST where there is none, or at once with DISK_WRITE or the reason of `signal`.
 */
export async function askOthers<T>(
  others: readonly OtherDevice[],
  signal: AbortSignal,
  ask: AskOne<T>,
): Promise<{ readonly got: T; readonly from: string }> {
  let last: unknown = new PotluckError('DEVICE_LOST', 'No other device is here.');
  for (const { host, linkPort, name } of others) {
    const late = AbortSignal.any([signal, AbortSignal.timeout(RECOVER_MILLISECONDS)]);
    try {
      return { got: await ask(httpGetter(host, linkPort, PATIENCE), late), from: name };
    } catch (error) {
      signal.throwIfAborted();
      last = error;
      if (asPotluckError(error).code === 'DISK_WRITE') break;
    }
  }
  throw last;
}
