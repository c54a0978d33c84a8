import type { DaemonStatus } from '../../daemon/status.ts';
import { type Finding, fail, ok, warn } from './finding.ts';
import type { ProbeResult } from './mdns-probe.ts';

/** Judgements of what was measured; see diagnose.ts for the measuring. */

export interface Interface {
  readonly name: string;
  readonly address: string;
  readonly internal: boolean;
}

export function judgeInterfaces(interfaces: readonly Interface[]): Finding {
  const outside = interfaces.filter(each => !each.internal);
  const list = outside.map(each => `${each.name} ${each.address}`).join(', ');
  if (outside.length > 0) return ok(`IPv4 addresses: ${list}`);
  return fail(
    'This machine has no IPv4 address on a network',
    'Connect it to the network that the other devices are on.',
  );
}

export function judgeProbe({ address, problem, heardSelf, others, potluck }: ProbeResult): Finding {
  const byHand = 'Until then, name another device with --peer HOST:PORT';
  if (problem !== null) {
    const route = /ENETUNREACH|EHOSTUNREACH|ENODEV|EADDRNOTAVAIL/.test(problem)
      ? 'There is no multicast route: `ip route add 224.0.0.0/4 dev INTERFACE` (as root) adds one'
      : /EACCES|EPERM/.test(problem)
        ? 'A firewall on this machine refuses multicast: allow UDP port 5353'
        : 'Another program may hold UDP port 5353 for itself';
    return fail(`Multicast on ${address} does not work (${problem})`, `${route}. ${byHand}.`);
  }
  if (potluck.length > 0) return ok(`Multicast on ${address}: heard Potluck at ${potluck.join(', ')}`);
  if (others.length > 0) {
    return ok(
      `Multicast on ${address}: heard ${others.length} other machines, none of which spoke of Potluck`,
    );
  }
  if (!heardSelf) {
    return fail(
      `Multicast on ${address}: even this machine's own question was not heard`,
      `A firewall drops UDP port 5353: allow it (for example \`ufw allow 5353/udp\`). ${byHand}.`,
    );
  }
  return warn(
    `Multicast on ${address}: only this machine was heard`,
    `If other devices run: allow UDP 5353 in their firewalls, put all devices on one network (no guest Wi-Fi), and turn off "client isolation" in the router. ${byHand}.`,
  );
}

export function judgeDaemon(url: string, status: DaemonStatus | null): Finding {
  if (status === null)
    return warn(`No daemon answers at ${url}`, 'Start one with `npm start`, then run doctor again.');
  const others = status.devices.length - 1;
  if (others > 0)
    return ok(`The daemon at ${url} has ${others === 1 ? '1 other device' : `${others} other devices`}`);
  if (!status.discovery)
    return warn(
      `The daemon at ${url} runs alone, and does not look for others (--no-discovery)`,
      'Start it without --no-discovery, or name another device with --peer HOST:PORT.',
    );
  return warn(
    `The daemon at ${url} runs alone (cluster ${status.cluster}, version ${status.version})`,
    'Look at the lines below, and at the same command on the other devices.',
  );
}

/** Notes of the daemon itself: peers of another version or cluster, discovery that does not work. */
export const judgeNotes = (status: DaemonStatus | null): Finding[] =>
  (status?.notes ?? []).map(note => warn(`The daemon notes: ${note.replace(/\.$/, '')}`, ''));

export interface HeardDevice {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly cluster: string;
  readonly version: string;
}

/** One line for each other device that advertises itself. */
export function judgeHeard(
  heard: readonly HeardDevice[],
  own: { readonly id: string; readonly cluster: string; readonly version: string },
  reachable: ReadonlyMap<string, string | null>,
): Finding[] {
  return heard
    .filter(device => device.id !== own.id)
    .map(device => {
      const where = `Device ${device.id.slice(0, 8)} at ${device.host}:${device.port}`;
      if (device.cluster !== own.cluster) {
        return warn(
          `${where} is in cluster ${device.cluster}, not ${own.cluster}`,
          'Start both with the same --cluster.',
        );
      }
      if (device.version !== own.version) {
        return fail(
          `${where} runs version ${device.version}, not ${own.version}`,
          'Install the same version on both.',
        );
      }
      const problem = reachable.get(`${device.host}:${device.port}`) ?? null;
      if (problem === null) return ok(`${where} can be reached`);
      return fail(
        `${where} is heard, but cannot be reached (${problem})`,
        `Allow TCP port ${device.port} in its firewall.`,
      );
    });
}

/** `problem`: why a connection to the own link port, over a network address, failed; null where it did not. */
export function judgeLinkPort(address: string, port: number, problem: string | null): Finding {
  if (problem === null) return ok(`The link port ${port} answers on ${address}`);
  return fail(
    `The link port ${port} does not answer on ${address} (${problem})`,
    `Allow TCP port ${port} in this machine's firewall (for example \`ufw allow ${port}/tcp\`).`,
  );
}

/** A certificate or a log with a wrong date misleads; a clock before the first release is surely wrong. */
export function judgeClock(now: Date): Finding {
  if (now.getTime() >= Date.UTC(2025, 0, 1)) return ok(`The clock says ${now.toISOString()}`);
  return warn(`The clock says ${now.toISOString()}`, 'Set it, for example with `timedatectl set-ntp true`.');
}

/** `tools`: firewalls that were found active on this machine. */
export function judgeFirewall(tools: readonly string[], ports: string): Finding {
  if (tools.length === 0) return ok('No active firewall of this machine was recognised');
  return warn(`A firewall is active (${tools.join(', ')})`, `It must let UDP 5353 and TCP ${ports} in.`);
}
