import { createSocket, type Socket } from 'node:dgram';

const GROUP = '224.0.0.251';
const PORT = 5353;
/** Most bytes of an mDNS message, RFC 6762. */
const MESSAGE_LIMIT = 9000;

/** What was heard on one interface. */
export interface ProbeResult {
  readonly address: string;
  /** Why nothing can be sent or heard; null where it could. */
  readonly problem: string | null;
  /** Own query came back: multicast works at least inside this machine. */
  readonly heardSelf: boolean;
  /** Addresses of other machines that were heard. */
  readonly others: readonly string[];
  /** Of those, the ones that spoke of Potluck. */
  readonly potluck: readonly string[];
}

/**
 * A query for the PTR records of a service, as multicast DNS sends it (RFC 1035, section 4): header of 12 bytes with
 * one question, name as length-prefixed labels, type PTR (12), class IN (1).
 */
export function ptrQuery(id: number, name: string): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(1, 4);
  const labels = name.split('.').map(label => {
    const bytes = Buffer.from(label);
    if (bytes.length === 0 || bytes.length > 63) throw new RangeError(`label ${JSON.stringify(label)}`);
    return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  });
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, 12, 0, 1])]);
}

/** Sends queries on the interface of `address` and listens for a while. Never rejects. */
export async function probeInterface(
  address: string,
  ownAddresses: ReadonlySet<string>,
  milliseconds: number,
): Promise<ProbeResult> {
  const id = 1 + Math.floor(Math.random() * 65_535);
  const others = new Set<string>();
  const potluck = new Set<string>();
  let heardSelf = false;
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  const problem = await new Promise<string | null>(resolve => {
    socket.on('error', error => resolve(error.message));
    socket.on('message', (message, from) => {
      if (message.length > MESSAGE_LIMIT) return;
      if (ownAddresses.has(from.address)) heardSelf ||= message.length >= 2 && message.readUInt16BE(0) === id;
      else others.add(from.address);
      if (!ownAddresses.has(from.address) && message.includes('_potluck')) potluck.add(from.address);
    });
    socket.bind({ port: PORT, address: '0.0.0.0' }, () => {
      const sent = join(socket, address, id, resolve);
      if (sent) setTimeout(resolve, milliseconds, null);
    });
  });
  await new Promise<void>(resolve => socket.close(() => resolve()));
  return { address, problem, heardSelf, others: [...others], potluck: [...potluck] };
}

/** Joins the group and asks for Potluck and for any service at all. False, and `failed` was told, where that is refused. */
function join(socket: Socket, address: string, id: number, failed: (problem: string) => void): boolean {
  try {
    socket.addMembership(GROUP, address);
    socket.setMulticastInterface(address);
    socket.setMulticastLoopback(true);
  } catch (error) {
    failed(error instanceof Error ? error.message : String(error));
    return false;
  }
  for (const name of ['_potluck._tcp.local', '_services._dns-sd._udp.local']) {
    socket.send(ptrQuery(id, name), PORT, GROUP, error => {
      if (error) failed(error.message);
    });
  }
  return true;
}
