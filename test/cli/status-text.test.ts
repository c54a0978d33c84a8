import { expect, test } from 'vitest';
import { DeviceWatch } from '../../src/cli/device-watch.ts';
import { statusText } from '../../src/cli/status-text.ts';
import { formatBytes, formatMicroseconds, textTable } from '../../src/cli/text-table.ts';
import { device, status } from './status-samples.ts';

test('a status says how often guesses were right, once there were any', () => {
  const counts = {
    active: 1,
    waiting: 0,
    tokensPerSecond: 20.5,
    promptTokens: 8,
    generatedTokens: 90,
    passes: 40,
  };
  const text = (draftedTokens: number) =>
    statusText(status({ engine: { ...counts, draftedTokens, acceptedTokens: 50 } }));
  expect(text(80)).toContain(
    '8 prompt tokens, 90 generated, 40 passes\nDrafts: 50 of 80 guessed tokens were right',
  );
  expect(text(0)).not.toContain('Drafts');
});

test('a status says who does what', () => {
  const memory = { budgetBytes: 256 << 20, account: {}, residentBytes: 80 << 20, highWaterBytes: 90 << 20 };
  const window = {
    pinnedBytes: 6 << 20,
    ringBytes: 1 << 20,
    streamedBytesPerPass: 0,
    streamedBytes: 0,
    reads: 0,
    waitMicroseconds: 0,
    ...{
      computeMicroseconds: 0,
      how: 'O_DIRECT',
      readBytes: 0,
      readCpuMicroseconds: 0,
      retries: 0,
      recovered: 0,
    },
  };
  const text = statusText(
    status({
      devices: [
        device({ memory, window }),
        device({ id: 'b', name: 'two', role: 'spoke', exact: false, link: { roundTripMicroseconds: 1234 } }),
      ],
      notes: ['onnxruntime computes.'],
      allreduce: {
        count: 3,
        p50Microseconds: 80,
        p99Microseconds: 900,
        bytesSent: 1,
        bytesReceived: 1,
        bytesPerToken: 4096,
      },
      saturated: 2,
    }),
  );
  expect(text).toContain('serving (plan 1)');
  expect(text).toContain('small (w4)');
  expect(text).toMatch(
    /one \*\s+hub\s+reference\s+2\s+10\s+10\.0 MiB\s+4\.0 MiB a pass\s+80\.0 MiB of 256 MiB/,
  );
  expect(text).toMatch(/two\s+spoke\s+reference \(not exact\).*1\.23 ms/);
  expect(text).toContain('Note: onnxruntime computes.');
  expect(text).toContain('median 80 us, 99 % within 900 us, 4.0 KiB a token');
  expect(text).toContain('2 tile outputs did not fit');
});

test('a status on the way says how far it is', () => {
  const progress = { bytes: 5 << 20, total: 10 << 20 };
  const text = statusText(
    status({ state: 'preparing', hub: null, model: null, devices: [device({ progress })] }),
  );
  expect(text).toContain('preparing: 5.0 MiB of 10.0 MiB on their way');
  expect(text).toMatch(/Model\s+none yet/);
});

test('devices that come and go are reported once', () => {
  const watch = new DeviceWatch();
  const alone = status({ devices: [device({ role: 'alone' })], notes: ['Be careful.'] });
  expect(watch.see(alone)).toEqual(['Serving small (w4) on 1 device.', 'Note: Be careful.']);
  expect(watch.see(alone)).toEqual([]);
  const joined = [device({}), device({ id: 'b', name: 'two', role: 'waiting' })];
  expect(watch.see(status({ devices: joined }))).toEqual(['+ two joined (2 devices)']);
  // Waiting between two plans is no news, as long as it is short.
  expect(watch.see(status({ state: 'waiting' }))).toEqual([]);
  expect(watch.see(status({}))).toEqual(['Serving small (w4) on 2 devices.']);
  expect(watch.see(status({ state: 'waiting' }))).toEqual([]);
  expect(watch.see(status({ state: 'waiting' }))).toEqual([expect.stringMatching(/^Waiting for a device/)]);
  expect(watch.see(status({}))).toEqual(['Serving small (w4) on 2 devices.']);
  expect(watch.see(status({ state: 'preparing', devices: [device({})] }))).toEqual([
    '- two left (1 device)',
    'Preparing small (w4): devices get their tiles.',
  ]);
});

test('numbers for people', () => {
  expect([0, 1023, 1536, 300 << 20, 5 * 2 ** 40].map(formatBytes)).toEqual([
    '0 B',
    '1023 B',
    '1.5 KiB',
    '300 MiB',
    '5.0 TiB',
  ]);
  expect([12.4, 1234, 2_500_000].map(formatMicroseconds)).toEqual(['12 us', '1.23 ms', '2.50 s']);
});

test('columns line up', () => {
  expect(
    textTable([
      ['name', 'n'],
      ['a', '1'],
      ['long', '100'],
    ]),
  ).toEqual(['name    n', 'a       1', 'long  100']);
});

test('a status says how often experts were in memory', () => {
  const experts = {
    totalBytes: 8 << 20,
    heldBytes: 2 << 20,
    hits: 30,
    misses: 10,
    streamedBytes: 5 << 20,
  };
  const text = statusText(status({ devices: [device({ experts })] }));
  expect(text).toContain('Experts on one: 75.0 % of 40 hit, 2.0 MiB of 8.0 MiB held, 5.0 MiB read');
});
