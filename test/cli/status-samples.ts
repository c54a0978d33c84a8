import type { DaemonStatus, DeviceStatus } from '../../src/daemon/status.ts';

/** A device of a status; what a test is about is given. */
export const device = (fields: Partial<DeviceStatus>): DeviceStatus => ({
  id: 'a',
  name: 'one',
  role: 'hub',
  host: '127.0.0.1',
  version: '0.1.0',
  threads: 2,
  kernel: 'reference',
  exact: true,
  share: 1,
  tiles: 10,
  tileBytes: 10 << 20,
  memory: null,
  window: null,
  experts: null,
  kvPages: 8,
  computeMicroseconds: 0,
  progress: null,
  link: null,
  ...fields,
});

/** A status of two devices that serve. */
export const status = (fields: Partial<DaemonStatus>): DaemonStatus => ({
  version: '0.1.0',
  cluster: 'home',
  discovery: true,
  state: 'serving',
  device: { id: 'a', name: 'one', role: 'hub' },
  hub: { id: 'a', name: 'one' },
  epoch: 1,
  model: { id: 'm', name: 'small', weights: 'w4' },
  models: [],
  api: { url: 'http://127.0.0.1:11500' },
  notes: [],
  devices: [device({}), device({ id: 'b', name: 'two', role: 'spoke' })],
  engine: null,
  allreduce: null,
  saturated: 0,
  ...fields,
});
