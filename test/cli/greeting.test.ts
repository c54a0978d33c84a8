import { expect, test } from 'vitest';
import { addressOption, greeting } from '../../src/cli/greeting.ts';
import type { DaemonOptions } from '../../src/daemon/options.ts';

const OPTIONS: DaemonOptions = {
  ...{ apiHost: '127.0.0.1', apiPort: 11500, linkPort: 11501, dataFolder: '/d', model: 'none' },
  ...{ modelsFolder: null, memory: null, threads: 2, share: null, name: 'desk', cluster: 'home', peers: [] },
  ...{ discovery: true, advertiseHost: null, advertisePort: null, maxTokens: null, drafts: true },
  ...{ backend: 'auto', kernel: null, windowBytes: null, diskBytes: null },
};
const daemon = { apiUrl: 'http://127.0.0.1:11500', linkPort: 11501 };
const line = (word: string, options: Partial<DaemonOptions>, ...addresses: string[]): string | undefined =>
  greeting(daemon, { ...OPTIONS, ...options }, addresses)
    .split('\n')
    .find(each => each.startsWith(word));

test('commands are told where the API is, where they would not look by themselves', () => {
  expect(addressOption('http://127.0.0.1:11500')).toBe('');
  expect(addressOption('http://127.0.0.1:11510')).toBe(' --port 11510');
  expect(addressOption('http://127.0.0.1:80')).toBe(' --port 80');
  expect(addressOption('http://192.0.2.2:11830')).toBe(' --url http://192.0.2.2:11830');
  expect(addressOption('http://[::1]:11500')).toBe(' --url http://[::1]:11500');
});

test('other devices are told an address of this one, and that nobody looks for them where that is so', () => {
  expect(line('Cluster', {}, '10.0.0.2')).toMatch(/join by themselves, or with --peer 10\.0\.0\.2:11501$/);
  expect(line('Cluster', { discovery: false }, '10.0.0.2')).toMatch(/home: other devices join with --peer/);
  expect(line('Cluster', {}, '10.0.0.2', '172.17.0.1')).toMatch(
    /--peer ADDRESS:11501 \(ADDRESS is 10\.0\.0\.2 or 172\.17\.0\.1\)$/,
  );
  expect(line('Cluster', {})).toMatch(/--peer ADDRESS:11501$/);
  expect(line('Cluster', { advertiseHost: 'a.example', advertisePort: 7 }, '10.0.0.2')).toMatch(
    /--peer a\.example:7$/,
  );
});

test('an API that lets other machines in says where', () => {
  expect(line('Others', {}, '10.0.0.2')).toBeUndefined();
  expect(line('Others', { apiHost: '0.0.0.0' }, '10.0.0.2')).toBe(
    'Others    chat --url http://10.0.0.2:11500',
  );
});
