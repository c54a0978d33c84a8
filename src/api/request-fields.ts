import * as v from 'valibot';
import { FieldError } from './openai-errors.ts';

/** Tells for a field that is not supported which values change nothing; null is always one. */
export type NeutralFields = Readonly<Record<string, (value: unknown) => boolean>>;

export const anyValue = (): boolean => true;
export const only =
  (...values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);
export const emptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0;

/**
 * Fields of an object of a request by `schema`. A field that is in neither table is refused, and so is one of `neutral` with a
 * value that would change something. `path` is '' or the object's place, as in `messages[2]`. Throws FieldError.
 */
export function parseFields<Entries extends v.ObjectEntries>(
  value: Readonly<Record<string, unknown>>,
  schema: v.ObjectSchema<Entries, undefined>,
  neutral: NeutralFields,
  path = '',
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const place = (name: string) => (path === '' ? name : `${path}.${name}`);
  for (const [name, field] of Object.entries(value)) {
    if (Object.hasOwn(schema.entries, name) || field === null) continue;
    if (!Object.hasOwn(neutral, name)) {
      throw new FieldError(
        'UNSUPPORTED_FIELD',
        place(name),
        `There is no field ${place(name)} here. Leave it out.`,
      );
    }
    if (!neutral[name]!(field)) {
      throw new FieldError(
        'UNSUPPORTED_FIELD',
        place(name),
        `The field ${place(name)} is not supported with this value. Leave it out.`,
      );
    }
  }
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const field = place(pathOf(issue));
  throw new FieldError('BAD_REQUEST', field, `The field ${field} must be ${wanted(issue)}.`);
}

function pathOf(issue: v.BaseIssue<unknown>): string {
  const keys = (issue.path ?? []).map(part => part.key);
  return keys
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : `${i > 0 ? '.' : ''}${String(key)}`))
    .join('');
}

/** Schemas here carry a message that completes "The field x must be"; the library's own messages quote the value. */
function wanted(issue: v.BaseIssue<unknown>): string {
  if (issue.message.startsWith('Invalid key')) return 'given';
  return issue.message.startsWith('Invalid') ? (issue.expected ?? 'of another kind') : issue.message;
}

type AnyObject = Readonly<Record<string, unknown>>;

/** Any object, with all its fields: the library's record leaves some out, see recordOf. */
export const anyObject = v.custom<AnyObject>(
  value => typeof value === 'object' && value !== null && !Array.isArray(value),
  'an object',
);

/** An object of names and values. Names that the library leaves out without a word are refused. */
export const recordOf = <Value extends v.GenericSchema>(name: RegExp, value: Value, message: string) =>
  v.pipe(
    anyObject,
    v.check(
      object => !['__proto__', 'constructor', 'prototype'].some(each => Object.hasOwn(object, each)),
      message,
    ),
    v.record(v.pipe(v.string(), v.regex(name, message)), value, message),
  );

export const numberFrom = (least: number, most: number) => {
  const message = `a number from ${least} to ${most}`;
  return v.nullish(v.pipe(v.number(message), v.minValue(least, message), v.maxValue(most, message)));
};

export const wholeFrom = (least: number, most: number) => {
  const message = `a whole number from ${least} to ${most}`;
  return v.nullish(
    v.pipe(v.number(message), v.safeInteger(message), v.minValue(least, message), v.maxValue(most, message)),
  );
};

export const flag = () => v.nullish(v.boolean('true or false'));
