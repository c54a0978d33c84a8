import { expect, test } from 'vitest';
import {
  judgeDaemon,
  judgeHeard,
  judgeInterfaces,
  judgeLinkPort,
  judgeProbe,
} from '../../../src/cli/doctor/checks.ts';
import { findingText } from '../../../src/cli/doctor/finding.ts';
import { ptrQuery } from '../../../src/cli/doctor/mdns-probe.ts';
import { device, status } from '../status-samples.ts';

const probe = { address: '10.0.0.2', problem: null, heardSelf: true, others: [], potluck: [] };

test('multicast: refused, deaf, alone, with others', () => {
  expect(judgeProbe({ ...probe, problem: 'send ENETUNREACH 224.0.0.251:5353' })).toMatchObject({
    level: 'fail',
    advice: expect.stringContaining('multicast route'),
  });
  expect(judgeProbe({ ...probe, heardSelf: false })).toMatchObject({
    level: 'fail',
    advice: expect.stringContaining('5353'),
  });
  expect(judgeProbe(probe).level).toBe('warn');
  expect(judgeProbe({ ...probe, others: ['10.0.0.3'] }).level).toBe('ok');
  expect(judgeProbe({ ...probe, potluck: ['10.0.0.3'] }).text).toContain('10.0.0.3');
});

test('other devices: another cluster, another version, unreachable', () => {
  const own = { id: 'a', cluster: 'home', version: '1.0.0' };
  const heard = { id: 'b', host: '10.0.0.3', port: 11501, cluster: 'home', version: '1.0.0' };
  const levels = (reachable: [string, string | null][], ...devices: (typeof heard)[]) =>
    judgeHeard(devices, own, new Map(reachable)).map(each => each.level);
  expect(levels([['10.0.0.3:11501', null]], heard)).toEqual(['ok']);
  expect(levels([['10.0.0.3:11501', 'ECONNREFUSED']], heard)).toEqual(['fail']);
  expect(levels([], { ...heard, cluster: 'office' }, { ...heard, version: '2.0.0' })).toEqual([
    'warn',
    'fail',
  ]);
  expect(levels([], { ...heard, id: 'a' })).toEqual([]);
});

test('addresses, daemon, link port', () => {
  expect(judgeInterfaces([{ name: 'lo', address: '127.0.0.1', internal: true }]).level).toBe('fail');
  expect(judgeInterfaces([{ name: 'eth0', address: '10.0.0.2', internal: false }]).level).toBe('ok');
  expect(judgeDaemon('http://x', null).level).toBe('warn');
  expect(judgeDaemon('http://x', status({ devices: [device({})] })).level).toBe('warn');
  expect(judgeDaemon('http://x', status({})).level).toBe('ok');
  const silent = judgeDaemon('http://x', status({ devices: [device({})], discovery: false }));
  expect(silent.advice).toMatch(/without --no-discovery/);
  expect(findingText(judgeLinkPort('10.0.0.2', 11501, 'no answer'))).toMatch(
    /^fail {2}.*11501.*no answer.*ufw/,
  );
});

test('the query is what multicast DNS expects', () => {
  expect(ptrQuery(0x1234, '_potluck._tcp.local').toString('hex')).toBe(
    '123400000001000000000000085f706f746c75636b045f746370056c6f63616c00000c0001',
  );
});
