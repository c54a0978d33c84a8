import { expect, test } from 'vitest';
import { type ChatMessage, renderChatTemplate, strftime } from '../../src/model/chat-template-render.ts';
import { sharedText } from './shared-files.ts';

const NOON = new Date(2025, 2, 7, 12, 5, 9).getTime();
const variables = { bos_token: '<BOS>', eos_token: '<EOS>' };
const oneTurn: ChatMessage[] = [{ role: 'user', content: 'First question' }];
const manyTurns: ChatMessage[] = [
  ...oneTurn,
  { role: 'assistant', content: 'First answer' },
  { role: 'user', content: 'Second question' },
];

const render = (source: string, messages: readonly ChatMessage[], extra = {}, maxCharacters = 100_000) =>
  renderChatTemplate({ source, messages, variables: { ...variables, ...extra }, now: NOON, maxCharacters });

const text = (source: string, messages: readonly ChatMessage[], extra = {}): string => {
  const reply = render(source, messages, extra);
  if (reply.type !== 'text') throw new Error(JSON.stringify(reply));
  return reply.text;
};

test.for([
  ['google-gemma-2-2b-it', '<start_of_turn>model\n'],
  ['mistralai-Mistral-Nemo-Instruct-2407', '[/INST]'],
  ['meta-llama-Llama-3.1-8B-Instruct', '<|start_header_id|>assistant<|end_header_id|>\n\n'],
  ['meta-llama-Llama-3.2-3B-Instruct', '<|start_header_id|>assistant<|end_header_id|>\n\n'],
  ['HuggingFaceTB-SmolLM3-3B', '<|im_start|>assistant\n'],
  ['Qwen-Qwen2.5-7B-Instruct', '<|im_start|>assistant\n'],
  ['Qwen-Qwen3-0.6B', '<|im_start|>assistant\n'],
  ['microsoft-Phi-3.5-mini-instruct', '<|assistant|>\n'],
] as const)('%s renders one turn, many turns and a system message', ([name, end], ctx) => {
  const source = sharedText(ctx, `chat-templates/${name}.jinja`);
  const one = text(source, oneTurn);
  expect(one).toContain('First question');
  expect(one.endsWith(end)).toBe(true);
  const many = text(source, manyTurns);
  expect(many).toMatch(/First question[\s\S]*First answer[\s\S]*Second question/);
  expect(many.endsWith(end)).toBe(true);
  const system = render(source, [{ role: 'system', content: 'Be brief.' }, ...manyTurns]);
  if (name.startsWith('google')) expect(system).toMatchObject({ type: 'failed' });
  else expect(system).toMatchObject({ type: 'text', text: expect.stringContaining('Be brief.') });
});

test('whole text of some', ctx => {
  expect(text(sharedText(ctx, 'chat-templates/google-gemma-2-2b-it.jinja'), manyTurns)).toBe(
    '<BOS><start_of_turn>user\nFirst question<end_of_turn>\n<start_of_turn>model\nFirst answer<end_of_turn>\n' +
      '<start_of_turn>user\nSecond question<end_of_turn>\n<start_of_turn>model\n',
  );
  const qwen3 = sharedText(ctx, 'chat-templates/Qwen-Qwen3-0.6B.jinja');
  expect(text(qwen3, oneTurn, { enable_thinking: false })).toBe(
    '<|im_start|>user\nFirst question<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n',
  );
  const llama = sharedText(ctx, 'chat-templates/meta-llama-Llama-3.2-3B-Instruct.jinja');
  expect(text(llama, oneTurn)).toContain('Today Date: 07 Mar 2025');
});

test('what a template refuses, a broken template and too much text fail with a reason', () => {
  expect(render("{{ raise_exception('No such role') }}", oneTurn)).toEqual({
    type: 'failed',
    message: 'No such role',
  });
  expect(render('{% for %}', oneTurn).type).toBe('failed');
  expect(render('{% for i in range(100) %}aa{% endfor %}', oneTurn, {}, 199)).toEqual({
    type: 'failed',
    message: 'It made 200 characters; the limit is 199.',
  });
});

test('tojson, tokens and the date are given; messages cannot be replaced by a variable', () => {
  expect(text('{{ bos_token }}{{ messages | tojson }}', oneTurn, { messages: 'no' })).toBe(
    '<BOS>[{"role": "user", "content": "First question"}]',
  );
  expect(text("{{ strftime_now('%Y-%m-%d') }}", oneTurn)).toBe('2025-03-07');
  expect(strftime(new Date(NOON), '%A %a %d %B %b %y %H:%M:%S 100%% %Q')).toBe(
    'Friday Fri 07 March Mar 25 12:05:09 100% %Q',
  );
});
