import type { Command } from 'commander';
import { parseInteger, parseUpTo } from '../option-values.ts';
import { type AddressFlags, daemonUrl, withAddress } from './daemon-address.ts';

interface ChatFlags extends AddressFlags {
  readonly model?: string;
  readonly maxTokens?: number;
  readonly temperature: number;
}

/** Small models in 4 bits wander off at the 1 that the API takes where nothing is said. */
const CHAT_TEMPERATURE = 0.7;

export function addChatCommand(program: Command): void {
  withAddress(program.command('chat'))
    .summary('talk to the model')
    .description(
      'A conversation in the terminal with a daemon that runs. With a prompt, or with standard input from a pipe,\n' +
        'prints one answer and ends.',
    )
    .argument('[prompt...]', 'one question')
    .option('--model <name>', 'a model of the cluster (default: the one that is served)')
    .option('--max-tokens <n>', 'most tokens of an answer', text =>
      parseInteger('--max-tokens', text, 1, 1 << 20),
    )
    .option(
      '--temperature <t>',
      'how freely words are drawn; 0 always takes the likeliest',
      text => parseUpTo('--temperature', text, 2),
      CHAT_TEMPERATURE,
    )
    .action(async (words: string[], flags: ChatFlags) => {
      const { chat } = await import('../chat.ts');
      const options = {
        url: daemonUrl(flags),
        prompt: words.length === 0 ? null : words.join(' '),
        model: flags.model ?? null,
        maxTokens: flags.maxTokens ?? null,
        temperature: flags.temperature,
      };
      await chat(options, { input: process.stdin, output: process.stdout, error: process.stderr });
    });
}
