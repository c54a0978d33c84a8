/**
 * How models write calls of tools and thoughts into their answers. The marks are in their chat templates (which show earlier calls to the
 * model in the same form), so the template tells the form; a model's name does not.
 */
export interface ToolCallFormat {
  readonly name: 'hermes' | 'piped' | 'mistral' | 'llama';
  /** Begins a call, or a list of calls. */
  readonly open: string;
  /** May follow a call; it is dropped. */
  readonly close: string | null;
  /** The name of the field with the arguments. */
  readonly argumentsField: 'arguments' | 'parameters';
  /** True where an answer that is a JSON object from its first character may be a call without a mark. */
  readonly bare: boolean;
  /** What stands before the first call of an answer that has to be one: up to its name. */
  readonly prefix: string;
}

/** Their order decides where a template has several marks. */
const FORMATS: readonly (ToolCallFormat & { readonly mark: RegExp })[] = [
  {
    // Nous Hermes, Qwen 2.5 and 3, SmolLM3
    name: 'hermes',
    mark: /<tool_call>/,
    open: '<tool_call>',
    close: '</tool_call>',
    argumentsField: 'arguments',
    bare: false,
    prefix: '<tool_call>\n{"name": "',
  },
  {
    // Phi-4-mini, Granite 3
    name: 'piped',
    mark: /<\|tool_call\|>|<\|tool\|>/,
    open: '<|tool_call|>',
    close: '<|/tool_call|>',
    argumentsField: 'arguments',
    bare: false,
    prefix: '<|tool_call|>[{"name": "',
  },
  {
    // Mistral
    name: 'mistral',
    mark: /\[TOOL_CALLS\]/,
    open: '[TOOL_CALLS]',
    close: null,
    argumentsField: 'arguments',
    bare: false,
    prefix: '[TOOL_CALLS][{"name": "',
  },
  {
    // Llama 3.1 and later: JSON alone, or behind the mark of its built-in tools
    name: 'llama',
    mark: /<\|python_tag\|>|"parameters"/,
    open: '<|python_tag|>',
    close: null,
    argumentsField: 'parameters',
    bare: true,
    prefix: '{"name": "',
  },
];

export interface AnswerFormat {
  /** Null where the template knows no tools, or no form of calls that is known here. */
  readonly tools: ToolCallFormat | null;
  /** True where the template looks for tools in the system message (Phi-4-mini), not beside the messages. */
  readonly toolsInSystem: boolean;
  /** Whether answers may begin with thoughts between <think> and </think>. */
  readonly thinks: boolean;
}

export const PLAIN_ANSWERS: AnswerFormat = { tools: null, toolsInSystem: false, thinks: false };
export const THINK = { open: '<think>', close: '</think>' };

/** The forms that a chat template (null: none) says its model uses; `toolTemplate`: that for chats with tools, where it is another. */
export function answerFormatOf(template: string | null, toolTemplate: string | null = null): AnswerFormat {
  if (template === null) return PLAIN_ANSWERS;
  const forTools = toolTemplate ?? template;
  const usesTools = /\btools\b/.test(forTools);
  const found = usesTools ? FORMATS.find(({ mark }) => mark.test(forTools)) : undefined;
  return {
    tools: found ?? null,
    toolsInSystem: /\bmessage(?:\.tools|\[['"]tools['"]\])/.test(forTools),
    thinks: template.includes(THINK.open),
  };
}

/** What begins an answer that has to call a tool: any, or that of a name. */
export const callPrefix = ({ prefix, argumentsField }: ToolCallFormat, name: string | null): string =>
  name === null ? prefix : `${prefix}${name}", "${argumentsField}": `;

/** Control tokens that have to be seen as text, for the marks to be found. */
export const marksOf = ({ tools, thinks }: AnswerFormat): string[] => [
  ...(tools === null ? [] : [tools.open, ...(tools.close === null ? [] : [tools.close]), '[ARGS]']),
  ...(thinks ? [THINK.open, THINK.close] : []),
];
