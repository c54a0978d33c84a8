import { asPotluckError, ERRORS, type ErrorCode, PotluckError } from '../errors/errors.ts';

/** An error about one field of a request. */
export class FieldError extends PotluckError {
  /** Path of the field, as in `messages[0].role`. */
  readonly param: string;

  constructor(code: ErrorCode, param: string, message: string) {
    super(code, message);
    this.param = param;
  }
}

/** The body of an error, as OpenAI's clients read it. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** Codes for which OpenAI has a name of its own; the others are ours in lower case. */
const OPENAI_CODES: Partial<Record<ErrorCode, string>> = {
  CONTEXT_TOO_LONG: 'context_length_exceeded',
  UNKNOWN_MODEL: 'model_not_found',
  UNSUPPORTED_FIELD: 'unsupported_parameter',
};

/** The code in such a body as it is in the table; null where it is none of ours. */
export function tableCode(code: string): ErrorCode | null {
  const [own] = Object.entries(OPENAI_CODES).find(([, openai]) => openai === code) ?? [code.toUpperCase()];
  return own in ERRORS ? (own as ErrorCode) : null;
}

export function errorBody(error: PotluckError): ErrorBody {
  return {
    error: {
      message: error.message,
      type: error.status < 500 ? 'invalid_request_error' : 'server_error',
      param: error instanceof FieldError ? error.param : null,
      code: OPENAI_CODES[error.code] ?? error.code.toLowerCase(),
    },
  };
}

/** A response with the error's status and, where trying again helps, Retry-After in seconds. */
export function errorResponse(thrown: unknown): Response {
  const error = asPotluckError(thrown);
  const headers = new Headers({ 'content-type': 'application/json' });
  if (error.status === 503) headers.set('retry-after', '1');
  return new Response(JSON.stringify(errorBody(error)), { status: error.status, headers });
}
