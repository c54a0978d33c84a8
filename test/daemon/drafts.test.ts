import OpenAI from 'openai';
import { expect, test } from 'vitest';
import type { EmulationOptions } from '../../src/cli/emulate/emulation.ts';
import { emulated } from './emulated.ts';

const TOKENS = 160;
/** Greedy, a small model comes back to the same words; the other answer is drawn. */
const REQUESTS = [
  { prompt: 'The list: one apple, two apples, three apples, four', temperature: 0 },
  { prompt: 'The king said: open the door! The king said: open the', temperature: 0.4, seed: 11 },
];
/** It ends in the middle of what repeats itself, and of a draft. */
const STOPPED = {
  ...REQUESTS[0]!,
  stop: ['apples, three apples, three apples, three apples, three apples, th'],
};

/** Answers to all, and what the hub says of them. */
const answers = (options: Omit<EmulationOptions, 'model'>) =>
  emulated(options, async emulation => {
    const url = emulation.devices.at(-1)!.apiUrl;
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
    const texts: string[] = [];
    for (const request of REQUESTS) {
      const answer = await client.completions.create({ model: 'default', max_tokens: TOKENS, ...request });
      expect(answer.usage).toMatchObject({ completion_tokens: TOKENS });
      texts.push(answer.choices[0]!.text);
    }
    const { engine } = await emulation.status(0);
    const { choices, usage } = await client.completions.create({
      model: 'default',
      max_tokens: TOKENS,
      ...STOPPED,
    });
    return { texts, stopped: { ...choices[0]!, tokens: usage!.completion_tokens }, engine: engine! };
  });

test('answers are the same with drafts and without, alone, streamed from disk, and on three devices', {
  timeout: 120_000,
}, async () => {
  const without = await answers({ devices: 1, drafts: false });
  expect(without.stopped).toMatchObject({ finish_reason: 'stop' });
  expect(without.stopped.tokens).toBeLessThan(TOKENS / 2);
  expect(without.engine).toMatchObject({ draftedTokens: 0, generatedTokens: TOKENS * REQUESTS.length });
  expect(without.engine.passes).toBeGreaterThanOrEqual(without.engine.generatedTokens);
  for (const options of [{ devices: 1 }, { devices: 1, window: 4 << 20 }, { devices: 3 }]) {
    const { texts, stopped, engine } = await answers(options);
    expect(texts).toEqual(without.texts);
    expect(stopped).toEqual(without.stopped);
    expect(engine.acceptedTokens).toBeGreaterThan(TOKENS / 4);
    expect(engine.passes).toBeLessThan(without.engine.passes - TOKENS / 4);
  }
});
