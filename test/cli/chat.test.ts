import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { expect, onTestFinished, test } from 'vitest';
import { errorBody } from '../../src/api/openai-errors.ts';
import { chat } from '../../src/cli/chat.ts';
import { PotluckError } from '../../src/errors/errors.ts';

/** A daemon that answers chats so; resolves to its address. */
async function daemon(answer: (messages: unknown[], response: ServerResponse) => void): Promise<string> {
  const server = createServer((request, response) => {
    if (request.url === '/potluck/status') return response.end('{"model":{"name":"m"},"devices":[{}]}');
    if (request.url === '/v1/models') return response.end('{"data":[{"id":"m"}]}');
    void text(request).then(body => answer(JSON.parse(body).messages, response));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.closeAllConnections());
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const piece = (content: string): string =>
  `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`;

/** What a conversation of these lines printed. */
async function converse(url: string, ...lines: string[]): Promise<{ output: string; errors: string }> {
  const input = Object.assign(new PassThrough(), { isTTY: true });
  const [output, error] = [new PassThrough(), new PassThrough()];
  const printed = [text(output), text(error)];
  input.write([...lines, '/exit', ''].join('\n'));
  const options = { url, prompt: null, model: null, maxTokens: null, temperature: null };
  await chat(options, { input, output, error });
  output.end();
  error.end();
  const [said, errors] = await Promise.all(printed);
  return { output: said!, errors: errors! };
}

test('a conversation that is longer than the context goes on without its oldest turns, and says so', async () => {
  const asked: number[] = [];
  const url = await daemon((messages, response) => {
    asked.push(messages.length);
    if (messages.length > 3) {
      const error = new PotluckError('CONTEXT_TOO_LONG', 'The prompt has 1037 tokens.');
      return response.writeHead(error.status).end(JSON.stringify(errorBody(error)));
    }
    response.end(`${piece(`answer ${asked.length}`)}data: [DONE]\n\n`);
  });
  const { output, errors } = await converse(url, 'one', 'two', 'three', 'four');
  expect(errors).toBe('');
  expect(asked).toEqual([1, 3, 5, 3, 5, 3]);
  expect(output.match(/oldest turns are forgotten/g)).toHaveLength(2);
  expect(output).toContain('answer 6');
});

test('one question that is too long for the context is an error with its code', async () => {
  const url = await daemon((_, response) => {
    const error = new PotluckError('CONTEXT_TOO_LONG', 'The prompt has 1037 tokens.');
    response.writeHead(error.status).end(JSON.stringify(errorBody(error)));
  });
  expect((await converse(url, 'long')).errors).toContain('(CONTEXT_TOO_LONG)');
});

test('a daemon that ends in the middle of an answer is a lost device', async () => {
  const url = await daemon((_, response) => {
    response.write(piece('Once upon'), () => response.destroy());
  });
  const { output, errors } = await converse(url, 'a story');
  expect(output).toContain('Once upon');
  expect(errors).toContain('potluck: The answer broke off: the daemon closed the connection (DEVICE_LOST)');
});
