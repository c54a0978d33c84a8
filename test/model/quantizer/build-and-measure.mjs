// Builds a pack and says, as JSON, how many bytes of buffers were alive when each layer began. With --expose-gc. Arguments: checkpoint,
// target, token ids.
import { buildSmall } from './build-small.mjs';

const [checkpoint, target, ids] = process.argv.slice(2);
const alive = [];
await buildSmall(checkpoint, target, ids, {
  onProgress({ layer }) {
    if (layer < alive.length) return;
    globalThis.gc();
    alive.push(process.memoryUsage().external);
  },
});
process.stdout.write(JSON.stringify(alive));
process.exit(0);
