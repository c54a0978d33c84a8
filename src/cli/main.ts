import { watchOutput } from './lost-output.ts';
import { printError } from './print-error.ts';
import { runCommandLine } from './program.ts';

watchOutput(process.stdout, process.stderr, code => process.exit(code));
try {
  process.exitCode = await runCommandLine(process.argv.slice(2));
} catch (error) {
  printError(error);
  process.exitCode = 1;
}
