import type OpenAI from 'openai';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { answerFormatOf } from '../../src/model/answer-format.ts';
import { type RunningApi, startApi, tokenizer } from './fake-host.ts';

let api: RunningApi;
beforeEach(async () => {
  api = await startApi();
  Object.assign(api.host.model, { context: 1000 });
  speaks('{% if tools %}<tool_call>{% endif %}');
});
afterEach(() => api.close());

/** The model's template from now on. */
const speaks = (template: string) =>
  Object.assign(api.host.model, { answerFormat: answerFormatOf(template) });

const weatherTool: OpenAI.ChatCompletionFunctionTool = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};
const timeTool: OpenAI.ChatCompletionFunctionTool = { type: 'function', function: { name: 'time' } };
const question: OpenAI.ChatCompletionMessageParam = { role: 'user', content: 'How is it in Rome?' };
const ask = { model: 'tiny', messages: [question], tools: [weatherTool, timeTool] };
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>';

test('a call comes as tool_calls, its result goes back, and the answer is text', async () => {
  api.host.generator.say(CALL, 'It is sunny.');
  const first = await api.client.chat.completions.create(ask);
  const { message, finish_reason } = first.choices[0]!;
  expect(finish_reason).toBe('tool_calls');
  expect(message).toEqual({
    role: 'assistant',
    content: null,
    refusal: null,
    tool_calls: [
      {
        id: expect.stringMatching(/^[a-z0-9]{9}$/),
        type: 'function',
        function: { name: 'weather', arguments: '{"city":"Rome"}' },
      },
    ],
  });
  const { id } = message.tool_calls![0]!;
  const second = await api.client.chat.completions.create({
    ...ask,
    messages: [question, message, { role: 'tool', tool_call_id: id, content: '25 degrees' }],
  });
  expect(second.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: 'It is sunny.' } });
  expect(second.choices[0]!.message).not.toHaveProperty('tool_calls');
  const [asked, answered] = api.host.chats;
  expect(asked).toMatchObject({ messages: [question], tools: [weatherTool, timeTool] });
  expect(answered!.messages).toEqual([
    question,
    { role: 'assistant', content: '', tool_calls: message.tool_calls },
    { role: 'tool', content: '25 degrees', tool_call_id: id },
  ]);
});

test('streamed: text, then each call as a delta, then the reason', async () => {
  api.host.generator.say(`I will look.\n${CALL}\n<tool_call>{"name": "time"}</tool_call>`);
  const stream = await api.client.chat.completions.create({ ...ask, stream: true });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk.choices[0]!);
  expect(chunks.map(({ delta }) => delta.content ?? '').join('')).toBe('I will look.');
  const calls = chunks.flatMap(({ delta }) => delta.tool_calls ?? []);
  expect(calls).toEqual([
    {
      index: 0,
      id: expect.any(String),
      type: 'function',
      function: { name: 'weather', arguments: '{"city":"Rome"}' },
    },
    { index: 1, id: expect.any(String), type: 'function', function: { name: 'time', arguments: '{}' } },
  ]);
  expect(calls[0]!.id).not.toBe(calls[1]!.id);
  expect(chunks.map(({ finish_reason }) => finish_reason).filter(reason => reason !== null)).toEqual([
    'tool_calls',
  ]);
  expect(chunks[0]!.delta.role).toBe('assistant');
});

test("the client's own helper runs the tool and gets the answer", async () => {
  api.host.generator.say(CALL, 'Sunny.');
  const asked: unknown[] = [];
  const runner = api.client.chat.completions.runTools({
    model: 'tiny',
    messages: [question],
    stream: true,
    tools: [
      {
        type: 'function',
        function: {
          ...weatherTool.function,
          parse: JSON.parse,
          function: (args: unknown) => {
            asked.push(args);
            return '25 degrees';
          },
        } as never,
      },
    ],
  });
  expect(await runner.finalContent()).toBe('Sunny.');
  expect(asked).toEqual([{ city: 'Rome' }]);
});

test('parallel_tool_calls false ends the answer behind the first call', async () => {
  api.host.generator.say(`${CALL}\n${CALL}`);
  const answer = await api.client.chat.completions.create({ ...ask, parallel_tool_calls: false });
  expect(answer.choices[0]!.message.tool_calls).toHaveLength(1);
  expect(answer.choices[0]!.finish_reason).toBe('tool_calls');
  await expect.poll(() => api.host.generator.aborted).toEqual([0]);
});

test('tool_choice none gives the template no tools, and calls stay text', async () => {
  api.host.generator.say(CALL);
  const answer = await api.client.chat.completions.create({ ...ask, tool_choice: 'none' });
  expect(answer.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: CALL } });
  expect(api.host.chats[0]).not.toHaveProperty('tools');
});

test.each<[OpenAI.ChatCompletionToolChoiceOption, string, string]>([
  ['required', '<tool_call>\n{"name": "', 'weather", "arguments": {"city": "Rome"}}\n</tool_call>'],
  [
    { type: 'function', function: { name: 'weather' } },
    '<tool_call>\n{"name": "weather", "arguments": ',
    '{"city": "Rome"}}\n</tool_call>',
  ],
])('tool_choice %j: the answer has to begin as a call', async (tool_choice, begun, said) => {
  api.host.generator.say(said);
  const answer = await api.client.chat.completions.create({ ...ask, tool_choice });
  expect(answer.choices[0]!.message.tool_calls?.[0]).toMatchObject({
    function: { name: 'weather', arguments: '{"city":"Rome"}' },
  });
  const { prompt } = api.host.generator.requests[0]!;
  expect(tokenizer.decode(prompt)).toBe(`How is it in Rome?${begun}`);
});

test('an answer that is cut within a call says so, and gives the text', async () => {
  const cut = '<tool_call>\n{"name": "weather", "argum';
  api.host.generator.say(`${cut}ents": {"city": "Rome"}}`);
  const max_tokens = tokenizer.encode(cut, { special: false }).length;
  const answer = await api.client.chat.completions.create({ ...ask, max_tokens });
  expect(answer.choices[0]).toMatchObject({ finish_reason: 'length', message: { content: cut } });
});

test('a template that looks for tools in the system message finds them there', async () => {
  speaks("{% if 'tools' in message %}<|tool|>{{ message['tools'] }}{% endif %}");
  const body = '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}]<|/tool_call|>';
  api.host.generator.say(body, body);
  const answer = await api.client.chat.completions.create(ask);
  expect(answer.choices[0]!.message.tool_calls?.[0]).toMatchObject({ function: { name: 'weather' } });
  const tools = JSON.stringify([weatherTool.function, timeTool.function]);
  expect(api.host.chats[0]!.messages).toEqual([{ role: 'system', content: '', tools }, question]);
  await api.client.chat.completions.create({
    ...ask,
    messages: [{ role: 'system', content: 'Be kind.' }, question],
  });
  expect(api.host.chats[1]!.messages[0]).toEqual({ role: 'system', content: 'Be kind.', tools });
});

test('marks that are control tokens are seen', async () => {
  speaks('{% if tools %}[TOOL_CALLS]{% endif %}');
  const { open } = api.host.model.answerFormat.tools!;
  // a control token of this tokenizer plays the mark
  Object.assign(api.host.model.answerFormat.tools!, { open: '<|im_start|>' });
  try {
    const body = tokenizer.encode('[{"name": "time", "arguments": {}}]', { special: false });
    api.host.generator.scripts = [[tokenizer.controls.get('<|im_start|>')!, ...body]];
    const answer = await api.client.chat.completions.create(ask);
    expect(answer.choices[0]!.message.tool_calls?.[0]).toMatchObject({ function: { name: 'time' } });
  } finally {
    Object.assign(api.host.model.answerFormat.tools!, { open });
  }
});

test('thoughts are split off as reasoning_content, whole and streamed, and go back to the template', async () => {
  speaks('<think>');
  api.host.generator.say('<think>\nRome is warm.\n</think>\n\nIt is sunny.');
  const answer = await api.client.chat.completions.create({ model: 'tiny', messages: [question] });
  expect(answer.choices[0]!.message).toMatchObject({
    content: 'It is sunny.',
    reasoning_content: 'Rome is warm.',
  });
  const stream = await api.client.chat.completions.create({
    model: 'tiny',
    messages: [question],
    stream: true,
  });
  const deltas: { content?: string | null; reasoning_content?: string }[] = [];
  for await (const chunk of stream) deltas.push(chunk.choices[0]!.delta);
  expect(deltas.map(delta => delta.reasoning_content ?? '').join('')).toBe('Rome is warm.');
  expect(deltas.map(delta => delta.content ?? '').join('')).toBe('It is sunny.');
  await api.client.chat.completions.create({
    model: 'tiny',
    messages: [question, answer.choices[0]!.message, question],
  });
  expect(api.host.chats.at(-1)!.messages[1]).toEqual({
    role: 'assistant',
    content: 'It is sunny.',
    reasoning_content: 'Rome is warm.',
  });
});

test('where the prompt ends with <think> the answer begins with thoughts', async () => {
  speaks('<think>');
  api.host.generator.say('Rome is warm.</think>It is sunny.');
  const messages = [{ role: 'user' as const, content: 'Well? <think>\n' }];
  const answer = await api.client.chat.completions.create({ model: 'tiny', messages });
  expect(answer.choices[0]!.message).toMatchObject({
    content: 'It is sunny.',
    reasoning_content: 'Rome is warm.',
  });
});

test('without marks in the template <think> and calls are text', async () => {
  speaks('plain');
  api.host.generator.say('<think>a</think>b');
  const answer = await api.client.chat.completions.create({ model: 'tiny', messages: [question] });
  expect(answer.choices[0]!.message).toEqual({
    role: 'assistant',
    content: '<think>a</think>b',
    refusal: null,
  });
});

const post = (fields: object) =>
  fetch(`${api.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ ...ask, ...fields }) });

const deep = (levels: number): object => (levels === 0 ? {} : { a: deep(levels - 1) });
const assistant = { role: 'assistant', content: null };
const named = (name: string) => ({ type: 'function', function: { name } });
const made = { id: 'a', type: 'function', function: { name: 'weather', arguments: '{}' } };
test.each<[string, string, object]>([
  ['tools[0].type', 'bad_request', { tools: [{ type: 'retrieval', function: {} }] }],
  ['tools[0].function', 'bad_request', { tools: [{ type: 'function' }] }],
  ['tools[0].function.name', 'bad_request', { tools: [{ type: 'function', function: { name: 'a b' } }] }],
  [
    'tools[0].function.strict',
    'unsupported_parameter',
    { tools: [{ type: 'function', function: { name: 'a', strict: true } }] },
  ],
  [
    'tools[0].function.parameters',
    'bad_request',
    { tools: [{ type: 'function', function: { name: 'a', parameters: deep(70) } }] },
  ],
  ['tools', 'bad_request', { tools: Array(129).fill(timeTool) }],
  ['tool_choice', 'bad_request', { tool_choice: 'always' }],
  ['tool_choice', 'bad_request', { tool_choice: 'required', tools: [] }],
  ['tool_choice', 'bad_request', { tool_choice: named('other') }],
  ['tool_choice.type', 'bad_request', { tool_choice: { function: { name: 'weather' } } }],
  ['tool_choice.mode', 'unsupported_parameter', { tool_choice: { ...named('weather'), mode: 'auto' } }],
  [
    'tool_choice.function.strict',
    'unsupported_parameter',
    { tool_choice: { type: 'function', function: { name: 'weather', strict: true } } },
  ],
  [
    'tools[0].function.constructor',
    'unsupported_parameter',
    { tools: [{ type: 'function', function: { name: 'a', constructor: 1 } }] },
  ],
  [
    'messages[0].tool_calls[0].function.output',
    'unsupported_parameter',
    { messages: [{ ...assistant, tool_calls: [{ ...made, function: { ...made.function, output: 'x' } }] }] },
  ],
  ['messages[0].tool_call_id', 'bad_request', { messages: [{ role: 'tool', content: 'x' }] }],
  ['messages[0].content', 'bad_request', { messages: [assistant] }],
  ['messages[0].tool_calls', 'bad_request', { messages: [{ ...assistant, tool_calls: {} }] }],
  [
    'messages[0].tool_calls[0].function',
    'bad_request',
    { messages: [{ ...assistant, tool_calls: [{ id: 'a' }] }] },
  ],
  [
    'messages[0].tool_calls[0].function.arguments',
    'bad_request',
    {
      messages: [
        {
          ...assistant,
          tool_calls: [{ ...made, function: { name: 'a', arguments: '['.repeat(100) + ']'.repeat(100) } }],
        },
      ],
    },
  ],
])('refuses %s: %s', async (param, code, fields) => {
  const response = await post(fields);
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ error: { param, code } });
});

test.each([
  ['tools', { tools: [timeTool] }],
  ['messages[1]', { messages: [question, { role: 'tool', tool_call_id: 'a', content: 'x' }], tools: [] }],
  ['messages[0]', { messages: [{ ...assistant, tool_calls: [made] }, question], tools: [] }],
])('a template that knows no tools: %s is refused', async (param, fields) => {
  speaks('plain');
  const response = await post(fields);
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ error: { param, code: 'unsupported_parameter' } });
});
