import { expect, test } from 'vitest';
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
