import { expect, test } from 'vitest';
import { DevicePass, type DevicePassOptions } from '../../src/engine/device-pass.ts';
import type { RunStats } from '../../src/kernels/backend.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';

const SIZES = { layers: 1, width: 2, context: 32, vocabulary: 10, tiling: { headRows: 16 } };

/** A device of one layer without tiles whose kernels run until the test ends them; like the addon it cannot be closed meanwhile. */
function runningDevice() {
  const order: string[] = [];
  let end: (stats: RunStats) => void = () => undefined;
  let running = false;
  const model = {
    run: () => {
      running = true;
      return new Promise<RunStats>(resolve => {
        end = stats => {
          running = false;
          resolve(stats);
        };
      });
    },
    close: () => {
      if (running) throw new Error('the model runs a job');
      order.push('model closed');
    },
  };
  const device = new DevicePass({
    backend: { openModel: () => model },
    manifest: { shape: { ...plainFeatures(1, 2, [1]), ...SIZES } },
    tiles: { attention: [], ffn: [], expert: [], head: [], order: [] },
    window: { close: async () => void order.push('window closed') },
    experts: null,
  } as unknown as DevicePassOptions);
  return { device, order, end: () => end({ saturated: 0, computeMicroseconds: 1 }) };
}

test('closing waits for kernels that still run: only the hub ends its passes before it closes a plan', async () => {
  const { device, order, end } = runningDevice();
  const run = device.run([]).then(() => order.push('run ended'));
  const closed = device.close();
  await new Promise(setImmediate);
  expect(order).toEqual(['window closed']);
  end();
  await Promise.all([run, closed]);
  expect(order).toEqual(['window closed', 'run ended', 'model closed']);
});

test('no kernels run once it is closed', async () => {
  const { device, order } = runningDevice();
  await device.close();
  await expect(device.run([])).rejects.toMatchObject({ code: 'STOPPED' });
  expect(order).toEqual(['window closed', 'model closed']);
});
