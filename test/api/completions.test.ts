import OpenAI from 'openai';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type RunningApi, startApi, tokenizer } from './fake-host.ts';

let api: RunningApi;
beforeEach(async () => {
  api = await startApi();
});
afterEach(() => api.close());

const ids = (text: string) => tokenizer.encode(text, { special: false });
type Params = OpenAI.CompletionCreateParamsNonStreaming;
const create = (fields: object) => api.client.completions.create({ model: 'tiny', ...fields } as Params);
const prompts = () => api.host.generator.requests.map(request => request.prompt);

test('a text prompt, with the begin token before it', async () => {
  api.host.generator.say(' there');
  const answer = await create({ prompt: 'hello' });
  expect(answer).toMatchObject({
    id: expect.stringMatching(/^cmpl-/),
    object: 'text_completion',
    model: 'home/tiny',
    choices: [{ index: 0, text: ' there', finish_reason: 'stop', logprobs: null }],
    usage: { prompt_tokens: 1 + ids('hello').length, completion_tokens: ids(' there').length },
  });
  expect(prompts()).toEqual([[0, ...ids('hello')]]);
});

test('what spells a control token stays text', async () => {
  await create({ prompt: 'a<|im_end|>' });
  expect(prompts()[0]!.slice(1)).not.toContain(2);
  expect(tokenizer.decode(prompts()[0]!)).toBe('a<|im_end|>');
});

test('token ids as they are, control tokens too', async () => {
  await create({ prompt: [1, 40, 2] });
  expect(prompts()).toEqual([[1, 40, 2]]);
});

test('many prompts and n answers of each, in order', async () => {
  api.host.generator.say('A', 'B', 'C', 'D');
  const answer = await create({ prompt: ['one', [50, 51]], n: 2, best_of: 2, seed: 9 });
  expect(answer.choices.map(choice => [choice.index, choice.text])).toEqual([
    [0, 'A'],
    [1, 'B'],
    [2, 'C'],
    [3, 'D'],
  ]);
  expect(answer.usage).toEqual({
    prompt_tokens: 3 + ids('one').length,
    completion_tokens: 4,
    total_tokens: 7 + ids('one').length,
  });
  expect(api.host.generator.requests.map(request => request.sampling.seed)).toEqual([9, 10, 9, 10]);
});

test('streams, with usage where asked for', async () => {
  api.host.generator.say('hello END');
  const stream = await api.client.completions.create({
    model: 'tiny',
    prompt: 'x',
    stop: 'END',
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  expect(chunks.map(chunk => chunk.choices[0]?.text ?? '').join('')).toBe('hello ');
  expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe('stop');
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: ids('hello END').length } });
});

test('accepts fields that ask for nothing', async () => {
  const answer = await create({
    prompt: 'x',
    echo: false,
    suffix: null,
    logprobs: null,
    best_of: 1,
    user: 'me',
  });
  expect(answer.choices).toHaveLength(1);
});

test.each([
  ['echo', { prompt: 'x', echo: true }, 'unsupported_parameter'],
  ['suffix', { prompt: 'x', suffix: 'end' }, 'unsupported_parameter'],
  ['logprobs', { prompt: 'x', logprobs: 0 }, 'unsupported_parameter'],
  ['best_of', { prompt: 'x', best_of: 2 }, 'unsupported_parameter'],
  ['messages', { prompt: 'x', messages: [] }, 'unsupported_parameter'],
  ['prompt', {}, 'bad_request'],
  ['prompt', { prompt: [] }, 'bad_request'],
  ['prompt', { prompt: [1, 'a'] }, 'bad_request'],
  ['prompt', { prompt: [-1] }, 'bad_request'],
  ['prompt', { prompt: [100_000] }, 'bad_request'],
  ['prompt', { prompt: Array(33).fill('x') }, 'bad_request'],
  ['n', { prompt: Array(5).fill('x'), n: 8 }, 'bad_request'],
  ['prompt', { prompt: 'abc'.repeat(40) }, 'context_length_exceeded'],
  ['prompt', { prompt: 'x', max_tokens: 99 }, 'context_length_exceeded'],
])('refuses %s of %j', async (param, fields, code) => {
  const error = await create(fields).then(
    () => null,
    thrown => thrown,
  );
  expect(error).toBeInstanceOf(OpenAI.BadRequestError);
  expect(error).toMatchObject({ param, code });
  expect(api.host.generator.requests).toHaveLength(0);
});
