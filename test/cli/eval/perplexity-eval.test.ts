import { expect, it } from 'vitest';
import { evalPerplexity } from '../../../src/cli/eval/perplexity-eval.ts';
import { builtInModel } from '../../../src/cli/project.ts';
import { projectRoot } from '../../../src/daemon/project-root.ts';

it('measures a pack as it is, and with fewer bits', async () => {
  const options = {
    model: builtInModel(),
    texts: [`${projectRoot()}/models/calibration.txt`],
    reference: null,
    weights: 'w4' as const,
    activations: null,
    kvBits: null,
    windows: 2,
    window: 64,
    calibrationFile: null,
    onProgress: () => undefined,
  };
  const [asItIs] = await evalPerplexity(options);
  const [coarse] = await evalPerplexity({ ...options, activations: 'a4' });
  const [first, second] = [asItIs!.texts[0]!.perplexity, coarse!.texts[0]!.perplexity];
  expect([asItIs!.kvBits, asItIs!.multiplyAddsInA4, coarse!.multiplyAddsInA4]).toEqual([4, 0, 1]);
  expect(first).toBeGreaterThan(1);
  expect(first).toBeLessThan(2000); // a model that knows nothing has 8192
  expect(second).not.toBe(first);
  expect(Math.abs(second / first - 1)).toBeLessThan(0.2);
});
