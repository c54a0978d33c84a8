import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { buildProgram, runCommandLine } from '../../src/cli/program.ts';
import { version } from '../../src/daemon/version.ts';

async function output(...args: string[]): Promise<string> {
  let text = '';
  expect(await runCommandLine(args, part => (text += part))).toBe(0);
  return text;
}

const failure = (...args: string[]): Promise<unknown> =>
  runCommandLine(args, () => undefined).then(
    code => `exit code ${code}`,
    (error: unknown) => error,
  );

test('help names every command and the first steps', async () => {
  for (const text of [await output(), await output('--help'), await output('help')]) {
    for (const command of ['up', 'chat', 'status', 'emulate', 'pack', 'eval', 'bench', 'doctor']) {
      expect(text).toMatch(new RegExp(`^  ${command}\\b`, 'm'));
    }
    expect(text).toContain('npm start');
  }
});

test('the version', async () => expect(await output('--version')).toBe(`${version}\n`));

test('every command and every option says what it is for', async () => {
  const commands: Command[] = [buildProgram(() => undefined)];
  for (const command of commands) {
    commands.push(...command.commands);
    expect(command.description(), command.name()).not.toBe('');
    for (const option of command.options) expect(option.description, option.flags).not.toBe('');
    for (const argument of command.registeredArguments)
      expect(argument.description, argument.name()).not.toBe('');
  }
  expect(commands.length).toBeGreaterThan(11);
});

test('the option for child processes is not in the help', async () => {
  expect(await output('up', '--help')).not.toContain('--child');
});

test.each([
  [['bake'], /unknown command 'bake'/],
  [['up', '--bake'], /unknown option '--bake'/],
  [['up', '--memory'], /argument missing/],
  [['up', '--memory', 'much'], /^--memory "much" .*256M/],
  [['up', '--threads', '0'], /^--threads "0" .* 1 to 256$/],
  [['up', '--threads', '257'], /^--threads "257" .* 1 to 256$/],
  [['up', '--backend', 'gpu'], /auto or native or onnxruntime/],
  [['up', '--port', '11500', '--link-port', '11500'], /both 11500/],
  [['up', '--port', '0'], /--data/],
  [['up', 'extra'], /too many arguments/],
  [['status', '--url', 'kitchen'], /^--url "kitchen"/],
  [['emulate', '--devices', '0'], /^--devices "0"/],
  [['emulate', '--devices', '3', '--shares', '1,2'], /2 numbers for 3 devices/],
  [['emulate', '--port', '65535'], /leaves no room/],
  [['emulate', '--link-rate', '100'], /100mbit/],
  [['pack'], /missing required argument/],
  [['pack', 'x', '--weights', 'int8'], /w4 or bf16/],
  [['eval'], /needs a further word/],
  [['eval', 'bits', '--devices', '1,x'], /^--devices "x"/],
  [['bench', 'cluster', '--tokens', '0'], /^--tokens "0"/],
  [['chat', '--temperature', 'hot'], /^--temperature "hot" .* 0 to 2$/],
  [['chat', '--temperature', '2.1'], /^--temperature "2.1" .* 0 to 2$/],
  [['help', 'bake'], /^unknown command 'bake'/],
])('potluck %j is refused', async (args, message) => {
  const error = await failure(...args);
  expect(error).toMatchObject({ code: 'BAD_OPTION', message: expect.stringMatching(message) });
});

test('a daemon that is not there is said to be so', async () => {
  // Port 1 belongs to a service that hardly any machine runs.
  expect(await failure('status', '--port', '1')).toMatchObject({
    code: 'NOT_RUNNING',
    message: expect.stringContaining('http://127.0.0.1:1'),
  });
});
