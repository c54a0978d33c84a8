import { EventEmitter } from 'node:events';
import { describe, expect, it } from 'vitest';
import type { FoundDevice } from '../../src/discovery/discovery.ts';
import { MdnsDiscovery } from '../../src/discovery/mdns-discovery.ts';
import { foundDevice, type MdnsBonjour, type MdnsService } from '../../src/discovery/mdns-interface.ts';
import { ManualTimers } from '../cluster/manual-timers.ts';

/** A bonjour-service that sends nothing. */
class FakeBonjour {
  readonly server = { mdns: new EventEmitter() };
  published: Parameters<MdnsBonjour['publish']>[0][] = [];
  browsers: { up: (service: MdnsService) => void; stopped: boolean }[] = [];
  destroyed = false;

  publish(service: Parameters<MdnsBonjour['publish']>[0]): void {
    this.published.push(service);
  }

  find(_: { type: string }, up: (service: MdnsService) => void): { stop(): void } {
    const browser = { up, stopped: false };
    this.browsers.push(browser);
    return {
      stop: () => {
        browser.stopped = true;
      },
    };
  }

  unpublishAll(done: () => void): void {
    done();
  }

  destroy(done: () => void): void {
    this.destroyed = true;
    done();
  }
}

function setUp(addresses: string[]) {
  const timers = new ManualTimers();
  const made: { address: string; fake: FakeBonjour }[] = [];
  const found: FoundDevice[] = [];
  const discovery = new MdnsDiscovery({
    bonjour: options => {
      expect(options.bind).toBe('0.0.0.0');
      const fake = new FakeBonjour();
      made.push({ address: options.interface, fake });
      return fake;
    },
    networkInterfaces: () => ({
      ...Object.fromEntries(
        addresses.map((address, i) => [`eth${i}`, [{ address, family: 'IPv4', internal: false }]]),
      ),
    }),
    timers,
    loopback: false,
  });
  discovery.onFound(f => found.push(f));
  const start = (): void =>
    discovery.start({ id: 'ab', name: 'a.b', cluster: 'home', linkPort: 4001, version: '1' });
  return { timers, made, found, discovery, addresses, start };
}

const service = (
  change: Partial<Record<string, unknown>> = {},
  txt: Record<string, unknown> = {},
): MdnsService => ({
  port: 4002,
  txt: { id: 'cd', cluster: 'home', version: '1', ...txt },
  referer: { address: '10.0.0.7' },
  ...change,
});

describe('MdnsDiscovery', () => {
  it('advertises under a name of its own on every interface, without probing', () => {
    const { made, start } = setUp(['10.0.0.1', '10.1.0.1']);
    start();
    expect(made.map(m => m.address)).toEqual(['10.0.0.1', '10.1.0.1']);
    expect(made[0]!.fake.published).toMatchObject([
      { name: 'potluck-ab', host: 'ab.local', probe: false, port: 4001, txt: { id: 'ab', cluster: 'home' } },
    ]);
  });

  it('reports others by the address that the packet came from, and never itself', () => {
    const { made, found, start } = setUp(['10.0.0.1']);
    start();
    const { up } = made[0]!.fake.browsers[0]!;
    up(service());
    up(service({}, { id: 'ab' }));
    expect(found).toEqual([{ id: 'cd', host: '10.0.0.7', port: 4002, cluster: 'home', version: '1' }]);
  });

  it('passes over services that are not valid', () => {
    for (const bad of [
      service({ txt: undefined }),
      service({ referer: undefined }),
      service({ port: 0 }),
      service({ port: 70_000 }),
      service({}, { id: 'not hex' }),
      service({}, { id: 'a'.repeat(33) }),
      service({}, { cluster: 'c'.repeat(65) }),
      service({}, { version: undefined }),
    ]) {
      expect(foundDevice(bad), JSON.stringify(bad)).toBeNull();
    }
    expect(foundDevice(service())).not.toBeNull();
  });

  it('asks anew with a new browser, follows interfaces, and closes those that are gone', async () => {
    const { made, addresses, timers, discovery, start } = setUp(['10.0.0.1']);
    start();
    timers.advance(250);
    expect(made[0]!.fake.browsers.map(b => b.stopped)).toEqual([true, false]);
    addresses.push('10.1.0.1');
    timers.advance(20_000);
    expect(made.map(m => m.address)).toEqual(['10.0.0.1', '10.1.0.1']);
    addresses.shift();
    timers.advance(20_000);
    expect(made.map(m => m.fake.browsers.some(b => !b.stopped))).toEqual([false, true]);
    await discovery.stop();
    expect(made.map(m => m.fake.destroyed)).toEqual([true, true]);
    expect(timers.pending).toBe(0);
  });

  it('catches the error of the inner socket, says why, and tries again', () => {
    const { made, timers, discovery, start } = setUp(['10.0.0.1']);
    start();
    expect(discovery.note()).toBeNull();
    made[0]!.fake.server.mdns.emit('error', new Error('bind EADDRINUSE 0.0.0.0:5353'));
    expect(discovery.note()).toMatch(/EADDRINUSE.*--peer/);
    timers.advance(250);
    expect(made).toHaveLength(2);
  });

  it('says when there is no interface', () => {
    const { discovery, start } = setUp([]);
    start();
    expect(discovery.note()).toMatch(/no IPv4 interface/);
  });
});
