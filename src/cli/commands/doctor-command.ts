import type { Command } from 'commander';
import { setExitCode } from '../exit-code.ts';
import { parsePort } from '../option-values.ts';
import { type AddressFlags, daemonUrl, withAddress } from './daemon-address.ts';

export function addDoctorCommand(program: Command): void {
  withAddress(program.command('doctor'))
    .summary('why devices do not find each other')
    .description(
      'Checks the network of this device: addresses, multicast, firewall, and what other devices say of themselves.\n' +
        'Run it on each device. Ends with exit code 1 where something fails.',
    )
    .option(
      '--link-port <port>',
      'port that other devices connect to (default: what the daemon advertises)',
      text => parsePort('--link-port', text),
    )
    .action(async (flags: AddressFlags & { readonly linkPort?: number }) => {
      const { diagnose } = await import('../doctor/diagnose.ts');
      const { findingText } = await import('../doctor/finding.ts');
      await diagnose(daemonUrl(flags), flags.linkPort ?? null, finding => {
        process.stdout.write(`${findingText(finding)}\n`);
        if (finding.level === 'fail') setExitCode(1);
      });
    });
}
