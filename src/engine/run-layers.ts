import type { Allreduce } from '../allreduce/allreduce.ts';
import type { Half, Step } from '../kernels/backend.ts';
import type { DevicePass } from './device-pass.ts';

/**
 * One pass on one device: every layer, as the design's page of flow says it. Hub and spokes run this same code; what
 * differs is who adds the partial sums up (`allreduce`).
 *
 *   every layer: norm -> attention tiles -> partial sum -> allreduce -> residual
 *                norm -> FFN tiles       -> partial sum -> allreduce -> residual
 *   head:        final norm -> head tiles -> logits
 *
 * The residual stream lies in `device.model.pass.residual`, [tokens, width] float32; the logits of the asked rows end
 * in `pass.logits`, [logitRows, paddedVocabulary] float32, in the columns of this device's head tiles.
 * Rejects with what a tile read, a kernel or the allreduce rejects with.
 */
export async function runLayers(
  device: DevicePass,
  allreduce: Allreduce,
  tokens: number,
  wantLogits: boolean,
): Promise<void> {
  const program = new Program(device);
  for (let layer = 0; layer < device.shape.layers; layer++) {
    await halfLayer(program, allreduce, tokens, layer, 'attention');
    await halfLayer(program, allreduce, tokens, layer, 'ffn');
  }
  if (wantLogits) await head(program);
  else device.window.skip(device.tiles.head);
  await program.flush();
}

async function halfLayer(
  program: Program,
  allreduce: Allreduce,
  tokens: number,
  layer: number,
  half: Half,
): Promise<void> {
  const { tiles, model, shape } = program.device;
  program.add({ op: 'begin', layer, half });
  await program.eachTile(tiles[half][layer]!, placed => ({ op: 'tiles', layer, half, tiles: placed }));
  if (!allreduce.alone) {
    await program.flush();
    const step = layer * 2 + (half === 'attention' ? 0 : 1);
    await allreduce.sum(step, model.pass.partial.subarray(0, tokens * shape.width));
  }
  program.add({ op: 'end', layer, half });
}

async function head(program: Program): Promise<void> {
  program.add({ op: 'head-begin' });
  await program.eachTile(program.device.tiles.head, placed => ({ op: 'head-tiles', tiles: placed }));
}

/** Steps that were not run yet. Nothing runs until `flush`, so a device alone with its weights in memory makes one
 *  native call a pass. */
class Program {
  readonly device: DevicePass;
  #steps: Step[] = [];

  constructor(device: DevicePass) {
    this.device = device;
  }

  add(step: Step): void {
    this.#steps.push(step);
  }

  async flush(): Promise<void> {
    if (this.#steps.length === 0) return;
    const steps = this.#steps;
    this.#steps = [];
    this.device.count(await this.device.model.run(steps));
  }

  /** Adds a step for the tiles as the window has them ready, and gives streamed ones back once computed. */
  async eachTile(
    tiles: readonly number[],
    step: (placed: { offset: number; slot: number }[]) => Step,
  ): Promise<void> {
    const { window, slots } = this.device;
    let wanted = tiles;
    while (wanted.length > 0) {
      const taken = window.take(wanted);
      const ready = taken instanceof Promise ? await taken : taken;
      this.add(step(ready.map(({ tile, offset }) => ({ offset, slot: slots.get(tile)! }))));
      if (!window.resident) {
        try {
          await this.flush();
        } finally {
          window.release(ready.map(({ tile }) => tile));
        }
      }
      if (ready.length === wanted.length) return;
      const done = new Set(ready.map(({ tile }) => tile));
      wanted = wanted.filter(tile => !done.has(tile));
    }
  }
}
