import { PotluckError } from '../../errors/errors.ts';
import { onStopSignal } from '../stop-signals.ts';
import { type Emulation, type EmulationOptions, startEmulation } from './emulation.ts';

/** Aborts at SIGINT and SIGTERM; for commands that start emulations one after another. */
export function stopController(): AbortController {
  const stopped = new AbortController();
  onStopSignal(() => stopped.abort());
  return stopped;
}

/** Runs `work` on emulated devices, and ends them whatever happens; also in the middle, when `signal` aborts. */
export async function withEmulation<T>(
  options: EmulationOptions,
  signal: AbortSignal,
  work: (emulation: Emulation) => Promise<T>,
): Promise<T> {
  const emulation = await startEmulation({ ...options, signal });
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(new PotluckError('STOPPED', 'Stopped'));
  });
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  try {
    return await Promise.race([work(emulation), aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
    await emulation.stop();
  }
}
