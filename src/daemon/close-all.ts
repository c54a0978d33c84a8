import { asPotluckError, PotluckError } from '../errors/errors.ts';

/** Gives back one thing that was opened. */
export type Close = () => Promise<unknown> | unknown;

/** Closes what was opened, the last first and all of it, whatever fails; leaves `opened` empty. Rejects with the failure, or all of them. */
export async function closeAll(opened: Close[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of opened.splice(0).reverse()) {
    try {
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1)
    throw new AggregateError(failures, failures.map(failure => asPotluckError(failure).message).join(' '));
}

/** The same behind a failure: rejects with that, and says what then could not be closed either. */
export async function closeAfter(failure: unknown, opened: Close[]): Promise<never> {
  try {
    await closeAll(opened);
  } catch (error) {
    const { code, message } = asPotluckError(failure);
    const second = asPotluckError(error).message;
    throw new PotluckError(code, `${message} Then something could not be closed: ${second}`, {
      cause: failure,
    });
  }
  throw failure;
}
