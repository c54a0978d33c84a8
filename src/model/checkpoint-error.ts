import { PotluckError } from '../errors/errors.ts';

/** CHECKPOINT_INVALID about `file`. */
export const invalidCheckpoint = (file: string, reason: string, cause?: unknown): PotluckError =>
  new PotluckError('CHECKPOINT_INVALID', `${file}: ${reason}. Download the checkpoint again.`, { cause });
