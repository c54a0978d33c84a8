import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import type { ChatMessage, JsonObject } from '../../src/model/chat-template-render.ts';
import { renderChatTemplate } from '../../src/model/chat-template-render.ts';
import { sharedText } from './shared-files.ts';

/**
 * Real templates, rendered as transformers 5.18 renders them (Jinja2 3.1, the begin token <BOS>, the end token <EOS>, on
 * 7 March 2025). Of each text the first 16 digits of its SHA-256.
 */
const EXPECTED: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'HuggingFaceTB-SmolLM3-3B': {
    one: 'e419f14fefdbcfbf',
    many: '995dafdda8229009',
    system: '85832fcf34bda8c0',
    nothink: '0f9fcc00bf039ea6',
    think: '941ea53a06063a77',
    thoughts: '29295169465c10c0',
    tools: '9bdf1dbd343a406b',
    systools: 'edbd114247b1b39a',
    call: '7cf55612c5b38cef',
    callmore: '4250d90e07bdd6c4',
    two: 'e4c8532db97d16bb',
    unicode: 'aa7068372544a796',
    twousers: 'ee7df99b1b35267c',
  },
  'Qwen-Qwen2.5-7B-Instruct': {
    one: '5ef42f051aa24b07',
    many: '667e16f3599e6c3d',
    system: '884f64a358473997',
    nothink: '5ef42f051aa24b07',
    think: '3e6607c8c6b0ffe2',
    thoughts: 'a926068cb72073e8',
    tools: 'be8d27a8cd3d250e',
    systools: '5993aaf8b2f5db49',
    call: '75605e51abf80441',
    callmore: '63bf49710e134c99',
    two: '44a7ae96149f3fa7',
    unicode: 'ef73e0716a22347d',
    twousers: '52badc0659d4c88b',
  },
  'Qwen-Qwen3-0.6B': {
    one: '421db625c2740825',
    many: 'ef9cb105609d2a29',
    system: '884f64a358473997',
    nothink: '728fa869c866c03f',
    think: '3e6607c8c6b0ffe2',
    thoughts: '732886bba3e781fa',
    tools: '8df78cf81e40d351',
    systools: '5993aaf8b2f5db49',
    call: '2fee0275bbc019c5',
    callmore: '63bf49710e134c99',
    two: 'e2038a11062b874a',
    unicode: 'b759268248430e27',
    twousers: '92ec582eae206db1',
  },
  'google-gemma-2-2b-it': {
    one: 'c4e37917b347488f',
    many: 'c648998963301d00',
    system: 'refused',
    nothink: 'c4e37917b347488f',
    think: 'refused',
    thoughts: 'ad25b9c17896bef0',
    tools: '0fa2f41b3d8bd1d1',
    systools: 'refused',
    call: 'refused',
    callmore: 'refused',
    two: 'refused',
    unicode: '643115f244f4c66d',
    twousers: 'refused',
  },
  'meta-llama-Llama-3.1-8B-Instruct': {
    one: 'b1fbeef0ef381d56',
    many: '0b6aeee51065617b',
    system: '0a4218f52b9cbb04',
    nothink: 'b1fbeef0ef381d56',
    think: '37153cc2db912aea',
    thoughts: '5c669b970b53a67a',
    tools: '346696c75e40df65',
    systools: '187ea10807b33a88',
    call: '51927bf4f7ac1b98',
    callmore: 'e83bdf00800ba3a8',
    two: 'refused',
    unicode: '82e4e9cb2be13cb8',
    twousers: '433694a29e2df859',
  },
  'meta-llama-Llama-3.2-3B-Instruct': {
    one: 'b48937adb72eed9a',
    many: '7e455d0f13e298ca',
    system: 'c14bd5649d9b82fc',
    nothink: 'b48937adb72eed9a',
    think: 'a455f3acd102eaa1',
    thoughts: '9c190314b246fad7',
    tools: '9a53f200fbfcec03',
    systools: 'd92b3484d22852ec',
    call: '7190c3e2fad106a9',
    callmore: '92c7d5e99f2caee3',
    two: 'refused',
    unicode: '5ce46281be62afd4',
    twousers: '63f8c49ac872e9f4',
  },
  'microsoft-Phi-3.5-mini-instruct': {
    one: 'b5e141e0f5138e6e',
    many: 'a014a584efb4a2f6',
    system: '56960a1e00da65bc',
    nothink: 'b5e141e0f5138e6e',
    think: '2128e7ee08d9301c',
    thoughts: 'b93e6a3417be20ae',
    tools: 'fc73823e7f79806a',
    systools: '2a971de2557d661c',
    call: '7a6a357d92d2bc2a',
    callmore: '584e666062b3cdb4',
    two: '2876417690957f8a',
    unicode: 'a9e578286ab4618d',
    twousers: 'a03b41ab3595000b',
  },
  'mistralai-Mistral-Nemo-Instruct-2407': {
    one: 'fb1450258f347a9f',
    many: 'fb0f5687c30a2f53',
    system: 'b48d843f1da658cb',
    nothink: 'fb1450258f347a9f',
    think: 'ba47d2e1215d5bf9',
    thoughts: 'a92b227fe5bc8186',
    tools: '8e8c00bbedb82435',
    systools: 'dc062893e1b26849',
    call: 'c2b52bca84e2d57d',
    callmore: '7cf156c00146f387',
    two: '9ff189062fd6d748',
    unicode: '3b83402dde041082',
    twousers: 'refused',
  },
};

const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });
const system = (content: string): ChatMessage => ({ role: 'system', content });
const result = (content: string, tool_call_id: string, name: string): ChatMessage => ({
  role: 'tool',
  content,
  tool_call_id,
  name,
});
const call = (name: string, args: JsonObject, id = 'abcdefghi') =>
  ({ id, type: 'function', function: { name, arguments: args } }) as const;
const calls = (content: string, ...tool_calls: ReturnType<typeof call>[]): ChatMessage => ({
  role: 'assistant',
  content,
  tool_calls,
});

const WEATHER: JsonObject = {
  name: 'get_weather',
  description: 'Weather at a place: "now" & <later>',
  parameters: {
    type: 'object',
    properties: {
      place: { type: 'string', description: 'A town, like Zürich' },
      unit: { type: 'string', enum: ['celsius', 'fahrenheit'] },
      days: { type: 'integer', minimum: 1 },
    },
    required: ['place'],
  },
};
const ADD: JsonObject = {
  name: 'add',
  description: 'Adds',
  parameters: {
    type: 'object',
    properties: { a: { type: 'number' }, b: { type: 'number' } },
    required: ['a', 'b'],
  },
};
const tools = [WEATHER, ADD].map(each => ({ type: 'function', function: each }));

interface Case {
  readonly messages: readonly ChatMessage[];
  readonly tools?: typeof tools;
  readonly variables?: Readonly<Record<string, boolean>>;
}

const turns = [user('First question'), assistant('First answer'), user('Second question')];
const CASES: Readonly<Record<string, Case>> = {
  one: { messages: [user('First question')] },
  many: { messages: turns },
  system: { messages: [system('Be brief.\n  Indeed. '), ...turns] },
  nothink: { messages: [user('First question')], variables: { enable_thinking: false } },
  think: { messages: [system('Sys'), user('First question')], variables: { enable_thinking: true } },
  thoughts: {
    messages: [
      user('Q1'),
      assistant('<think>\nhm\n</think>\n\nA1'),
      user('Q2'),
      { ...assistant('A2'), reasoning_content: 'because' },
      user('Q3'),
    ],
  },
  tools: { messages: [user('Weather in Zürich?')], tools },
  systools: { messages: [system('Sys'), user('Weather in Zürich?')], tools },
  call: {
    messages: [
      user('Weather?'),
      calls('', call('get_weather', { place: 'Zürich "x"', unit: 'celsius' })),
      result('{"temperature": 21.5}', 'abcdefghi', 'get_weather'),
    ],
    tools,
  },
  callmore: {
    messages: [
      system('Sys'),
      user('Weather?'),
      calls('', call('get_weather', { place: 'A' }, 'aaaaaaaaa')),
      result('rain', 'aaaaaaaaa', 'get_weather'),
      assistant('It rains.'),
      user('1+2?'),
      calls('', call('add', { a: 1, b: 2.5 }, 'bbbbbbbbb')),
      result('3.5', 'bbbbbbbbb', 'add'),
      assistant('3.5'),
      user('Thanks'),
    ],
    tools,
  },
  two: {
    messages: [
      user('Both?'),
      calls(
        'I call.',
        call('get_weather', { place: 'A', nested: { x: [1, 2, { y: null }], t: true } }, 'aaaaaaaaa'),
        call('add', { a: 1, b: 2 }, 'bbbbbbbbb'),
      ),
      result('rain', 'aaaaaaaaa', 'get_weather'),
      result('3', 'bbbbbbbbb', 'add'),
    ],
    tools,
  },
  unicode: { messages: [user('  emoji 🦙 "quotes" \\ back\n\n<b>&amp; \u2028 end  ')] },
  twousers: { messages: [user('a'), user('b')] },
};

test.for(Object.keys(EXPECTED))('%s renders as transformers renders it', (name, ctx) => {
  const source = sharedText(ctx, `chat-templates/${name}.jinja`);
  const got: Record<string, string> = {};
  for (const [key, { variables, ...chat }] of Object.entries(CASES)) {
    const reply = renderChatTemplate({
      ...chat,
      source,
      variables: { bos_token: '<BOS>', eos_token: '<EOS>', ...variables },
      now: new Date(2025, 2, 7, 12, 5, 9).getTime(),
      maxCharacters: 100_000,
    });
    got[key] =
      reply.type === 'text' ? createHash('sha256').update(reply.text).digest('hex').slice(0, 16) : 'refused';
  }
  expect(got).toEqual(EXPECTED[name]);
});
