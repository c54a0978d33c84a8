import { printError } from './print-error.ts';
import { runCommandLine } from './program.ts';

try {
  process.exitCode = await runCommandLine(process.argv.slice(2));
} catch (error) {
  printError(error);
  process.exitCode = 1;
}
