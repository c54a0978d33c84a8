import type { Allreduce } from '../allreduce/allreduce.ts';
import { PotluckError } from '../errors/errors.ts';
import type { Batch } from '../kernels/backend.ts';
import { rotationSwitch } from '../kernels/length-frequencies.ts';
import { PAGE_POSITIONS, paddedVocabulary } from '../pack/tile-shape.ts';
import type { DevicePass } from './device-pass.ts';
import type { EngineWork, LogitRow, PassRunner, PassSequence } from './pass-runner.ts';
import { runLayers } from './run-layers.ts';

/** The hub's side of the star, as a pass needs it. */
export interface HubStar extends Allreduce {
  /** Sends the batch and the embedded tokens ([tokens, width] float32) to every spoke. */
  beginPass(batch: Batch, residual: Float32Array): Promise<void> | void;
  /** Fills the columns of the spokes' head tiles; logits [rows, rowLength]. */
  collectLogits(rows: number, logits: Float32Array, rowLength: number): Promise<void>;
  /** Ends a pass that failed here, so that the spokes do not wait for it. */
  abortPass(error: PotluckError): void;
}

/** A plan that is active on this hub. */
export interface ActivePlan {
  readonly epoch: number;
  readonly device: DevicePass;
  /** Null where this device is alone. */
  readonly star: HubStar | null;
  /** Pages that every device of the plan has. */
  readonly kvPages: number;
  /** Writes embedding rows of `ids` to the start of `target`; [ids.length, width] float32. */
  embed(ids: readonly number[], target: Float32Array): Promise<void>;
}

/** Timers of whoever owns the process. */
export interface WaitTimers {
  setTimeout(call: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

const ALONE: Allreduce = { alone: true, sum: () => Promise.resolve() };

/** How long a request waits for a plan. */
const READY_MILLISECONDS = 60_000;

/** Runs passes on the plan that is active, and tells the engine when there is none. */
export class PlanRunner implements PassRunner {
  readonly #timers: WaitTimers;
  #plan: ActivePlan | null = null;
  #running: Promise<unknown> | null = null;
  readonly #waiting = new Set<() => void>();
  /** Tokens that went through passes of the active plan. */
  tokens = 0;
  /** Calls of kernels in earlier plans. */
  #earlierCalls = 0;

  constructor(timers: WaitTimers) {
    this.#timers = timers;
  }

  get epoch(): number {
    return this.#plan?.epoch ?? -1;
  }
  get maxTokens(): number {
    return this.#active().device.model.pass.maxTokens;
  }
  get maxLogitRows(): number {
    return this.#active().device.model.pass.maxLogitRows;
  }
  get kvPages(): number {
    return this.#active().kvPages;
  }
  get context(): number {
    return this.#active().device.shape.context;
  }
  get rotationSwitch(): number {
    return rotationSwitch(this.#active().device.shape);
  }
  get vocabulary(): number {
    return this.#active().device.shape.vocabulary;
  }

  /** A pass may take minutes where weights stream from a slow disk; it goes on as long as `calls` rises or kernels compute. */
  get work(): EngineWork {
    const device = this.#plan?.device;
    return { calls: this.#earlierCalls + (device?.calls ?? 0), computing: device?.computing ?? false };
  }

  /** From now on passes run on `plan`. */
  begin(plan: ActivePlan): void {
    this.#plan = plan;
    this.tokens = 0;
    for (const wake of [...this.#waiting]) wake();
  }

  /** No pass runs from now on; resolves when the one in flight has ended. Its buffers may then be given back. */
  async suspend(reason: PotluckError): Promise<void> {
    const plan = this.#plan;
    this.#plan = null;
    this.#earlierCalls += plan?.device.calls ?? 0;
    if (plan === null || this.#running === null) return;
    plan.star?.abortPass(reason);
    await this.#running;
  }

  ready(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#plan) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const end = (): void => {
        this.#timers.clearTimeout(timer);
        signal.removeEventListener('abort', stop);
        this.#waiting.delete(wake);
      };
      const wake = (): void => {
        end();
        resolve();
      };
      const fail = (reason: unknown): void => {
        end();
        reject(reason);
      };
      const stop = (): void => fail(signal.reason);
      const timer = this.#timers.setTimeout(() => fail(noPlan()), READY_MILLISECONDS);
      signal.addEventListener('abort', stop, { once: true });
      this.#waiting.add(wake);
    });
  }

  run(sequences: readonly PassSequence[]): Promise<LogitRow[]> {
    const plan = this.#active();
    const result = this.#pass(plan, sequences);
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#running = settled;
    void settled.then(() => {
      if (this.#running === settled) this.#running = null;
    });
    return result;
  }

  async #pass(plan: ActivePlan, sequences: readonly PassSequence[]): Promise<LogitRow[]> {
    const { device, star } = plan;
    const { batch, ids } = makeBatch(sequences);
    const { residual, logits } = device.model.pass;
    const rows = batch.logitRows.length;
    await plan.embed(ids, residual);
    device.begin(batch);
    try {
      if (star) await star.beginPass(batch, residual.subarray(0, ids.length * device.shape.width));
      await runLayers(device, star ?? ALONE, ids.length, rows > 0);
      if (star && rows > 0) await star.collectLogits(rows, logits, paddedVocabulary(device.shape));
    } catch (error) {
      if (star)
        star.abortPass(error instanceof PotluckError ? error : new PotluckError('INTERNAL', String(error)));
      throw error;
    }
    if (this.#plan !== plan) throw new PotluckError('NOT_READY', 'The plan changed during a pass.');
    this.tokens += ids.length;
    const stride = paddedVocabulary(device.shape);
    return Array.from(batch.logitRows, (_, row) =>
      logits.subarray(row * stride, row * stride + device.shape.vocabulary),
    );
  }

  #active(): ActivePlan {
    if (!this.#plan) throw noPlan();
    return this.#plan;
  }
}

const noPlan = (): PotluckError =>
  new PotluckError('NOT_READY', 'The cluster has no plan yet. Look at: potluck status');

/** One flat batch out of the sequences of a pass; `ids` in the order of the batch's tokens. */
export function makeBatch(sequences: readonly PassSequence[]): { batch: Batch; ids: number[] } {
  const ids: number[] = [];
  const positions: number[] = [];
  const of: number[] = [];
  const lengths: number[] = [];
  const logitRows: number[] = [];
  sequences.forEach((sequence, index) => {
    for (const at of sequence.logitsAt) logitRows.push(ids.length + at);
    sequence.tokens.forEach((id, i) => {
      ids.push(id);
      positions.push(sequence.start + i);
      of.push(index);
      lengths.push(Math.max(sequence.length, sequence.start + i + 1));
    });
  });
  return {
    ids,
    batch: {
      positions: Int32Array.from(positions),
      sequences: Int32Array.from(of),
      lengths: Int32Array.from(lengths),
      pageTables: sequences.map(s =>
        s.pages.subarray(0, Math.ceil((s.start + s.tokens.length) / PAGE_POSITIONS)),
      ),
      logitRows: Int32Array.from(logitRows),
    },
  };
}
