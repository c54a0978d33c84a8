import { describe, expect, it } from 'vitest';
import { interfaceAddresses, MAX_INTERFACES } from '../../src/discovery/interface-addresses.ts';

const v4 = (address: string, internal = false) => ({ address, family: 'IPv4', internal });
const v6 = { address: 'fe80::1', family: 'IPv6', internal: false };
const lo = [v4('127.0.0.1', true)];

describe('interfaceAddresses', () => {
  it('takes the first IPv4 address of each interface', () => {
    const interfaces = {
      lo,
      eth0: [v6, v4('10.0.0.2'), v4('10.0.0.3')],
      wlan0: [v4('192.168.1.5')],
      tun: [v6],
    };
    expect(interfaceAddresses(interfaces, false)).toEqual(['10.0.0.2', '192.168.1.5']);
    expect(interfaceAddresses(interfaces, true)).toEqual(['10.0.0.2', '192.168.1.5', '127.0.0.1']);
  });

  it('takes loopback where there is nothing else', () => {
    expect(interfaceAddresses({ lo, tun: [v6] }, false)).toEqual(['127.0.0.1']);
    expect(interfaceAddresses({}, true)).toEqual([]);
  });

  it('is bounded', () => {
    const many = Object.fromEntries(Array.from({ length: 99 }, (_, i) => [`veth${i}`, [v4(`10.0.0.${i}`)]]));
    expect(interfaceAddresses(many, true)).toHaveLength(MAX_INTERFACES);
  });
});
