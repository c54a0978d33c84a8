import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import { parsePort } from '../option-values.ts';
import { draftsOption } from './drafts-option.ts';
import { type EmulationFlags, emulationOptions, withDevices, withEmulation } from './emulation-flags.ts';

export function addEmulateCommand(program: Command): void {
  withEmulation(withDevices(program.command('emulate'), 2))
    .summary('several devices on this one machine')
    .description(
      'Starts several real daemons on this machine, each with a folder and a memory budget of its own, and slow links\n' +
        'between them where asked. The first has the model; the others get their parts from it.',
    )
    .option(
      '--port <port>',
      'API port of the first device, then every second one (default: free ones)',
      text => parsePort('--port', text),
    )
    .addOption(draftsOption())
    .action(async (flags: EmulationFlags & { readonly port?: number; readonly drafts: boolean }) => {
      const { port, devices, drafts } = flags;
      if (port !== undefined && (port < 1 || port + 2 * devices - 1 > 65535)) {
        throw new PotluckError(
          'BAD_OPTION',
          `--port ${port} leaves no room for the ports of ${devices} devices`,
        );
      }
      const { emulate } = await import('../emulate/emulate.ts');
      await emulate({ ...(await emulationOptions(flags)), drafts, ...(port === undefined ? {} : { port }) });
    });
}
