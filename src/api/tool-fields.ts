import * as v from 'valibot';
import type { JsonObject, ToolCall } from '../model/chat-template-render.ts';
import { FieldError } from './openai-errors.ts';
import { anyObject, only, parseFields } from './request-fields.ts';

const MAX_TOOLS = 128;
/** Most levels of objects and lists in a schema or in the arguments of a call. */
const MAX_DEPTH = 64;

const functionName = v.pipe(
  v.string('a name'),
  v.regex(/^[A-Za-z0-9_.-]{1,64}$/, '1 to 64 letters, digits, dots, dashes or underscores'),
);

export const toolEntries = {
  tools: v.nullish(
    v.pipe(
      v.array(anyObject, 'a list of tools'),
      v.maxLength(MAX_TOOLS, `a list of at most ${MAX_TOOLS} tools`),
    ),
  ),
  tool_choice: v.nullish(v.unknown()),
  parallel_tool_calls: v.nullish(v.boolean('true or false')),
};

const toolSchema = v.object({
  type: v.literal('function', '"function", the only kind of tool here'),
  function: anyObject,
});
const functionSchema = v.object({
  name: functionName,
  description: v.nullish(v.string('a string')),
  parameters: v.nullish(anyObject),
});

/** What a request says about tools. */
export interface Tools {
  /** As they go to the template; empty: none. */
  readonly tools: readonly JsonObject[];
  readonly names: readonly string[];
  /** Whether the answer has to be a call: of any tool, or of one. */
  readonly must: 'any' | { readonly name: string } | null;
  readonly mostCalls: number;
}

/** Throws FieldError: BAD_REQUEST or UNSUPPORTED_FIELD. */
export function toolsOf(fields: {
  readonly tools?: readonly Readonly<Record<string, unknown>>[] | null | undefined;
  readonly tool_choice?: unknown;
  readonly parallel_tool_calls?: boolean | null | undefined;
}): Tools {
  const tools = (fields.tools ?? []).map(toolAt);
  const names = tools.map(tool => tool.function.name);
  const must = choiceOf(fields.tool_choice ?? 'auto', names);
  const mostCalls = fields.parallel_tool_calls === false ? 1 : MAX_TOOLS;
  if (must === 'none') return { tools: [], names: [], must: null, mostCalls };
  return { tools, names, must, mostCalls };
}

type Tool = JsonObject & { readonly function: { readonly name: string } };

function toolAt(tool: Readonly<Record<string, unknown>>, index: number): Tool {
  const path = `tools[${index}]`;
  const outer = parseFields(tool, toolSchema, {}, path);
  // a schema that must be followed would have to bound what the model writes
  const inner = parseFields(outer.function, functionSchema, { strict: only(false) }, `${path}.function`);
  refuseDeep(inner.parameters, `${path}.function.parameters`);
  const { name, description, parameters } = inner;
  const described = {
    name,
    ...(description == null ? {} : { description }),
    ...(parameters == null ? {} : { parameters: parameters as JsonObject }),
  };
  return { type: 'function', function: described };
}

const namedSchema = v.object({ type: v.literal('function', '"function"'), function: anyObject });
const namedFunctionSchema = v.object({ name: functionName });

function choiceOf(choice: unknown, names: readonly string[]): Tools['must'] | 'none' {
  if (choice === 'none' || choice === 'auto') return choice === 'auto' ? null : 'none';
  const wrong = (what: string) =>
    new FieldError('BAD_REQUEST', 'tool_choice', `The field tool_choice ${what}.`);
  if (choice === 'required') {
    if (names.length === 0) throw wrong('is "required", and there are no tools');
    return 'any';
  }
  if (!v.is(anyObject, choice)) throw wrong('must be "none", "auto", "required" or the name of a function');
  const named = parseFields(choice, namedSchema, {}, 'tool_choice');
  const { name } = parseFields(named.function, namedFunctionSchema, {}, 'tool_choice.function');
  if (!names.includes(name)) throw wrong('names a function that is not in tools');
  return { name };
}

const callSchema = v.object({
  id: v.pipe(v.string('a string'), v.maxLength(256, 'of at most 256 characters')),
  type: v.nullish(v.literal('function', '"function"')),
  function: anyObject,
});
const calledSchema = v.object({ name: functionName, arguments: v.string('a string') });

/** The calls of an earlier answer, as a client sends them back. Throws FieldError. */
export function toolCallsOf(calls: unknown, path: string): readonly ToolCall[] {
  if (!Array.isArray(calls) || calls.length > MAX_TOOLS)
    throw new FieldError(
      'BAD_REQUEST',
      path,
      `The field ${path} must be a list of at most ${MAX_TOOLS} calls.`,
    );
  return calls.map((call: unknown, index) => {
    const place = `${path}[${index}]`;
    const object = v.is(anyObject, call) ? call : {};
    const parsed = parseFields(object, callSchema, { index: Number.isSafeInteger }, place);
    const called = parseFields(parsed.function, calledSchema, {}, `${place}.function`);
    refuseDeepText(called.arguments, `${place}.function.arguments`);
    return { id: parsed.id, type: 'function', function: called };
  });
}

function refuseDeepText(text: string, path: string): void {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // models write broken JSON, too: it goes to the template as text
    return;
  }
  refuseDeep(value, path);
}

/** Templates are rendered by recursion. */
function refuseDeep(value: unknown, path: string): void {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH)
      throw new FieldError('BAD_REQUEST', path, `The field ${path} has more than ${MAX_DEPTH} levels.`);
    level = level.flatMap(each => (typeof each === 'object' && each !== null ? Object.values(each) : []));
  }
}
