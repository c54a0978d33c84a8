// Builds a pack and stops for good when it has written some tiles: to be killed. Arguments: checkpoint, target, tiles, token ids.
import * as fs from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createNativeBackend } from '../../../build/js/kernels/native-backend.js';
import { buildPack } from '../../../build/js/model/build-pack.js';

const [checkpoint, target, tiles, ids] = process.argv.slice(2);
const addon = createRequire(import.meta.url)('../../../build/potluck.node');
await buildPack({
  checkpoint,
  target,
  name: 'small',
  weights: 'w4',
  activations: 'mixed',
  fileSystem: fs,
  crc32c: (bytes, before) => addon.crc32c(bytes, before),
  backend: createNativeBackend(addon, { threads: 1 }),
  rounding: addon,
  calibrationTokens: JSON.parse(ids),
  onProgress(progress) {
    if (progress.tiles < Number(tiles)) return;
    process.stdout.write('here\n');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
});
