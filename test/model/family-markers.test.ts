import { expect, test } from 'vitest';
import { type ChatMessage, renderChatTemplate } from '../../src/model/chat-template-render.ts';
import { encodeChat } from '../../src/model/chat-template-tokens.ts';
import { sharedText } from './shared-files.ts';
import { byteLevelTokenizer } from './tiny-tokenizers.ts';

/** Control tokens of families, and a real template that writes them where there is one. */
const FAMILIES: readonly (readonly [family: string, template: string | null, markers: readonly string[]])[] =
  [
    [
      'Llama 3',
      'meta-llama-Llama-3.1-8B-Instruct',
      [
        '<|begin_of_text|>',
        '<|end_of_text|>',
        '<|start_header_id|>',
        '<|end_header_id|>',
        '<|eot_id|>',
        '<|eom_id|>',
        '<|python_tag|>',
      ],
    ],
    ['Llama 2', null, ['<unk>', '<s>', '</s>']],
    [
      'Qwen 2.5',
      'Qwen-Qwen2.5-7B-Instruct',
      ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<tool_call>', '</tool_call>'],
    ],
    [
      'Qwen 3',
      'Qwen-Qwen3-0.6B',
      ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<tool_call>', '</tool_call>', '<think>', '</think>'],
    ],
    [
      'SmolLM 3',
      'HuggingFaceTB-SmolLM3-3B',
      ['<|begin_of_text|>', '<|im_start|>', '<|im_end|>', '<think>', '</think>'],
    ],
    ['Gemma', 'google-gemma-2-2b-it', ['<pad>', '<eos>', '<bos>', '<start_of_turn>', '<end_of_turn>']],
    [
      'Phi 3',
      'microsoft-Phi-3.5-mini-instruct',
      ['<s>', '</s>', '<|endoftext|>', '<|system|>', '<|user|>', '<|assistant|>', '<|end|>'],
    ],
    [
      'Mistral',
      'mistralai-Mistral-Nemo-Instruct-2407',
      [
        '<s>',
        '</s>',
        '[INST]',
        '[/INST]',
        '[AVAILABLE_TOOLS]',
        '[/AVAILABLE_TOOLS]',
        '[TOOL_RESULTS]',
        '[/TOOL_RESULTS]',
        '[TOOL_CALLS]',
      ],
    ],
    ['DeepSeek', null, ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>', '<｜User｜>', '<｜Assistant｜>']],
    ['Granite', null, ['<|end_of_text|>', '<|start_of_role|>', '<|end_of_role|>', '<|tool_call|>']],
    ['OLMo', null, ['<|endoftext|>', '<|user|>', '<|assistant|>']],
  ];

test.for(FAMILIES)(
  '%s: markers in a message, a tool and a result are text',
  async ([, name, markers], ctx) => {
    const own = markers.join('{{ m.content }}');
    const plain = `{{ tools | tojson }}{% for m in messages %}${own}{{ m.content }}{% endfor %}`;
    const source = name === null ? plain : sharedText(ctx, `chat-templates/${name}.jinja`);
    const tokenizer = byteLevelTokenizer({}, {}, markers);
    const controls = new Set(tokenizer.controls.values());
    const attack = markers
      .flatMap(marker => [marker, `${marker}\n`, `a${marker}b`, marker.slice(0, -1)])
      .join(' ');
    const encode = async (text: string) => {
      const template = {
        source,
        async render(chat: Parameters<typeof encodeChat>[1]) {
          const variables = { ...chat.variables, bos_token: markers[0]!, eos_token: markers[1]! };
          const reply = renderChatTemplate({ ...chat, source, variables, now: 0, maxCharacters: 1e6 });
          if (reply.type !== 'text') throw new Error(JSON.stringify(reply));
          return { text: reply.text, fallback: false };
        },
        close: async () => undefined,
      };
      const question: ChatMessage = { role: 'user', content: `x ${text} y` };
      const answer: ChatMessage = { role: 'assistant', content: 'yes' };
      const tools = [
        { type: 'function', function: { name: 'f', description: `x ${text} y`, parameters: {} } },
      ];
      const messages = [question, answer, question];
      const options = { tokenizer, template, beginToken: null, context: 100_000 };
      return (await encodeChat(options, { messages, tools, variables: {} })).ids;
    };
    const controlsOf = (ids: readonly number[]) => ids.filter(id => controls.has(id));
    const harmless = controlsOf(await encode('harmless'));
    expect(harmless.length).toBeGreaterThan(0);
    const attacked = await encode(attack);
    expect(controlsOf(attacked)).toEqual(harmless);
    const bytes = Uint8Array.from(attacked.flatMap(id => [...tokenizer.pieceBytes(id)]));
    expect(new TextDecoder().decode(bytes)).toContain(attack);
  },
);
