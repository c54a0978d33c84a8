import type { Command } from 'commander';
import { fetchStatus } from '../api-client.ts';
import { statusText } from '../status-text.ts';
import { type AddressFlags, daemonUrl, withAddress } from './daemon-address.ts';

export function addStatusCommand(program: Command): void {
  withAddress(program.command('status'))
    .summary('which device does what')
    .description('Shows the devices of the cluster, their parts of the model, memory and speed.')
    .option('--json', 'the same as JSON')
    .action(async (flags: AddressFlags & { readonly json?: true }) => {
      const status = await fetchStatus(daemonUrl(flags));
      process.stdout.write(`${flags.json ? JSON.stringify(status, null, 2) : statusText(status)}\n`);
    });
}
