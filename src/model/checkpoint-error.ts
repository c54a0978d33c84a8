import { PotluckError } from '../errors/errors.ts';

/** CHECKPOINT_INVALID about what config.json, or another source of it, says. */
export const invalidConfig = (file: string, reason: string): PotluckError =>
  new PotluckError(
    'CHECKPOINT_INVALID',
    `${file}: ${reason}. Correct the config, or take the one that was published with the model.`,
  );

/** CHECKPOINT_INVALID about `file`. */
export const invalidCheckpoint = (file: string, reason: string, cause?: unknown): PotluckError =>
  new PotluckError('CHECKPOINT_INVALID', `${file}: ${reason}. Download the checkpoint again.`, { cause });
