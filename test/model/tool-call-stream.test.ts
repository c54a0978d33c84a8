import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { sharedFolder } from '../../src/cli/project.ts';
import { answerFormatOf, callPrefix, type ToolCallFormat } from '../../src/model/answer-format.ts';
import { type AnswerPart, ToolCallStream } from '../../src/model/tool-call-stream.ts';

const formats = {
  hermes: answerFormatOf('{% if tools %}<tool_call>{% endif %}').tools!,
  piped: answerFormatOf('{% if tools %}<|tool_call|>{% endif %}').tools!,
  mistral: answerFormatOf('{% if tools %}[TOOL_CALLS]{% endif %}').tools!,
  llama: answerFormatOf('{% if tools %}<|python_tag|>{% endif %}').tools!,
};
type Name = keyof typeof formats;

const text = (value: string): AnswerPart => ({ type: 'text', text: value });
const call = (name: string, args: string): AnswerPart => ({ type: 'call', name, arguments: args });
const weather = call('weather', '{"city":"Rome"}');

/** The parts of an answer that comes in these pieces; neighbouring texts are one. */
function parse(format: ToolCallFormat, pieces: readonly string[]): AnswerPart[] {
  const stream = new ToolCallStream(format, ['weather', 'time']);
  const parts = [...pieces.flatMap(piece => stream.push(piece)), ...stream.end()];
  const joined: AnswerPart[] = [];
  for (const part of parts) {
    const last = joined.at(-1);
    if (part.type === 'text' && last?.type === 'text')
      joined[joined.length - 1] = text(last.text + part.text);
    else joined.push(part);
  }
  return joined;
}

const W = '{"name": "weather", "arguments": {"city": "Rome"}}';
const P = '{"name": "weather", "parameters": {"city": "Rome"}}';
const T = '{"name": "time", "arguments": {}}';
const time = call('time', '{}');

const table: readonly [Name, string, AnswerPart[]][] = [
  ['hermes', 'Just text. 1 < 2', [text('Just text. 1 < 2')]],
  ['hermes', `<tool_call>\n${W}\n</tool_call>`, [weather]],
  ['hermes', `I will look.\n\n<tool_call>\n${W}\n</tool_call>`, [text('I will look.'), weather]],
  ['hermes', `<tool_call>\n${W}\n</tool_call>\n<tool_call>\n${T}\n</tool_call>`, [weather, time]],
  ['hermes', `<tool_call>${W}</tool_call>\nDone.`, [weather, text('Done.')]],
  ['hermes', `<tool_call>\n${W}`, [weather]],
  [
    'hermes',
    '<tool_call>{"name": "a", "arguments": {"x": "} </tool_call> \\" {"}}</tool_call>',
    [call('a', '{"x":"} </tool_call> \\" {"}')],
  ],
  ['hermes', '<tool_call>{"name": "a", "arguments": "{\\"x\\": 1}"}</tool_call>', [call('a', '{"x": 1}')]],
  ['hermes', '<tool_call>{"name": "a"}</tool_call>', [call('a', '{}')]],
  [
    'hermes',
    '<tool_call>{"type": "function", "function": {"name": "a", "arguments": {}}}</tool_call>',
    [call('a', '{}')],
  ],
  // no calls: they stay the text that they are
  [
    'hermes',
    '<tool_call>{"name": "a", "arguments": {"x": </tool_call>',
    [text('<tool_call>{"name": "a", "arguments": {"x": </tool_call>')],
  ],
  ['hermes', '<tool_call>{"name": 7}</tool_call> so', [text('<tool_call>{"name": 7}</tool_call> so')]],
  [
    'hermes',
    '<tool_call>{"name": "a", "arguments": [1]}',
    [text('<tool_call>{"name": "a", "arguments": [1]}')],
  ],
  ['hermes', '<tool_call> means a call', [text('<tool_call> means a call')]],
  ['hermes', 'cut in the mark <tool_c', [text('cut in the mark <tool_c')]],
  ['hermes', '<tool_call>', [text('<tool_call>')]],
  ['hermes', W, [text(W)]],
  ['piped', `<|tool_call|>[${W}]<|/tool_call|>`, [weather]],
  ['piped', `<|tool_call|>[${W}, ${T}]<|/tool_call|>`, [weather, time]],
  ['piped', '<|tool_call|>[]', [text('<|tool_call|>[]')]],
  ['mistral', `[TOOL_CALLS][${W}]`, [weather]],
  ['mistral', `[TOOL_CALLS] [${W}, ${T}]`, [weather, time]],
  ['mistral', '[TOOL_CALLS]weather[ARGS]{"city":"Rome"}', [weather]],
  ['mistral', '[TOOL_CALLS]weather{"city":"Rome"}', [weather]],
  ['mistral', '[TOOL_CALLS]weather[ARGS]{"city":"Rome"}[TOOL_CALLS]time[ARGS]{}', [weather, time]],
  ['mistral', 'See [1] and [TOOL', [text('See [1] and [TOOL')]],
  ['mistral', '[TOOL_CALLS]what is this?', [text('[TOOL_CALLS]what is this?')]],
  ['llama', P, [weather]],
  ['llama', `\n${P}`, [weather]],
  ['llama', `${P}; {"name": "time", "parameters": {}}`, [weather, time]],
  ['llama', `<|python_tag|>${P}`, [weather]],
  ['llama', '{"type": "function", "name": "weather", "parameters": {"city": "Rome"}}', [weather]],
  ['llama', '<|python_tag|>print("hello")', [text('<|python_tag|>print("hello")')]],
  // JSON that was asked for is no call
  ['llama', '{"city": "Rome", "name": "weather"}', [text('{"city": "Rome", "name": "weather"}')]],
  ['llama', '{"name": "unknown", "parameters": {}}', [text('{"name": "unknown", "parameters": {}}')]],
  ['llama', '{"name": "weather", "parameters": {', [text('{"name": "weather", "parameters": {')]],
  ['llama', `The call is ${P}`, [text(`The call is ${P}`)]],
];

describe.each(table)('%s: %s', (name, answer, expected) => {
  test('whole, in single characters, and cut anywhere', () => {
    expect(parse(formats[name], [answer])).toEqual(expected);
    expect(parse(formats[name], [...answer])).toEqual(expected);
    for (let cut = 1; cut < answer.length; cut++)
      expect(parse(formats[name], [answer.slice(0, cut), answer.slice(cut)]), `cut at ${cut}`).toEqual(
        expected,
      );
  });
});

test('whatever comes, nothing is lost but marks and white space, and it ends', () => {
  const pieces = fc.array(
    fc.constantFrom(
      '<tool_call>',
      '</tool_call>',
      '[TOOL_CALLS]',
      '<|python_tag|>',
      W,
      P,
      '{',
      '}',
      '[',
      ']',
      '"',
      '\\',
      'x',
      ' ',
      ';',
      '{"name"',
      '[ARGS]',
    ),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(fc.constantFrom(...Object.values(formats)), pieces, (format, list) => {
      const whole = parse(format, [list.join('')]);
      expect(parse(format, list)).toEqual(whole);
      const calls = whole.filter(part => part.type === 'call').length;
      const kept = whole.map(part => (part.type === 'text' ? part.text : '')).join('');
      if (calls === 0) expect(kept.replace(/\s/g, '')).toBe(list.join('').replace(/\s/g, ''));
    }),
    { numRuns: 2000 },
  );
});

test.each(Object.values(formats))('an answer that begins as it has to is a call: $name', format => {
  const rest = format.name === 'piped' || format.name === 'mistral' ? ']' : '';
  expect(parse(format, [callPrefix(format, 'weather'), '{"city": "Rome"}}', rest])).toEqual([weather]);
  expect(
    parse(format, [callPrefix(format, null), 'time", ', `"${format.argumentsField}": {}}`, rest]),
  ).toEqual([time]);
});

const folder = sharedFolder('chat-templates');
const FORMS: Readonly<Record<string, [string | null, boolean]>> = {
  'HuggingFaceTB-SmolLM3-3B': [null, true],
  'Qwen-Qwen2.5-7B-Instruct': ['hermes', false],
  'Qwen-Qwen3-0.6B': ['hermes', true],
  'google-gemma-2-2b-it': [null, false],
  'meta-llama-Llama-3.1-8B-Instruct': ['llama', false],
  'meta-llama-Llama-3.2-3B-Instruct': ['llama', false],
  'microsoft-Phi-3.5-mini-instruct': [null, false],
  'mistralai-Mistral-Nemo-Instruct-2407': ['mistral', false],
};
test('real templates tell their forms', context => {
  const names = (() => {
    try {
      return readdirSync(folder);
    } catch {
      return context.skip(`${folder} is not there`);
    }
  })();
  for (const file of names) {
    const { tools, thinks } = answerFormatOf(readFileSync(join(folder, file), 'utf8'));
    expect([tools?.name ?? null, thinks], file).toEqual(FORMS[file.replace('.jinja', '')]);
  }
});
