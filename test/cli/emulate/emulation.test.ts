import { expect, onTestFinished, test } from 'vitest';
import { missingIn, startEmulation } from '../../../src/cli/emulate/emulation.ts';
import { builtInModel } from '../../../src/cli/project.ts';
import { device, status } from '../status-samples.ts';

const cluster = () => [
  status({ device: { id: 'a', name: 'one', role: 'hub' } }),
  status({ device: { id: 'b', name: 'two', role: 'spoke' } }),
];

test('devices that serve one plan of all of them are ready', () => {
  expect(missingIn(cluster())).toBeNull();
});

test('whatever is missing is named', () => {
  const [hub, spoke] = cluster();
  expect(missingIn([hub!, { ...spoke!, state: 'preparing' }])).toBe('two is preparing');
  expect(missingIn([hub!, { ...spoke!, epoch: 2 }])).toContain('plan 2');
  expect(missingIn([hub!])).toContain('2 of 1 devices');
  const waiting = [device({ id: 'a' }), device({ id: 'b', role: 'waiting' })];
  expect(missingIn([{ ...hub!, devices: waiting }, spoke!])).toContain('1 of 2 devices');
});

test('a device that cannot start ends the emulation at once, with its own error', async () => {
  const options = { devices: 2, model: builtInModel(), memory: 10 << 20 };
  await expect(startEmulation(options)).rejects.toMatchObject({
    code: 'MEMORY_TOO_SMALL',
    message: expect.stringMatching(/^Device device-1 ended: --memory 10 MiB/),
  });
});

test('many devices that start at once are no leak of listeners', async () => {
  const warnings: string[] = [];
  const remember = (warning: Error): void => void warnings.push(warning.name);
  process.on('warning', remember);
  onTestFinished(() => void process.off('warning', remember));
  // All but the first are refused, which is the fastest way for them to end.
  const shares = Array.from({ length: 14 }, (_, i) => (i === 0 ? 1 : 1e9));
  const options = { devices: shares.length, shares, model: builtInModel(), threads: 1 };
  await expect(startEmulation(options)).rejects.toMatchObject({ code: 'BAD_OPTION' });
  expect(warnings).toEqual([]);
});
