import { expect, test } from 'vitest';
import { missingIn } from '../../../src/cli/emulate/emulation.ts';
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
