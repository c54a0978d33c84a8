import OpenAI from 'openai';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PotluckError } from '../../src/errors/errors.ts';
import { type RunningApi, startApi, tokenizer, until } from './fake-host.ts';

let api: RunningApi;
beforeEach(async () => {
  api = await startApi();
});
afterEach(() => api.close());

const messages = [{ role: 'user', content: 'hello' }] as const;
const ask = { model: 'home/tiny', messages: [...messages] };
const length = (text: string) => tokenizer.encode(text, { special: false }).length;
type Params = OpenAI.ChatCompletionCreateParamsNonStreaming;
/** Fields that OpenAI's types do not have. */
const withFields = (fields: object): Params => ({ ...ask, ...fields });

test('a whole answer with usage', async () => {
  api.host.generator.say('hello 😀 you');
  const answer = await api.client.chat.completions.create(ask);
  expect(answer).toMatchObject({
    id: expect.stringMatching(/^chatcmpl-/),
    object: 'chat.completion',
    created: 5000,
    model: 'home/tiny',
    system_fingerprint: 'potluck-1.2.3',
    choices: [
      {
        index: 0,
        finish_reason: 'stop',
        message: { role: 'assistant', content: 'hello 😀 you' },
        logprobs: null,
      },
    ],
  });
  const completion = length('hello 😀 you');
  const prompt = length('hello');
  expect(answer.usage).toEqual({
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
  });
});

test('a stream of chunks: role first, whole characters, finish last, usage where asked for', async () => {
  api.host.generator.say('hello 😀 you');
  const stream = await api.client.chat.completions.create({
    ...ask,
    model: 'tiny',
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const deltas = chunks.flatMap(chunk => chunk.choices.map(choice => choice.delta));
  expect(deltas[0]!.role).toBe('assistant');
  expect(deltas.filter(delta => delta.role !== undefined)).toHaveLength(1);
  expect(deltas.map(delta => delta.content ?? '').join('')).toBe('hello 😀 you');
  expect(deltas.some(delta => delta.content === '😀')).toBe(true);
  expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe('stop');
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: length('hello 😀 you') } });
  expect(chunks.slice(0, -1).every(chunk => chunk.usage === null)).toBe(true);
  expect(new Set(chunks.map(chunk => chunk.id)).size).toBe(1);
});

test('the bytes of a stream end with [DONE], and usage comes only where asked for', async () => {
  api.host.generator.say('hi');
  const response = await fetch(`${api.url}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify({ ...ask, stream: true }),
  });
  expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
  const text = await response.text();
  expect(text.endsWith('\n\ndata: [DONE]\n\n')).toBe(true);
  expect(text).not.toContain('usage');
});

test('an answer without tokens is an empty one, streamed too', async () => {
  expect((await api.client.chat.completions.create(ask)).choices[0]!.message.content).toBe('');
  const stream = await api.client.chat.completions.create({ ...ask, stream: true });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk.choices[0]!);
  expect(chunks).toMatchObject([{ delta: { role: 'assistant', content: '' }, finish_reason: 'stop' }]);
});

test('a stop string ends the answer and the generation, and is not part of it', async () => {
  const { generator } = api.host;
  generator.say('one two STOP three four');
  generator.hang = true;
  const answer = await api.client.chat.completions.create({ ...ask, stop: ['never', 'STOP'] });
  expect(answer.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: 'one two ' } });
  expect(answer.usage!.completion_tokens).toBe(length('one two STOP'));
  expect(generator.aborted).toEqual([0]);
  const stream = await api.client.chat.completions.create({ ...ask, stop: 'STOP', stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]!.delta.content ?? '';
  expect(text).toBe('one two ');
});

test.each(['max_tokens', 'max_completion_tokens'])('%s cuts with the reason length', async field => {
  api.host.generator.say('abcdefgh');
  const answer = await api.client.chat.completions.create(withFields({ [field]: 3 }));
  expect(answer.choices[0]).toMatchObject({ finish_reason: 'length', message: { content: 'abc' } });
});

test('n answers with seeds of their own, whole and streamed', async () => {
  const { generator } = api.host;
  generator.say('first', 'second', 'third');
  const answer = await api.client.chat.completions.create({ ...ask, n: 3, seed: 5 });
  expect(answer.choices.map(choice => choice.message.content)).toEqual(['first', 'second', 'third']);
  expect(answer.choices.map(choice => choice.index)).toEqual([0, 1, 2]);
  expect(generator.requests.map(request => request.sampling.seed)).toEqual([5, 6, 7]);
  expect(answer.usage).toMatchObject({
    prompt_tokens: length('hello'),
    completion_tokens: length('firstsecondthird'),
  });
  const texts = ['', ''];
  for await (const chunk of await api.client.chat.completions.create({ ...ask, n: 2, stream: true })) {
    for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? '';
  }
  expect(texts).toEqual(['third', 'third']);
});

test('every sampling field reaches the generator; absent ones have OpenAI’s defaults', async () => {
  await api.client.chat.completions.create(
    withFields({
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.1,
      seed: -3,
      repetition_penalty: 1.1,
      presence_penalty: -1,
      frequency_penalty: 2,
      logit_bias: { 5: -100, 17: 3.5 },
      max_tokens: 7,
    }),
  );
  await api.client.chat.completions.create(ask);
  const [asked, plain] = api.host.generator.requests;
  expect(asked).toEqual({
    prompt: tokenizer.encode('hello', { special: false }),
    generated: [],
    maxTokens: 7,
    stopTokens: [2],
    sampling: {
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      minP: 0.1,
      seed: -3,
      repetitionPenalty: 1.1,
      presencePenalty: -1,
      frequencyPenalty: 2,
      logitBias: new Map([
        [5, -100],
        [17, 3.5],
      ]),
    },
  });
  expect(plain).toMatchObject({
    maxTokens: 100 - length('hello'),
    sampling: {
      temperature: 1,
      topP: 1,
      topK: 0,
      minP: 0,
      seed: 77,
      repetitionPenalty: 1,
      logitBias: new Map(),
    },
  });
});

test('messages: roles, text parts, and what clients send back of an answer', async () => {
  const answer = await api.client.chat.completions.create(ask);
  await api.client.chat.completions.create({
    ...ask,
    messages: [
      { role: 'developer', content: 'd' },
      { role: 'system', content: 's' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ],
      },
      answer.choices[0]!.message,
    ],
    ...{ chat_template_kwargs: { enable_thinking: false } },
  });
  expect(api.host.chats[1]).toEqual({
    messages: [
      { role: 'system', content: 'd' },
      { role: 'system', content: 's' },
      { role: 'user', content: 'a\nb' },
      { role: 'assistant', content: '' },
    ],
    variables: { enable_thinking: false },
  });
});

test('fields that ask for nothing are accepted', async () => {
  const neutral = {
    logprobs: false,
    top_logprobs: null,
    tools: [],
    tool_choice: 'none',
    parallel_tool_calls: true,
    response_format: { type: 'text' },
    user: 'me',
    metadata: { a: 'b' },
    store: false,
    service_tier: 'auto',
    modalities: ['text'],
    temperature: null,
    stop: null,
    n: 1,
    stream: false,
    seed: null,
    logit_bias: {},
  };
  const answer = await api.client.chat.completions.create(withFields(neutral));
  expect(answer.choices).toHaveLength(1);
});

test.each([
  ['tools', { tools: [{ type: 'function', function: { name: 'f' } }] }],
  ['logprobs', { logprobs: true }],
  ['top_logprobs', { top_logprobs: 2 }],
  ['response_format', { response_format: { type: 'json_object' } }],
  ['store', { store: true }],
  ['reasoning_effort', { reasoning_effort: 'high' }],
  ['modalities', { modalities: ['audio'] }],
  ['no_such_field', { no_such_field: 1 }],
  ['__proto__', JSON.parse('{"__proto__":1}')],
  ['stream_options.x', { stream: true, stream_options: { x: true } }],
  ['stream_options.constructor', { stream: true, stream_options: { constructor: true } }],
  ['messages[0].constructor', { messages: [{ role: 'user', content: 'x', constructor: 1 }] }],
  [
    'messages[0].content[0].image',
    { messages: [{ role: 'user', content: [{ type: 'text', text: 'x', image: 1 }] }] },
  ],
  ['messages[0].role', { messages: [{ role: 'function', content: 'x' }] }],
  ['messages[0].name', { messages: [{ role: 'user', content: 'x', name: 'n' }] }],
  ['messages[1].content[0]', { messages: [...messages, { role: 'user', content: [{ type: 'image_url' }] }] }],
])('refuses %s as unsupported', async (param, fields) => {
  const body = JSON.stringify(ask).slice(0, -1) + (param === '__proto__' ? ',"__proto__":1}' : '}');
  const sent = param === '__proto__' ? body : JSON.stringify({ ...ask, ...fields });
  const response = await fetch(`${api.url}/v1/chat/completions`, { method: 'POST', body: sent });
  expect(response.status).toBe(400);
  expect(await response.json()).toEqual({
    error: {
      message: expect.any(String),
      type: 'invalid_request_error',
      param,
      code: 'unsupported_parameter',
    },
  });
  expect(api.host.generator.requests).toHaveLength(0);
});

test.each([
  ['temperature', { temperature: 2.1 }],
  ['temperature', { temperature: 'hot' }],
  ['top_p', { top_p: -0.1 }],
  ['top_k', { top_k: 1.5 }],
  ['seed', { seed: 2 ** 60 }],
  ['n', { n: 9 }],
  ['n', { n: 0 }],
  ['max_tokens', { max_tokens: 0 }],
  ['max_tokens', { max_tokens: 3, max_completion_tokens: 4 }],
  ['stop', { stop: '' }],
  ['stop', { stop: 3 }],
  ['stop', { stop: Array(17).fill('x') }],
  ['stop[0]', { stop: ['\ud83d'] }],
  ['logit_bias', { logit_bias: { 999999: 1 } }],
  ['logit_bias.5', { logit_bias: { 5: 101 } }],
  ['logit_bias.dog', { logit_bias: { dog: 1 } }],
  ['logit_bias', { logit_bias: { constructor: 1 } }],
  ['chat_template_kwargs', { chat_template_kwargs: { constructor: 1 } }],
  ['chat_template_kwargs', { chat_template_kwargs: { prototype: 1 } }],
  ['stream', { stream: 'yes' }],
  ['stream_options', { stream_options: { include_usage: true } }],
  ['messages', { messages: [] }],
  ['messages', { messages: 'hello' }],
  ['messages[0]', { messages: ['hello'] }],
  ['messages[0].content', { messages: [{ role: 'user', content: null }] }],
  ['messages[0].role', { messages: [{ content: 'x' }] }],
  ['model', { model: undefined }],
])('refuses a bad %s: %j', async (param, fields) => {
  const error = await api.client.chat.completions.create(withFields(fields)).then(
    () => null,
    thrown => thrown,
  );
  expect(error).toBeInstanceOf(OpenAI.BadRequestError);
  expect(error).toMatchObject({ param, code: 'bad_request', type: 'invalid_request_error' });
  expect(error.message.length).toBeLessThan(200);
});

test('too long a prompt or answer, an unknown model and a refusing template have OpenAI’s codes', async () => {
  const create = (fields: object) => api.client.chat.completions.create(withFields(fields));
  const long = [{ role: 'user', content: 'abc'.repeat(40) }];
  await expect(create({ messages: long })).rejects.toMatchObject({
    status: 400,
    code: 'context_length_exceeded',
  });
  await expect(create({ max_tokens: 101 })).rejects.toMatchObject({
    status: 400,
    code: 'context_length_exceeded',
  });
  await expect(create({ max_tokens: 100 - length('hello') })).resolves.toBeDefined();
  await expect(create({ model: 'gpt-4o' })).rejects.toThrow(OpenAI.NotFoundError);
  await expect(create({ model: 'gpt-4o' })).rejects.toMatchObject({
    code: 'model_not_found',
    param: 'model',
  });
  const refused = [{ role: 'user', content: 'refuse' }];
  await expect(create({ messages: refused })).rejects.toMatchObject({ status: 400, code: 'template_failed' });
});

test.each([false, true])(
  'errors of the generator before the first token have their status (stream: %s)',
  async stream => {
    const create = () => api.client.chat.completions.create({ ...ask, stream });
    api.host.generator.error = new PotluckError('BUSY', 'Too many requests are waiting.');
    await expect(create()).rejects.toMatchObject({ status: 503, code: 'busy', type: 'server_error' });
    api.host.generator.error = new Error('a defect');
    await expect(create()).rejects.toBeInstanceOf(OpenAI.InternalServerError);
    expect(api.host.defects.map(error => error.code)).toEqual(['INTERNAL']);
    api.host.ready = false;
    await expect(create()).rejects.toMatchObject({ status: 503, code: 'not_ready' });
  },
);

test('an error in the middle of a stream is an event that the client throws', async () => {
  api.host.generator.say('abc');
  api.host.generator.error = new PotluckError('DEVICE_LOST', 'The device attic left.');
  const stream = await api.client.chat.completions.create({ ...ask, stream: true });
  let text = '';
  const read = async () => {
    for await (const chunk of stream) text += chunk.choices[0]!.delta.content ?? '';
  };
  const error = await read().then(
    () => null,
    thrown => thrown,
  );
  expect(error).toBeInstanceOf(OpenAI.APIError);
  expect(error.error ?? error).toMatchObject({ code: 'device_lost', message: 'The device attic left.' });
  expect(text).toBe('abc');
});

test('when one of several choices fails, the others are ended', async () => {
  const { generator } = api.host;
  generator.hang = true;
  const original = generator.generate.bind(generator);
  generator.generate = (request, signal) => {
    if (generator.requests.length === 1) generator.error = new PotluckError('DEVICE_LOST', 'gone');
    return original(request, signal);
  };
  generator.error = null;
  await expect(api.client.chat.completions.create({ ...ask, n: 2 })).rejects.toMatchObject({ status: 503 });
  expect(generator.aborted.sort()).toEqual([0, 1]);
});

test.each([false, true])('a client that goes away ends the generation (stream: %s)', async stream => {
  const { generator } = api.host;
  generator.say('abc');
  generator.hang = true;
  const leaving = new AbortController();
  const request = fetch(`${api.url}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify({ ...ask, n: 2, stream }),
    signal: leaving.signal,
  });
  if (stream) {
    const reader = (await request).body!.getReader();
    await reader.read();
    leaving.abort();
    await expect(reader.read().then(() => reader.read())).rejects.toThrow();
  } else {
    await until(() => generator.given === 6);
    leaving.abort();
    await expect(request).rejects.toThrow();
  }
  await until(() => generator.aborted.length === 2);
  expect(api.host.defects).toEqual([]);
});

test('a client that does not read holds the generation back', async () => {
  const { generator } = api.host;
  generator.scripts = [Array(500_000).fill(tokenizer.encode('a', { special: false })[0]!)];
  Object.assign(api.host.model, { context: 1_000_000 });
  const leaving = new AbortController();
  const response = await fetch(`${api.url}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify({ ...ask, stream: true }),
    signal: leaving.signal,
  });
  let before = -1;
  while (generator.given !== before) {
    before = generator.given;
    await new Promise(resolve => setTimeout(resolve, 300));
  }
  expect(generator.given).toBeGreaterThan(0);
  expect(generator.given).toBeLessThan(500_000);
  leaving.abort();
  await expect(response.text()).rejects.toThrow();
  await until(() => generator.aborted.length === 1);
});
