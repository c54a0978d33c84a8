import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Bonjour } from 'bonjour-service';
import type { FoundDevice } from '../../discovery/discovery.ts';
import { MdnsDiscovery } from '../../discovery/mdns-discovery.ts';
import type { MdnsBonjour } from '../../discovery/mdns-interface.ts';

/** The devices that advertise themselves, this machine's own among them. Listens only: nobody hears of the doctor. */
export async function hearDevices(
  milliseconds: number,
): Promise<{ readonly devices: readonly FoundDevice[]; readonly note: string | null }> {
  const found = new Map<string, FoundDevice>();
  const discovery = new MdnsDiscovery({
    // Its types know only service settings; these go to the multicast socket.
    bonjour: (options, failed) => withoutPublishing(new Bonjour(options as object, failed)),
    networkInterfaces,
    timers: {
      now: () => performance.now(),
      setTimeout: (call, wait) => setTimeout(call, wait),
      clearTimeout: timer => clearTimeout(timer as NodeJS.Timeout),
    },
    loopback: true,
  });
  discovery.onFound(device => found.set(device.id, device));
  discovery.start({ id: '0', name: 'doctor', cluster: 'doctor', linkPort: 1, version: '0' });
  await sleep(milliseconds);
  const note = discovery.note();
  await discovery.stop();
  return { devices: [...found.values()], note };
}

function withoutPublishing(bonjour: Bonjour): MdnsBonjour {
  return {
    publish: () => undefined,
    find: (what, onUp) => bonjour.find(what, onUp),
    unpublishAll: done => done(),
    destroy: done => bonjour.destroy(done),
    // Discovery listens for errors of the socket in there.
    server: Reflect.get(bonjour, 'server'),
  } as MdnsBonjour;
}
