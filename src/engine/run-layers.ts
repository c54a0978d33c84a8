import type { Allreduce } from '../allreduce/allreduce.ts';
import { MOST_EXPERT_TILES, type PlacedTile, type Step } from '../kernels/backend.ts';
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
  await device.window.pass(async () => {
    // A device alone with its weights in memory does the same in every pass.
    const { resident } = device.window;
    const which = wantLogits ? 'withLogits' : 'bare';
    const known = allreduce.alone && resident ? device.wholePass[which] : undefined;
    if (known) return device.run(known, true);
    const program = new Program(device, allreduce, tokens);
    try {
      for (let layer = 0; layer < device.shape.layers; layer++) {
        await attentionHalf(program, layer);
        await ffnHalf(program, layer);
      }
      if (wantLogits) await head(program);
      else device.window.skip(device.tiles.head);
      const last = await program.flush();
      if (resident && program.flushes === 1) device.wholePass[which] = last;
    } finally {
      program.end();
    }
  });
}

async function attentionHalf(program: Program, layer: number): Promise<void> {
  const { tiles, shape } = program.device;
  const half = 'attention';
  program.add({ op: 'begin', layer, half });
  if (shape.norms.queryKey === 'whole') await normAllHeads(program, layer);
  await program.eachTile(tiles.attention[layer]!, placed => ({ op: 'tiles', layer, half, tiles: placed }));
  await program.sum();
  program.add({ op: 'end', layer, half });
}

/** Models that norm all heads as one need the squares of all devices before any device can attend. */
async function normAllHeads(program: Program, layer: number): Promise<void> {
  const tiles = program.device.tiles.attention[layer]!;
  await program.eachTile(tiles, placed => ({ op: 'squares', layer, tiles: placed }));
  await program.giveBack(); // they are taken once more
  await program.sum();
  program.add({ op: 'square-norms', layer });
}

async function ffnHalf(program: Program, layer: number): Promise<void> {
  const { tiles, shape } = program.device;
  const half = 'ffn';
  program.add({ op: 'begin', layer, half });
  await program.eachTile(tiles.ffn[layer]!, placed => ({ op: 'tiles', layer, half, tiles: placed }));
  if (shape.layerFeatures[layer]!.experts) await program.eachExpertTile(layer);
  await program.sum();
  program.add({ op: 'end', layer, half });
}

async function head(program: Program): Promise<void> {
  program.add({ op: 'head-begin' });
  await program.eachTile(program.device.tiles.head, placed => ({ op: 'head-tiles', tiles: placed }));
}

/** Steps that were not run yet, and the tiles that they use. Nothing runs until `flush`, so a device alone with its
 *  weights in memory makes one native call a pass, and one that streams a call for what the disk gave meanwhile. */
class Program {
  readonly device: DevicePass;
  readonly #allreduce: Allreduce;
  readonly #tokens: number;
  #steps: Step[] = [];
  #taken: number[] = [];
  /** Native calls of this pass so far. */
  flushes = 0;
  /** Sums of this pass so far. */
  #sums = 0;

  constructor(device: DevicePass, allreduce: Allreduce, tokens: number) {
    this.device = device;
    this.#allreduce = allreduce;
    this.#tokens = tokens;
  }

  add(step: Step): void {
    this.#steps.push(step);
  }

  /** Runs the steps that were not run yet, and returns them. */
  async flush(): Promise<readonly Step[]> {
    const steps = this.#steps;
    if (steps.length === 0) return steps;
    const taken = this.#taken;
    this.#steps = [];
    this.#taken = [];
    this.flushes++;
    try {
      await this.device.run(steps);
    } finally {
      this.device.window.release(taken);
    }
    return steps;
  }

  /** Computes with tiles that stream, so that none is held. */
  async giveBack(): Promise<void> {
    if (!this.device.window.resident) await this.flush();
  }

  /** Gives back the tiles of steps that will not run. */
  end(): void {
    this.device.window.release(this.#taken);
  }

  /** Replaces the partial sums by those over all devices. */
  async sum(): Promise<void> {
    if (this.#allreduce.alone) return;
    await this.flush();
    const { model, shape } = this.device;
    await this.#allreduce.sum(this.#sums++, model.pass.partial.subarray(0, this.#tokens * shape.width));
  }

  /** Adds a step for those of a layer's expert tiles that the router picked for some token, as the cache has them. */
  async eachExpertTile(layer: number): Promise<void> {
    await this.flush(); // the router has picked then
    const { experts } = this.device;
    let wanted = this.device.pickedTiles(layer, this.#tokens);
    while (wanted.length > 0) {
      const ready = await experts!.take(wanted, MOST_EXPERT_TILES);
      this.add({ op: 'expert-tiles', layer, tiles: this.device.place(ready) });
      try {
        await this.flush();
      } finally {
        experts!.release(ready.map(({ tile }) => tile));
      }
      const done = new Set(ready.map(({ tile }) => tile));
      wanted = wanted.filter(tile => !done.has(tile));
    }
  }

  /** Adds a step for the tiles as the window has them ready; what is ready is computed while the disk reads the rest. */
  async eachTile(tiles: readonly number[], step: (placed: readonly PlacedTile[]) => Step): Promise<void> {
    const { window } = this.device;
    let wanted = tiles;
    while (wanted.length > 0) {
      if (window.pressed || !window.has(wanted)) await this.flush();
      const ready = await window.take(wanted);
      this.add(step(this.device.place(ready)));
      this.#taken.push(...ready.map(({ tile }) => tile));
      if (ready.length === wanted.length) return;
      const done = new Set(ready.map(({ tile }) => tile));
      wanted = wanted.filter(tile => !done.has(tile));
    }
  }
}
