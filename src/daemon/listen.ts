import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PotluckError } from '../errors/errors.ts';

/** What the system says of a host that is not here, or that no name server knows. */
const NO_ADDRESS = new Set(['EADDRNOTAVAIL', 'ENOTFOUND', 'EAI_AGAIN']);

/** Listens; resolves to the port. Rejects with PORT_IN_USE, saying who holds it where that can be found. */
export async function listen(server: Server, port: number, host: string, option: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') void portInUse(port, option).then(reject);
      else if (error.code === 'EACCES')
        reject(new PotluckError('BAD_OPTION', `${host}:${port} cannot be listened on (${error.code}).`));
      else if (NO_ADDRESS.has(error.code ?? ''))
        reject(
          new PotluckError(
            'BAD_OPTION',
            `${host} is no address of this device (${error.code}). Choose another: --host ADDRESS`,
          ),
        );
      else reject(error);
    };
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      resolve();
    });
  });
  return (server.address() as AddressInfo).port;
}

async function portInUse(port: number, option: string): Promise<PotluckError> {
  const holder = (await potluckAt(port)) ?? holderFromProc(port);
  return new PotluckError(
    'PORT_IN_USE',
    `Port ${port} is taken${holder === null ? ' by another process' : ` by ${holder}`}. Choose another: ${option} PORT`,
  );
}

/** Asks whether a Potluck daemon answers there. */
async function potluckAt(port: number): Promise<string | null> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(500) });
    const body: unknown = await answer.json();
    const known = typeof body === 'object' && body !== null && 'status' in body && 'version' in body;
    return known ? 'another Potluck daemon (it may be yours: potluck status)' : null;
  } catch {
    // Whatever is there does not speak HTTP: the process table may know it.
    return null;
  }
}

/** Name and number of the process that listens on a TCP port, from /proc; null where it cannot be seen. */
function holderFromProc(port: number): string | null {
  try {
    const inodes = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap(table => listeners(table, port));
    if (inodes.length === 0) return null;
    const wanted = new Set(inodes.map(inode => `socket:[${inode}]`));
    for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
      if (holdsSocket(pid, wanted))
        return `${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()} (process ${pid})`;
    }
  } catch {
    // No /proc, or a process ended while it was looked at: then the name stays unknown.
  }
  return null;
}

function listeners(table: string, port: number): string[] {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return readFileSync(table, 'utf8')
    .split('\n')
    .map(line => line.trim().split(/\s+/))
    .filter(fields => fields[1]?.endsWith(`:${hex}`) && fields[3] === '0A')
    .map(fields => fields[9] ?? '');
}

function holdsSocket(pid: string, wanted: ReadonlySet<string>): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(fd => wanted.has(readlinkSync(`/proc/${pid}/fd/${fd}`)));
  } catch {
    // Another user's process.
    return false;
  }
}
