import { PotluckError } from '../errors/errors.ts';
import { printError } from './print-error.ts';

/** What a shell says of a program that writes to a reader which has left: 128 and the number of SIGPIPE. */
const BROKEN_PIPE = 141;

let needed = true;

/** For commands that serve others: they go on where what they print cannot be written. */
export function goOnWithoutOutput(): void {
  needed = false;
}

/**
 * To be called once, before anything is written. Where standard output cannot be written, the command ends by `end`, with an exit
 * code: without a word where its reader left, else with one line. Nothing ends where standard error cannot be written.
 */
export function watchOutput(
  output: NodeJS.EventEmitter,
  errors: NodeJS.EventEmitter,
  end: (code: number) => void,
): void {
  // There is no place left to say so.
  errors.on('error', () => undefined);
  let lost = false;
  output.on('error', (error: NodeJS.ErrnoException) => {
    if (needed && error.code === 'EPIPE') return end(BROKEN_PIPE);
    if (!lost) printError(outputLost(error));
    lost = true;
    if (needed) end(1);
  });
}

function outputLost(error: Error): PotluckError {
  const what = needed ? 'Standard output cannot be written' : 'Going on without a log, it cannot be written';
  return new PotluckError('DISK_WRITE', `${what}: ${error.message}`, { cause: error });
}
