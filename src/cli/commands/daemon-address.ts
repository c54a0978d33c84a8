import type { Command } from 'commander';
import { DEFAULT_API_PORT } from '../daemon-options.ts';
import { parsePort, parseUrl } from '../option-values.ts';

export interface AddressFlags {
  readonly url?: string;
  readonly port?: number;
}

/** Adds --url and --port: which daemon to talk to. */
export function withAddress(command: Command): Command {
  return command
    .option('--url <address>', 'API of the daemon (default: http://127.0.0.1:11500)', text =>
      parseUrl('--url', text),
    )
    .option('--port <port>', 'port of a daemon of this machine', text => parsePort('--port', text));
}

export const daemonUrl = ({ url, port }: AddressFlags): string =>
  url ?? `http://127.0.0.1:${port ?? DEFAULT_API_PORT}`;
