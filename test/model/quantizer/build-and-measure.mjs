// Builds a pack and says, as JSON, how many bytes of buffers were alive when each layer began. With --expose-gc. Arguments: checkpoint,
// target, token ids.
import * as fs from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createNativeBackend } from '../../../build/js/kernels/native-backend.js';
import { buildPack } from '../../../build/js/model/build-pack.js';

const [checkpoint, target, ids] = process.argv.slice(2);
const addon = createRequire(import.meta.url)('../../../build/potluck.node');
const alive = [];
await buildPack({
  checkpoint,
  target,
  name: 'small',
  weights: 'w4',
  fileSystem: fs,
  crc32c: (bytes, before) => addon.crc32c(bytes, before),
  backend: createNativeBackend(addon, { threads: 1 }),
  rounding: addon,
  calibrationTokens: JSON.parse(ids),
  onProgress({ layer }) {
    if (layer < alive.length) return;
    globalThis.gc();
    alive.push(process.memoryUsage().external);
  },
});
process.stdout.write(JSON.stringify(alive));
process.exit(0);
