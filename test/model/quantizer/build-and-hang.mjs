// Builds a pack and stops for good when it has written some tiles: to be killed. Arguments: checkpoint, target, tiles, token ids.
import { buildSmall } from './build-small.mjs';

const [checkpoint, target, tiles, ids] = process.argv.slice(2);
await buildSmall(checkpoint, target, ids, {
  activations: 'mixed',
  onProgress(progress) {
    if (progress.tiles < Number(tiles)) return;
    process.stdout.write('here\n');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
});
