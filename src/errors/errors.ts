/**
 * The one table of errors. `status` is the HTTP status an API client sees; `meaning` is the sentence in
 * docs/errors.md (a test fails when the two differ). Messages given to `PotluckError` say what happened, to what,
 * and what to do.
 */
export const ERRORS = {
  // input of a user
  BAD_REQUEST: {
    status: 400,
    meaning: 'The request is malformed or a field has a value that is not allowed.',
  },
  UNSUPPORTED_FIELD: { status: 400, meaning: 'The request has a field that Potluck does not support.' },
  CONTEXT_TOO_LONG: { status: 400, meaning: 'The prompt and the tokens asked for do not fit the context.' },
  UNKNOWN_MODEL: { status: 404, meaning: 'No model of that name is here.' },
  UNKNOWN_ROUTE: { status: 404, meaning: 'There is nothing at that address.' },
  BODY_TOO_LARGE: { status: 413, meaning: 'The request body is over the limit.' },
  FORBIDDEN: {
    status: 403,
    meaning: 'The request comes from a web page or names a host that is not allowed here.',
  },
  TEMPLATE_FAILED: { status: 400, meaning: 'The chat template of the model refused these messages.' },
  BAD_OPTION: { status: 400, meaning: 'A command line option has a value that is not allowed.' },
  // packs, checkpoints and tiles
  PACK_NOT_FOUND: { status: 404, meaning: 'There is no pack or checkpoint at that path.' },
  PACK_INVALID: { status: 500, meaning: 'A pack file is truncated, corrupt or not a pack.' },
  PACK_VERSION: { status: 500, meaning: 'The pack was written by another version of Potluck.' },
  CHECKPOINT_INVALID: { status: 500, meaning: 'A checkpoint file is truncated, corrupt or contradictory.' },
  UNSUPPORTED_MODEL: { status: 500, meaning: 'The architecture of the checkpoint is not supported.' },
  TILE_CORRUPT: { status: 500, meaning: 'The bytes of a tile do not have its hash.' },
  DISK_READ: { status: 500, meaning: 'A read from disk failed or came back short.' },
  DISK_WRITE: { status: 500, meaning: 'A write to disk failed.' },
  // downloads
  REPO_NOT_FOUND: { status: 404, meaning: 'There is no such repository, revision or file to pull.' },
  ACCESS_DENIED: {
    status: 403,
    meaning: 'The repository is private or gated, or HF_TOKEN is not valid for it.',
  },
  DOWNLOAD_FAILED: {
    status: 502,
    meaning: 'A download did not come to its end: the server failed, or the connection was cut.',
  },
  DOWNLOAD_CORRUPT: { status: 502, meaning: 'Downloaded bytes do not have their hash.' },
  DISK_FULL: { status: 507, meaning: 'There is too little free space on the disk.' },
  // memory and compute
  MEMORY_TOO_SMALL: { status: 500, meaning: 'The memory budget is under the least that would do.' },
  BUSY: { status: 503, meaning: 'Too many requests, or transfers to other devices, are waiting.' },
  KERNEL_UNKNOWN: {
    status: 500,
    meaning: '--kernel or POTLUCK_KERNEL names no kernel, or one that this processor cannot run.',
  },
  KERNEL_FAILED: { status: 500, meaning: 'A native call failed.' },
  // cluster
  NOT_READY: { status: 503, meaning: 'The cluster is still getting ready.' },
  DEVICE_LOST: { status: 503, meaning: 'A device of the plan left or stopped answering.' },
  PROTOCOL: { status: 500, meaning: 'A device sent something that the protocol does not allow.' },
  VERSION_MISMATCH: { status: 500, meaning: 'Another device runs another version of Potluck.' },
  IDENTITY_TAKEN: { status: 500, meaning: 'Two devices have one identity: a data folder was copied.' },
  DEADLINE: { status: 504, meaning: 'An answer did not come in time.' },
  PORT_IN_USE: { status: 500, meaning: 'The port is taken by another process.' },
  DATA_FOLDER_IN_USE: { status: 500, meaning: 'Another daemon uses that data folder.' },
  NOT_RUNNING: { status: 503, meaning: 'No daemon answers at that address.' },
  STOPPED: { status: 503, meaning: 'The daemon is stopping.' },
  INTERNAL: { status: 500, meaning: 'A defect of Potluck.' },
} as const satisfies Record<string, { status: number; meaning: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** An error that a user may see: one line, no stack. */
export class PotluckError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PotluckError';
    this.code = code;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }
}

/** The PotluckError in `error`, or one of code INTERNAL around whatever it is. */
export function asPotluckError(error: unknown): PotluckError {
  if (error instanceof PotluckError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new PotluckError('INTERNAL', message, { cause: error });
}
