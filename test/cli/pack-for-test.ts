import { packCheckpoint } from '../../src/cli/pack-checkpoint.ts';

/** Packs the checkpoint in folder `checkpoint` into the new folder `target`, in 4 bits. */
export const packForTest = (checkpoint: string, target: string, name: string): Promise<unknown> =>
  packCheckpoint({
    ...{ checkpoint, target, name, weights: 'w4' },
    attentionParts: null,
    ropePrecision: 'float32',
    onProgress: () => undefined,
  });
