import { Command, CommanderError } from 'commander';
import { version } from '../daemon/version.ts';
import { PotluckError } from '../errors/errors.ts';
import { addBenchCommand } from './commands/bench-command.ts';
import { addChatCommand } from './commands/chat-command.ts';
import { addDoctorCommand } from './commands/doctor-command.ts';
import { addEmulateCommand } from './commands/emulate-command.ts';
import { addEvalCommands } from './commands/eval-commands.ts';
import { addModelsCommand } from './commands/models-command.ts';
import { addPackCommand } from './commands/pack-command.ts';
import { addPullCommand } from './commands/pull-command.ts';
import { addStatusCommand } from './commands/status-command.ts';
import { addUpCommand } from './commands/up-command.ts';
import { exitCode } from './exit-code.ts';

/** Where help and the version go. */
export type Print = (text: string) => void;

/** The whole command line. Commands load what they need when they run, so that `potluck status` starts fast. */
export function buildProgram(print: Print): Command {
  const program = new Command('potluck')
    .description(
      'Several small devices at home share one language model and answer chats that none of them could hold alone.',
    )
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .exitOverride()
    .configureOutput({ writeOut: print, writeErr: () => undefined })
    .showSuggestionAfterError()
    .addHelpText('after', FIRST_STEPS);
  addUpCommand(program);
  addChatCommand(program);
  addStatusCommand(program);
  addDoctorCommand(program);
  addPullCommand(program);
  addModelsCommand(program);
  addPackCommand(program);
  addEmulateCommand(program);
  addEvalCommands(program);
  addBenchCommand(program);
  return program;
}

const FIRST_STEPS = `
First steps:
  npm start                                  on each device: start, find the others, share the model
  npm run -s potluck -- chat                 talk to it
  npm run -s potluck -- status               see which device does what
  npm run -s potluck -- doctor               when devices do not find each other
`;

/** Runs one command; resolves to the exit code. Rejects with a PotluckError. */
export async function runCommandLine(
  args: readonly string[],
  print: Print = text => void process.stdout.write(text),
): Promise<number> {
  const program = buildProgram(print);
  if (args.length === 0) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    if (error.code === 'commander.help' && args[0] === 'help')
      throw new PotluckError('BAD_OPTION', `unknown command '${args[1]}'; see \`potluck --help\``);
    // A command that only holds others (such as `eval`) was named alone: commander has printed its help.
    if (error.code === 'commander.help') throw new PotluckError('BAD_OPTION', missingCommand(args));
    throw new PotluckError('BAD_OPTION', `${error.message.replace(/^error: /, '')}; see \`potluck --help\``);
  }
  return exitCode();
}

const missingCommand = (args: readonly string[]): string =>
  `potluck ${args.join(' ')} needs a further word; see \`potluck ${args.join(' ')} --help\``;
