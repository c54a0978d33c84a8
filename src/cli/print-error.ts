import { asPotluckError, ERRORS, type ErrorCode, PotluckError } from '../errors/errors.ts';

/** The one line that a user sees: `potluck: message (CODE)`; with the stack where `debug` is set. */
export function errorText(error: unknown, debug: boolean): string {
  const { message, code } = asPotluckError(error);
  const line = `potluck: ${message.replace(/\s*\n\s*/g, ' ')} (${code})`;
  if (!debug) return line;
  const stacks: string[] = [];
  for (let each = error; each instanceof Error; each = each.cause) stacks.push(each.stack ?? each.message);
  return [line, ...stacks].join('\n');
}

/** The error of such a line that a child process printed; null where it is none. */
export function readErrorText(line: string): PotluckError | null {
  const [, message, code] = /^potluck: (.*) \(([A-Z_]+)\)$/.exec(line) ?? [];
  return message === undefined || !(code! in ERRORS) ? null : new PotluckError(code as ErrorCode, message);
}

export function printError(error: unknown): void {
  process.stderr.write(`${errorText(error, process.env.POTLUCK_DEBUG === '1')}\n`);
}
