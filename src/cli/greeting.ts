import type { DaemonOptions, RunningDaemon } from '../daemon/options.ts';
import { DEFAULT_API_PORT } from './daemon-options.ts';
import { formatBytes } from './text-table.ts';

/** Addresses that are worth a line; a machine with many containers has more. */
const MOST_ADDRESSES = 4;

/** How a command of this machine is told where the API is; '' for where it looks by itself, else with a space before. */
export function addressOption(apiUrl: string): string {
  const { hostname, port } = new URL(apiUrl);
  if (hostname !== '127.0.0.1') return ` --url ${apiUrl}`;
  // A URL leaves out the port that is usual for it.
  const number = port === '' ? 80 : Number(port);
  return number === DEFAULT_API_PORT ? '' : ` --port ${number}`;
}

/** What `up` prints when the daemon runs. `addresses`: of this device, on its networks. */
export function greeting(
  { apiUrl, linkPort }: Pick<RunningDaemon, 'apiUrl' | 'linkPort'>,
  options: DaemonOptions,
  addresses: readonly string[],
): string {
  const memory =
    options.memory === null
      ? 'no limit'
      : options.memory === 'auto'
        ? 'automatic'
        : formatBytes(options.memory);
  const message = `'{"model":"default","messages":[{"role":"user","content":"Hello!"}]}'`;
  const joining = options.discovery ? 'other devices join by themselves, or' : 'other devices join';
  return [
    '',
    `Chat      npm run -s potluck -- chat${addressOption(apiUrl)}  (in a terminal)`,
    `or        curl ${apiUrl}/v1/chat/completions -H 'content-type: application/json' -d ${message}`,
    ...(options.apiHost === '0.0.0.0'
      ? [`Others    chat ${listed('--url http://', addresses, `:${new URL(apiUrl).port || 80}`)}`]
      : []),
    `Device    ${options.name}: ${options.threads} threads, memory: ${memory}`,
    `Model     ${options.model === 'none' ? 'from another device' : options.model}`,
    `Cluster   ${options.cluster}: ${joining} with ${peers(options, addresses, linkPort)}`,
    '',
    '',
  ].join('\n');
}

/** What other devices are told to connect to. */
function peers(
  { advertiseHost, advertisePort }: DaemonOptions,
  addresses: readonly string[],
  linkPort: number,
): string {
  return listed(
    '--peer ',
    advertiseHost === null ? addresses : [advertiseHost],
    `:${advertisePort ?? linkPort}`,
  );
}

/** An option with the address of this device in it; of several, any may be the one. */
function listed(before: string, addresses: readonly string[], after: string): string {
  if (addresses.length === 1) return `${before}${addresses[0]}${after}`;
  const all = addresses.slice(0, MOST_ADDRESSES).join(' or ');
  return `${before}ADDRESS${after}${all === '' ? '' : ` (ADDRESS is ${all})`}`;
}
