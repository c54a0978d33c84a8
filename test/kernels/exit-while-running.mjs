// A process, or workers, that end in the middle of a job; run by addon-lifetime.test.ts with the addon's path and a mode.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread, Worker } from 'node:worker_threads';

const [path, mode] = process.argv.slice(2);
const addon = createRequire(import.meta.url)(path);

/** One FFN half layer of 256 tokens on the slowest kernel: some tenths of a second. */
function startJob() {
  // As shapeNumbers writes them.
  const sizes = [0, 512, 4, 8, 4, 64, 1536, 8192, 2048, 1e-5, 1, 384, 1024, 0, 16];
  const features = [1, 0, 0, 0, 0, 0, 0, 0, 0.125, 0, 0, 1, 0, 0, 0, 0, 0];
  const limits = [0, 16, 256, 8];
  const rotations = [1, 32, 1];
  const layers = Array.from({ length: 4 }, () => [0, 0, 0]).flat();
  const numbers = Float64Array.from([...sizes, ...features, ...limits, ...rotations, ...layers]);
  const constants = new Float32Array((4 * 4 + 1) * 512 + (4 * 2 + 1) * 4).fill(1);
  const pool = addon.createPool(2, 'reference');
  const weights = addon.allocate(8 << 20);
  const { model } = addon.createModel(pool, numbers, constants.buffer, weights);
  const positions = Int32Array.from({ length: 256 }, (_, i) => i % 16);
  const sequences = Int32Array.from({ length: 256 }, (_, i) => i >> 4);
  const pages = Int32Array.from({ length: 16 }, (_, i) => i);
  const starts = Int32Array.from({ length: 17 }, (_, i) => i);
  addon.setBatch(
    model,
    positions,
    sequences,
    pages,
    starts,
    new Int32Array(0),
    new Int32Array(256),
    new Float64Array(32),
  );
  return addon.run(model, Float64Array.of(0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 2, 0, 1, 0), true);
}

if (!isMainThread) {
  startJob();
  if (mode === 'worker-exits') process.exit(0);
} else if (mode === 'process-exits') {
  startJob();
  setTimeout(() => process.exit(0), 5);
} else if (mode === 'job-ends') {
  await startJob();
} else {
  const worker = new Worker(fileURLToPath(import.meta.url), { argv: [path, mode] });
  if (mode === 'worker-terminated') worker.once('online', () => setTimeout(() => worker.terminate(), 20));
  await new Promise(resolve => {
    worker.once('exit', resolve);
  });
}
