import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as fileSystem from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import OpenAI from 'openai';
import { describe, expect, onTestFinished, test } from 'vitest';
import { fetchStatus, generate } from '../../src/cli/api-client.ts';
import { compiledMain } from '../../src/cli/project.ts';
import { parseShapes } from '../../src/model/named-shapes.ts';
import { writeSyntheticPack } from '../../src/model/synthetic-pack.ts';
import { addon } from '../kernels/addon-under-test.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { emulated, promptTokens } from './emulated.ts';
import { type MemoryGroup, makeMemoryGroup } from './memory-group.ts';

const MIB = 1 << 20;
/** How large a process starts differs by some MiB from start to start. */
const STARTS = 4;
const cluster = `budget-${process.pid}`;

interface Daemon {
  readonly child: ChildProcess;
  readonly apiUrl: string;
  readonly linkPort: number;
}

/** A daemon that is in the group before it runs its first line. */
async function up(group: MemoryGroup | null, ...args: string[]): Promise<Daemon> {
  const folder = mkdtempSync(join(tmpdir(), 'potluck-budget-'));
  const command = [compiledMain(), 'up', '--child', '--no-discovery', '--port', '0', '--link-port', '0'];
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      'read go; exec "$0" "$@"',
      process.execPath,
      ...command,
      '--cluster',
      cluster,
      '--data',
      folder,
      ...args,
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  onTestFinished(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.stdin!.end();
      await once(child, 'exit');
    }
    rmSync(folder, { recursive: true, force: true });
  });
  group?.add(child.pid!);
  child.stdin!.write('go\n');
  const gone = once(child, 'exit').then(([code]) => {
    throw new Error(`the daemon ended with code ${code} before it was up`);
  });
  const [line] = await Promise.race([once(createInterface({ input: child.stdout! }), 'line'), gone]);
  gone.catch(() => undefined); // it may end later
  const { apiUrl, linkPort } = JSON.parse(String(line));
  return { child, apiUrl, linkPort };
}

/** What a daemon alone says it needs, in MiB, without the margin for other starts: the most of some starts. */
async function leastMemory(...args: string[]): Promise<number> {
  let most = 0;
  for (let start = 0; start < STARTS; start++) most = Math.max(most, await leastOfStart(args));
  return most;
}

async function leastOfStart(args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [
    ...[compiledMain(), 'up', '--no-discovery', '--port', '0', '--memory', '16M'],
    ...['--data', join(tmpdir(), `potluck-least-${process.pid}`), ...args],
  ]);
  let said = '';
  child.stderr.on('data', data => {
    said += data;
  });
  await once(child, 'exit');
  rmSync(join(tmpdir(), `potluck-least-${process.pid}`), { recursive: true, force: true });
  const [, beside, buffers] = /\((\d+) MiB for the process, (\d+) MiB for buffers/.exec(said) ?? [];
  return Number(beside) + Number(buffers);
}

const highWater = (pid: number): number =>
  1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);

const serving = (url: string, devices: number) =>
  expect
    .poll(
      async () => {
        const { state, devices: all } = await fetchStatus(url);
        return state === 'serving' && all.filter(({ role }) => role !== 'waiting').length === devices;
      },
      { timeout: 20_000 },
    )
    .toBe(true);

async function chat(url: string): Promise<void> {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const messages = [{ role: 'user' as const, content: 'Tell me a long story about a fox and a crow.' }];
  await client.chat.completions.create({ model: 'default', messages, max_tokens: 60 });
}

/** A small model with as many tokens as large ones have, and with a chat template: rows, head and tokenizer are most of it. */
async function manyTokensPack(): Promise<string> {
  const [shape] = parseShapes(
    `name model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size max_position_embeddings
     many-tokens llama 512 2 8 4 64 1024 128256 2048`,
    'shapes.txt',
  );
  const target = join(await temporaryFolder(), 'pack');
  const { crc32c } = addon;
  await writeSyntheticPack({ shape: shape!, seed: 5, storedLayers: 2, target, fileSystem, crc32c });
  const template = Buffer.from("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}");
  writeFileSync(join(target, 'chat_template.jinja'), template);
  const path = join(target, 'manifest.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8'));
  const sha256 = createHash('sha256').update(template).digest('hex');
  manifest.files.push({ name: 'chat_template.jinja', bytes: template.byteLength, sha256 });
  writeFileSync(path, JSON.stringify(manifest));
  return target;
}

describe.skipIf(process.platform !== 'linux')('the budget holds', () => {
  test('in every phase, in a memory group of exactly that size where one can be made', {
    timeout: 90_000,
  }, async () => {
    const budget = ((await leastMemory()) + 4) * MIB;
    const group = makeMemoryGroup(`potluck-test-${process.pid}`, budget);
    if (group) onTestFinished(() => group.remove());
    const { child, apiUrl, linkPort } = await up(group, '--memory', `${budget / MIB}M`);
    await serving(apiUrl, 1);
    // Prompt, long generation, several at once, a chat.
    await generate(apiUrl, promptTokens(900), 8, []);
    const long = await generate(apiUrl, promptTokens(16), 400, []);
    expect(long.tokens).toHaveLength(400);
    await Promise.all([1, 2, 3, 4].map(salt => generate(apiUrl, promptTokens(40 + salt), 60, [])));
    await chat(apiUrl);
    // Another device joins: a plan of two, then of one again.
    const other = await up(null, '--model', 'none', '--peer', `127.0.0.1:${linkPort}`);
    await serving(apiUrl, 2);
    await generate(apiUrl, promptTokens(300), 40, []);
    other.child.kill('SIGKILL');
    await serving(apiUrl, 1);
    expect(await generate(apiUrl, promptTokens(16), 400, [])).toEqual(long);
    expect(child.signalCode).toBe(null);
    expect(group?.kills() ?? 0).toBe(0);
    expect(highWater(child.pid!)).toBeLessThanOrEqual(budget);
    const before = highWater(child.pid!);
    const { devices } = await fetchStatus(apiUrl);
    const { account, budgetBytes, highWaterBytes } = devices[0]!.memory!;
    expect(Object.values(account).reduce((sum, bytes) => sum + bytes, 0)).toBeLessThanOrEqual(budgetBytes!);
    expect(highWaterBytes).toBeGreaterThanOrEqual(before);
    expect(highWaterBytes).toBeLessThanOrEqual(highWater(child.pid!));
  });

  test('with a vocabulary of 128k tokens near the least that is possible, chats included, and answers are right', {
    timeout: 90_000,
  }, async () => {
    const model = ['--model', await manyTokensPack()];
    const budget = ((await leastMemory(...model)) + 2) * MIB;
    const group = makeMemoryGroup(`potluck-many-${process.pid}`, budget);
    if (group) onTestFinished(() => group.remove());
    const { child, apiUrl } = await up(group, ...model, '--memory', `${budget / MIB}M`);
    const free = await up(null, ...model);
    const prompts = [promptTokens(900), promptTokens(300).reverse()];
    const answers: (readonly number[])[][] = [];
    for (const url of [apiUrl, free.apiUrl]) {
      await serving(url, 1);
      const long = await generate(url, prompts[0]!, 200, []);
      await Promise.all([chat(url), chat(url)]);
      const together = await Promise.all(prompts.map(prompt => generate(url, prompt, 40, [])));
      await chat(url);
      answers.push([long, ...together].map(({ tokens }) => tokens));
    }
    expect(answers[0]).toEqual(answers[1]);
    expect(new Set(answers[0]!.flat()).size).toBeGreaterThan(50);
    const { devices } = await fetchStatus(apiUrl);
    expect(devices[0]!.window!.streamedBytesPerPass).toBeGreaterThan(0);
    expect(child.signalCode).toBe(null);
    expect(group?.kills() ?? 0).toBe(0);
    expect(highWater(child.pid!)).toBeLessThanOrEqual(budget);
  });

  test('of every emulated device, each its own', { timeout: 60_000 }, async () => {
    const memory = ((await leastMemory()) + 8) * MIB;
    await emulated({ devices: 2, memory }, async emulation => {
      await generate(await emulation.hubUrl(), promptTokens(300), 120, []);
      for (const [i, { pid }] of emulation.devices.entries()) {
        const { devices, device } = await emulation.status(i);
        const own = devices.find(({ id }) => id === device.id)!.memory!;
        expect(own.budgetBytes).toBe(memory);
        expect(highWater(pid)).toBeLessThanOrEqual(memory);
        expect(own.residentBytes).toBeLessThanOrEqual(own.highWaterBytes);
      }
    });
  });
});
