// A small checkpoint packed by the build of this clone, for scripts that tests run as processes of their own.
import * as fs from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createNativeBackend } from '../../../build/js/kernels/native-backend.js';
import { buildPack } from '../../../build/js/model/build-pack.js';

/** ids: the calibration's token ids, as JSON; options: further ones of buildPack. */
export function buildSmall(checkpoint, target, ids, options) {
  const addon = createRequire(import.meta.url)('../../../build/potluck.node');
  return buildPack({
    checkpoint,
    target,
    name: 'small',
    weights: 'w4',
    fileSystem: fs,
    crc32c: (bytes, before) => addon.crc32c(bytes, before),
    backend: createNativeBackend(addon, { threads: 1 }),
    rounding: addon,
    calibrationTokens: JSON.parse(ids),
    ...options,
  });
}
