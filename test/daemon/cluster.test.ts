import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import OpenAI from 'openai';
import { expect, test } from 'vitest';
import { evaluateHash } from '../../src/cli/api-client.ts';
import { builtInModel } from '../../src/cli/project.ts';
import { emulated, everyPosition, promptTokens } from './emulated.ts';

const question = { role: 'user' as const, content: 'Tell me a short story about a dog.' };
const client = (url: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });

/** A greedy answer, streamed; `onToken` is called with the number of pieces so far. */
async function tell(url: string, maxTokens: number, onToken?: (pieces: number) => unknown): Promise<string> {
  const stream = await client(url).chat.completions.create({
    model: 'default',
    messages: [question],
    temperature: 0,
    max_tokens: maxTokens,
    stream: true,
  });
  let text = '';
  let pieces = 0;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    await onToken?.(++pieces);
  }
  return text;
}

test(
  'three devices answer the same from every endpoint, streamed and whole, and share the tiles',
  { timeout: 90_000 },
  () =>
    emulated({ devices: 3 }, async emulation => {
      const answers = await Promise.all(emulation.devices.map(({ apiUrl }) => tell(apiUrl, 40)));
      expect(answers[0]!.length).toBeGreaterThan(40);
      expect(new Set(answers).size).toBe(1);
      const whole = await client(emulation.devices[2]!.apiUrl).chat.completions.create({
        model: 'potluck-36m',
        messages: [question],
        temperature: 0,
        max_tokens: 40,
      });
      expect(whole.choices[0]!.message.content).toBe(answers[0]);
      expect(whole.usage).toMatchObject({ completion_tokens: 40 });
      const status = await emulation.status(1);
      expect(status).toMatchObject({ state: 'serving', saturated: 0, device: { role: 'spoke' } });
      const tiles = status.devices.map(device => device.tiles);
      const { tiles: all } = JSON.parse(await readFile(join(builtInModel(), 'manifest.json'), 'utf8'));
      expect(tiles.reduce((a, b) => a + b)).toBe(all.length);
      expect(Math.min(...tiles)).toBeGreaterThan(all.length / 4);
      expect(status.allreduce!.count).toBeGreaterThan(0);
    }),
);

test('the logits have the same bytes on 1 device, on 3 uneven ones, and on 5: more than KV heads', {
  timeout: 120_000,
}, async () => {
  const tokens = promptTokens(70);
  const hashes: string[] = [];
  for (const options of [{ devices: 1, threads: 2 }, { devices: 3, shares: [1, 4, 2] }, { devices: 5 }])
    await emulated(options, async emulation => {
      hashes.push(await evaluateHash(await emulation.hubUrl(), tokens, everyPosition(tokens)));
    });
  expect(new Set(hashes).size).toBe(1);
});

test('weights that do not fit stream from disk, with the same bytes and inside the window', {
  timeout: 90_000,
}, async () => {
  const tokens = promptTokens(40);
  const window = 2 << 20;
  const resident = await emulated({ devices: 2 }, async emulation =>
    evaluateHash(await emulation.hubUrl(), tokens, everyPosition(tokens)),
  );
  await emulated({ devices: 2, window }, async emulation => {
    expect(await evaluateHash(await emulation.hubUrl(), tokens, everyPosition(tokens))).toBe(resident);
    await evaluateHash(await emulation.hubUrl(), tokens, everyPosition(tokens));
    const { devices } = await emulation.status(0);
    for (const device of devices) {
      expect(device.tileBytes).toBeGreaterThan(window);
      expect(device.memory!.account.weights).toBeLessThanOrEqual(window);
      expect(device.window!.pinnedBytes + device.window!.ringBytes).toBeLessThanOrEqual(window);
      expect(device.window!.streamedBytes).toBeGreaterThan(device.tileBytes);
    }
  });
});

test(
  'an answer goes on with the same text when a device leaves in peace, and when one is killed',
  { timeout: 120_000 },
  () =>
    emulated({ devices: 3 }, async emulation => {
      const undisturbed = await tell(emulation.devices[0]!.apiUrl, 120);
      const leaving = await tell(emulation.devices[0]!.apiUrl, 120, pieces =>
        pieces === 20 ? emulation.devices[2]!.stop() : undefined,
      );
      expect(leaving).toBe(undisturbed);
      await emulation.serving([0, 1], 20_000);
      const killed = await tell(emulation.devices[0]!.apiUrl, 120, pieces =>
        pieces === 20 ? emulation.devices[1]!.kill() : undefined,
      );
      expect(killed).toBe(undisturbed);
      await emulation.serving([0], 20_000);
    }),
);

test(
  'several requests at once get the answers that they get alone; one that goes away frees its place',
  { timeout: 90_000 },
  () =>
    emulated({ devices: 2 }, async emulation => {
      const url = emulation.devices[1]!.apiUrl;
      const ask = (content: string, signal?: AbortSignal) =>
        client(url).chat.completions.create(
          { model: 'default', messages: [{ role: 'user', content }], temperature: 0, max_tokens: 30 },
          signal ? { signal } : {},
        );
      const questions = ['Hello! How are you?', 'Who are you?', 'What is 7 + 5?', 'Write a poem about rain.'];
      const alone: string[] = [];
      for (const content of questions) alone.push((await ask(content)).choices[0]!.message.content!);
      const gone = new AbortController();
      const cancelled = ask('Tell me a long story.', gone.signal).catch(
        (error: Error) => error.constructor.name,
      );
      const together = Promise.all(questions.map(content => ask(content)));
      gone.abort();
      expect(await cancelled).toBe('APIUserAbortError');
      expect((await together).map(answer => answer.choices[0]!.message.content)).toEqual(alone);
      await expect
        .poll(async () => (await emulation.status(0)).engine)
        .toMatchObject({ active: 0, waiting: 0 });
    }),
);

test(
  'a prompt over the context and an unknown model are refused, and the daemon goes on',
  { timeout: 60_000 },
  () =>
    emulated({ devices: 1 }, async emulation => {
      const { completions } = client(emulation.apiUrl).chat;
      const long = { role: 'user' as const, content: 'word '.repeat(3000) };
      await expect(completions.create({ model: 'default', messages: [long] })).rejects.toMatchObject({
        status: 400,
      });
      await expect(completions.create({ model: 'gpt-9', messages: [question] })).rejects.toMatchObject({
        status: 404,
      });
      expect(await tell(emulation.apiUrl, 5)).not.toBe('');
    }),
);
