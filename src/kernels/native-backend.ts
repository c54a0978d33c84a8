import { PotluckError } from '../errors/errors.ts';
import type { Addon, NativeModel, NativePool } from './addon.ts';
import type { Backend, BackendModel, Batch, ModelMemory, PassBuffers, RunStats, Step } from './backend.ts';
import { LengthFrequencies } from './length-frequencies.ts';
import { ProgramEncoder } from './program.ts';
import { shapeNumbers } from './shape-numbers.ts';

/**
 * The backend of the native addon: exact, the same bits on every processor and in every plan.
 * `kernel` forces one by name, else POTLUCK_KERNEL does, else it is the fastest. Throws KERNEL_UNKNOWN where this
 * processor has it not, and KERNEL_FAILED where the threads cannot be started.
 */
export function createNativeBackend(addon: Addon, options: { threads: number; kernel?: string }): Backend {
  const pool = native(() => addon.createPool(options.threads, options.kernel ?? ''));
  let closed = false;
  return {
    name: pool.kernel,
    exact: true,
    threads: options.threads,
    logitMath: {
      greatest: logits => native(() => addon.greatest(logits)),
      weigh: (logits, max, inverse, weights) =>
        native(() => addon.weigh(pool, logits, max, inverse, weights)),
    },
    allocate: bytes => native(() => addon.allocate(bytes)),
    discard: (memory, offset, bytes) => native(() => addon.discard(memory, offset, bytes)),
    release: memory => native(() => addon.release(memory)),
    openModel: memory => new NativeBackendModel(addon, pool, memory),
    close() {
      if (closed) return;
      native(() => addon.closePool(pool));
      closed = true;
    },
  };
}

class NativeBackendModel implements BackendModel {
  readonly pass: PassBuffers;
  readonly activationBytes: number;
  readonly #addon: Addon;
  readonly #model: NativeModel;
  readonly #encoder = new ProgramEncoder();
  readonly #angles: LengthFrequencies;
  #closed = false;

  constructor(addon: Addon, pool: NativePool, memory: ModelMemory) {
    this.#addon = addon;
    const { shape, maxTokens, maxLogitRows } = memory;
    const opened = native(() =>
      addon.createModel(pool, shapeNumbers(shape, memory), memory.constants, memory.weights),
    );
    this.#model = opened.model;
    this.#angles = new LengthFrequencies(shape);
    this.pass = {
      maxTokens,
      maxLogitRows,
      residual: new Float32Array(opened.residual),
      partial: new Int32Array(opened.partial),
      logits: new Float32Array(opened.logits),
      routes: new Int32Array(opened.routes),
    };
    const buffers = [this.pass.residual, this.pass.partial, this.pass.routes];
    // The system gives memory when it is written, and the account counts all of it from the start.
    for (const buffer of buffers) buffer.fill(0);
    this.activationBytes = opened.scratchBytes + buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  setBatch(batch: Batch): void {
    const starts = new Int32Array(batch.pageTables.length + 1);
    batch.pageTables.forEach((table, i) => {
      starts[i + 1] = starts[i]! + table.length;
    });
    const pages = new Int32Array(starts.at(-1)!);
    batch.pageTables.forEach((table, i) => {
      pages.set(table, starts[i]);
    });
    const { rows, frequencies } = this.#angles.of(batch.lengths);
    this.#addon.setBatch(
      this.#model,
      batch.positions,
      batch.sequences,
      pages,
      starts,
      batch.logitRows,
      rows,
      frequencies,
    );
  }

  setConstants(constants: ArrayBuffer): void {
    native(() => this.#addon.setConstants(this.#model, constants));
  }

  async run(steps: readonly Step[], eager = false): Promise<RunStats> {
    try {
      return await this.#addon.run(this.#model, this.#encoder.encode(steps), eager);
    } catch (error) {
      throw asKernelError(error);
    }
  }

  /** The pass buffers are detached. */
  close(): void {
    if (this.#closed) return;
    native(() => this.#addon.closeModel(this.#model));
    this.#closed = true;
    const { residual, partial, logits, routes } = this.pass;
    for (const view of [residual, partial, logits, routes]) this.#addon.release(view.buffer as ArrayBuffer);
  }
}

function native<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw asKernelError(error);
  }
}

/** An exception of the addon as a PotluckError of its code. */
function asKernelError(error: unknown): PotluckError {
  const message = error instanceof Error ? error.message : String(error);
  const unknown = error instanceof Error && 'code' in error && error.code === 'KERNEL_UNKNOWN';
  if (!unknown)
    return new PotluckError('KERNEL_FAILED', `The native addon refused a call: ${message}.`, {
      cause: error,
    });
  return new PotluckError(
    'KERNEL_UNKNOWN',
    `There is no such ${message}. Change --kernel or POTLUCK_KERNEL.`,
    {
      cause: error,
    },
  );
}
