import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { DaemonStatus } from '../../daemon/status.ts';
import { version } from '../../daemon/version.ts';
import { PotluckError } from '../../errors/errors.ts';
import { fetchStatus } from '../api-client.ts';
import {
  type Interface,
  judgeClock,
  judgeDaemon,
  judgeFirewall,
  judgeHeard,
  judgeInterfaces,
  judgeLinkPort,
  judgeNotes,
  judgeProbe,
} from './checks.ts';
import { type Finding, warn } from './finding.ts';
import { probeInterface } from './mdns-probe.ts';
import { hearDevices } from './silent-discovery.ts';

const LISTEN_MILLISECONDS = 3000;
const CONNECT_MILLISECONDS = 2000;
const TOOL_MILLISECONDS = 2000;

/** `potluck doctor`: looks at everything that keeps devices from finding each other; calls `onFinding` as it goes. */
export async function diagnose(
  url: string,
  linkPort: number | null,
  onFinding: (finding: Finding) => void,
): Promise<void> {
  const interfaces = ipv4Interfaces();
  const outside = interfaces.filter(each => !each.internal);
  onFinding(judgeClock(new Date()));
  onFinding(judgeInterfaces(interfaces));
  const status = await statusOrNull(url);
  onFinding(judgeDaemon(url, status));
  for (const finding of judgeNotes(status)) onFinding(finding);

  const own = new Set(interfaces.map(each => each.address));
  const probed = outside.length === 0 ? interfaces : outside;
  const probes = await Promise.all(
    probed.map(each => probeInterface(each.address, own, LISTEN_MILLISECONDS)),
  );
  for (const probe of probes) onFinding(judgeProbe(probe));

  const { devices, note } = await hearDevices(LISTEN_MILLISECONDS);
  if (note !== null) onFinding(warn(note.replace(/\.$/, ''), ''));
  const self = {
    id: status?.device.id ?? '',
    cluster: status?.cluster ?? 'home',
    version: status?.version ?? version,
  };
  const reachable = new Map<string, string | null>();
  for (const { host, port } of devices) reachable.set(`${host}:${port}`, await connectProblem(host, port));
  for (const finding of judgeHeard(devices, self, reachable)) onFinding(finding);

  const port = linkPort ?? devices.find(each => each.id === self.id)?.port ?? Number(new URL(url).port) + 1;
  if (status !== null) {
    for (const { address } of outside) {
      onFinding(judgeLinkPort(address, port, await connectProblem(address, port)));
    }
  }
  onFinding(judgeFirewall(await activeFirewalls(), String(port)));
}

function ipv4Interfaces(): Interface[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    (addresses ?? [])
      .filter(each => each.family === 'IPv4')
      .map(({ address, internal }) => ({ name, address, internal })),
  );
}

async function statusOrNull(url: string): Promise<DaemonStatus | null> {
  try {
    return await fetchStatus(url);
  } catch (error) {
    if (error instanceof PotluckError && error.code === 'NOT_RUNNING') return null;
    throw error;
  }
}

/** Why a TCP connection cannot be made; null where it can. */
function connectProblem(host: string, port: number): Promise<string | null> {
  return new Promise(resolve => {
    const socket = connect({ host, port });
    const end = (problem: string | null): void => {
      socket.destroy();
      resolve(problem);
    };
    socket.setTimeout(CONNECT_MILLISECONDS, () => end('no answer'));
    socket.once('connect', () => end(null));
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
  });
}

/** Firewalls that say of themselves that they are on. Some of them answer root only; those stay unrecognised. */
async function activeFirewalls(): Promise<string[]> {
  const tools: { name: string; args: string[]; active: RegExp }[] = [
    { name: 'ufw', args: ['status'], active: /Status: active/ },
    { name: 'firewall-cmd', args: ['--state'], active: /^running/ },
    {
      name: '/usr/libexec/ApplicationFirewall/socketfilterfw',
      args: ['--getglobalstate'],
      active: /enabled/,
    },
  ];
  const outputs = await Promise.all(tools.map(({ name, args }) => outputOf(name, args)));
  return tools.filter(({ active }, i) => active.test(outputs[i]!)).map(({ name }) => name.split('/').at(-1)!);
}

/** What a program prints; '' where it is absent or fails. */
function outputOf(name: string, args: string[]): Promise<string> {
  return new Promise(resolve => {
    execFile(name, args, { timeout: TOOL_MILLISECONDS }, (error, stdout) =>
      resolve(error === null ? stdout : ''),
    );
  });
}
