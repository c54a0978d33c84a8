import type { TileSource } from '../disk-io/tile-source.ts';
import { PotluckError } from '../errors/errors.ts';
import { pinnedCount, ringFor, type WindowPlan } from './plan-window.ts';
import { layOut, pinnedEnd, type WindowLayout } from './window-layout.ts';
import {
  heldBytes,
  isTaken,
  type LoadStatus,
  newWindowState,
  readyOffset,
  ringEnd,
  stepWindow,
  type WindowAction,
  type WindowEvent,
  type WindowState,
} from './window-machine.ts';

/** A tile that is in memory until it is released. */
export interface PlacedNow {
  /** Index into the manifest. */
  readonly tile: number;
  /** Byte offset in the weights memory. */
  readonly offset: number;
}

export interface WindowOptions {
  readonly plan: WindowPlan;
  /** Bytes for tiles at the start; see `resize`. */
  readonly budget: number;
  /** Weights memory, 4096-byte aligned: the ring and the largest budget that there may be. */
  readonly memory: ArrayBuffer;
  /** Gives `bytes` of the weights memory from `offset` on back to the system. */
  discard(offset: number, bytes: number): void;
  /** Stays the caller's: `close` does not close it. */
  readonly source: TileSource;
  /** Most reads under way; 8 where nothing is said: so many that the disk is busy while this thread is at other things. */
  readonly readDepth?: number;
  /** Monotonic clock in microseconds. */
  now(): number;
  /** How long `take` waits before it rejects with DEADLINE; without it, as long as the disk takes. */
  readonly deadline?: WindowDeadline;
}

export interface WindowDeadline {
  readonly milliseconds: number;
  readonly timers: {
    setTimeout(call: () => void, milliseconds: number): unknown;
    clearTimeout(timer: unknown): void;
  };
}

export interface WindowStats {
  /** Of the runs that stay in memory. */
  readonly pinnedBytes: number;
  /** 0 where everything stays. */
  readonly ringBytes: number;
  /** Bytes that a pass reads which uses every tile. */
  readonly streamedBytesPerPass: number;
  /** Bytes read through the ring since the start. */
  readonly streamedBytes: number;
  /** Runs read since the start, pinned ones included. */
  readonly reads: number;
  /** Reads that failed, after all tries. */
  readonly failedReads: number;
  /** Time that `take` waited, in microseconds. */
  readonly waitMicroseconds: number;
}

interface Waiting {
  readonly tiles: readonly number[];
  readonly since: number;
  readonly timer: unknown;
  resolve(placed: PlacedNow[]): void;
  reject(error: unknown): void;
}

const USUAL_READ_DEPTH = 8;
/** How much of the ring may be handed out while the disk has enough to read, and while it has not. */
const BUSY_SHARE = 1 / 2;
const IDLE_SHARE = 1 / 4;
const IN_MEMORY: ReadonlySet<LoadStatus> = new Set(['reading', 'ready', 'failed', 'leaving']);

/**
 * The tiles of this device that are in memory now: performs what the machine says. `start`, then in every `pass` for each
 * half layer `take` and `release` until all its tiles were had, `skip` for tiles that the pass does not use, and `close`.
 */
export class Window {
  readonly #options: WindowOptions;
  readonly #layout: WindowLayout;
  readonly #reads = new Set<Promise<void>>();
  #state: WindowState;
  #starting: PromiseWithResolvers<void> | undefined;
  #waiting: Waiting | undefined;
  /** Runs at home. */
  #loaded = 0;
  #inPass = false;
  /** Most bytes of memory before some were given back, since `highestBytes` was asked last. */
  #highest = 0;
  /** Bytes of the ring's memory that may have been written since they were last given back. */
  #ringMemory = 0;
  #budget: number;
  #streamedBytes = 0;
  #readCount = 0;
  #failedReads = 0;
  #waitMicroseconds = 0;

  constructor(options: WindowOptions) {
    this.#options = options;
    this.#layout = layOut(options.plan, options.readDepth ?? USUAL_READ_DEPTH);
    this.#state = newWindowState(this.#layout);
    this.#budget = options.budget;
    this.#applyBudget();
  }

  /** True where every tile is in memory: `take` then never waits, and nothing needs `release`. */
  get resident(): boolean {
    return this.#loaded === this.#layout.runs.length;
  }

  /**
   * True where so much of the ring is handed out that reading ahead would soon stop, or a quarter where few reads are
   * under way, as there is no room: compute, and release.
   */
  get pressed(): boolean {
    if (this.resident) return false;
    const { reading, ringBytes, layout } = this.#state;
    const share = 2 * reading < layout.readDepth ? IDLE_SHARE : BUSY_SHARE;
    return heldBytes(this.#state) >= share * ringBytes;
  }

  /** Bytes of the weights memory that were written and not given back. */
  get memoryBytes(): number {
    const { loads, layout } = this.#state;
    const homes = layout.runs.reduce(
      (sum, { bytes }, run) => (IN_MEMORY.has(loads[run]!) ? sum + bytes : sum),
      0,
    );
    return homes + this.#ringMemory;
  }

  /** Highest `memoryBytes` since the last call. */
  highestBytes(): number {
    const highest = Math.max(this.#highest, this.memoryBytes);
    this.#highest = 0;
    return highest;
  }

  /**
   * Resolves when the pinned tiles are in memory and reading ahead has begun. Rejects with DISK_READ or TILE_CORRUPT;
   * called again, it tries the tiles that failed once more.
   */
  start(): Promise<void> {
    if (this.#state.phase === 'stopped') return Promise.reject(stopped());
    this.#starting ??= promiseWithResolvers<void>();
    const { promise } = this.#starting;
    this.#dispatch({ type: 'start' });
    this.#settleStart();
    return promise;
  }

  /** Another budget for tiles, in bytes: pins more, or gives memory back. Between passes; during one, when it ends. */
  resize(budget: number): void {
    this.#budget = budget;
    if (!this.#inPass) this.#applyBudget();
  }

  /** Runs one pass: tiles that are pinned stay where they are while it runs. */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    this.#inPass = true;
    try {
      return await work();
    } finally {
      this.#inPass = false;
      this.#applyBudget();
    }
  }

  /** Whether `take` would answer at once. */
  has(tiles: readonly number[]): boolean {
    return tiles.length === 0 || tiles.some(tile => readyOffset(this.#state, tile) !== undefined);
  }

  /**
   * Those of `tiles` that are in memory now, at least one: at once, or when the first is. `tiles` are the still wanted
   * ones of a half layer in execution order. Each streamed one is the caller's until `release`. Rejects with DISK_READ,
   * TILE_CORRUPT, DEADLINE or STOPPED; a take that failed may be repeated.
   */
  take(tiles: readonly number[]): PlacedNow[] | Promise<PlacedNow[]> {
    if (this.#state.phase === 'stopped') throw stopped();
    if (tiles.length === 0) return [];
    this.#endWait()?.reject(misuse('another take began'));
    if (!this.resident) this.#wantFirst(tiles);
    const placed = this.#collect(tiles);
    return placed.length > 0 ? placed : this.#wait(tiles);
  }

  /** Ends the use of tiles that `take` gave. */
  release(tiles: readonly number[]): void {
    if (this.#state.slots.length === 0) return;
    for (const tile of tiles) this.#dispatch({ type: 'release', tile });
  }

  /** This pass does not use these tiles: they are not read for it, or their bytes are given back. */
  skip(tiles: readonly number[]): void {
    if (this.resident) return;
    for (const tile of tiles) {
      if (this.#waiting?.tiles.includes(tile))
        throw misuse(`tile ${tile} is skipped while a take waits for it`);
      this.#dispatch({ type: 'skip', tile });
    }
  }

  stats(): WindowStats {
    const { pinned, layout } = this.#state;
    const pinnedBytes = pinnedEnd(layout, pinned) - layout.ringBytes;
    return {
      pinnedBytes,
      ringBytes: pinned === layout.runs.length ? 0 : this.#state.ringBytes,
      streamedBytesPerPass: this.#options.plan.totalBytes - pinnedBytes,
      streamedBytes: this.#streamedBytes,
      reads: this.#readCount,
      failedReads: this.#failedReads,
      waitMicroseconds: this.#waitMicroseconds,
    };
  }

  /** Stops reading; resolves when nothing writes to the weights memory any more. */
  async close(): Promise<void> {
    this.#dispatch({ type: 'abort' });
    this.#endWait()?.reject(stopped());
    this.#starting?.reject(stopped());
    this.#starting = undefined;
    await Promise.all(this.#reads);
  }

  #applyBudget(): void {
    const most = this.#options.memory.byteLength;
    let count = pinnedCount(this.#options.plan, this.#budget);
    while (count > 0 && pinnedEnd(this.#layout, count) > most) count--;
    const ring = ringFor(this.#options.plan, this.#budget);
    if (ring !== this.#state.ringBytes) this.#dispatch({ type: 'ring', bytes: ring });
    if (count === this.#state.pinned) return;
    this.#highest = Math.max(this.#highest, this.memoryBytes);
    this.#dispatch({ type: 'pin', count });
    this.#loaded = this.#state.loads.filter(load => load === 'ready').length;
  }

  /** The ring takes no memory while everything stays, and none behind its end. */
  #trimRing(): void {
    const { layout, slots, pinned } = this.#state;
    const unused = slots.length === 0 && pinned === layout.runs.length;
    const end = unused ? 0 : ringEnd(this.#state);
    if (end >= this.#ringMemory) return;
    this.#highest = Math.max(this.#highest, this.memoryBytes);
    this.#options.discard(end, this.#ringMemory - end);
    this.#ringMemory = end;
  }

  /** Tells the machine what compute needs next: the first tile, and the first that is not in memory. */
  #wantFirst(tiles: readonly number[]): void {
    const missing = tiles.find(tile => readyOffset(this.#state, tile)?.pinned !== true);
    if (missing !== undefined) this.#dispatch({ type: 'want', tile: missing });
  }

  #collect(tiles: readonly number[]): PlacedNow[] {
    const placed: PlacedNow[] = [];
    for (const tile of tiles) {
      const at = readyOffset(this.#state, tile);
      if (at === undefined) {
        this.#checkWantable(tile);
        continue;
      }
      if (!at.pinned) this.#dispatch({ type: 'take', tile });
      placed.push({ tile, offset: at.offset });
    }
    return placed;
  }

  #checkWantable(tile: number): void {
    if (this.#state.phase === 'new') throw misuse('a take came before start');
    if (!this.#layout.places.has(tile)) throw misuse(`tile ${tile} is not of this window`);
    if (isTaken(this.#state, tile)) throw misuse(`tile ${tile} was taken and not released`);
  }

  #wait(tiles: readonly number[]): Promise<PlacedNow[]> {
    const { promise, resolve, reject } = promiseWithResolvers<PlacedNow[]>();
    const { now, deadline } = this.#options;
    const timer = deadline?.timers.setTimeout(() => {
      this.#endWait()?.reject(notRead(tiles[0]!, deadline.milliseconds));
    }, deadline.milliseconds);
    this.#waiting = { tiles, since: now(), timer, resolve, reject };
    return promise;
  }

  #endWait(): Waiting | undefined {
    const waiting = this.#waiting;
    if (!waiting) return undefined;
    this.#waiting = undefined;
    this.#options.deadline?.timers.clearTimeout(waiting.timer);
    this.#waitMicroseconds += this.#options.now() - waiting.since;
    return waiting;
  }

  #dispatch(event: WindowEvent): void {
    const { state, actions } = stepWindow(this.#state, event);
    this.#state = state;
    for (const action of actions) this.#perform(action);
    this.#trimRing();
  }

  #perform(action: WindowAction): void {
    if (action.type === 'read') {
      if (action.to === 'ring') this.#ringMemory = Math.max(this.#ringMemory, ringEnd(this.#state));
      const read = this.#read(action.run, action.to, action.offset);
      this.#reads.add(read);
      void read.then(() => this.#reads.delete(read));
    } else if (action.type === 'discard') {
      this.#options.discard(this.#layout.homes[action.run]!, this.#layout.runs[action.run]!.bytes);
    } else if (action.type === 'ready') {
      if (action.to === 'home') this.#loaded++;
      this.#settleStart();
      this.#settleTake();
    } else {
      this.#fail(action.run, action.to, action.error);
    }
  }

  /** Never rejects: what went wrong is an event. */
  async #read(run: number, to: 'home' | 'ring', offset: number): Promise<void> {
    const { source, memory } = this.#options;
    const { tiles, bytes } = this.#layout.runs[run]!;
    try {
      await source.read(
        tiles.map(({ tile }) => tile),
        memory,
        offset,
      );
    } catch (error) {
      this.#failedReads++;
      this.#dispatch({ type: 'readFailed', run, to, error });
      return;
    }
    this.#readCount++;
    if (to === 'ring') this.#streamedBytes += bytes;
    this.#dispatch({ type: 'readDone', run, to });
  }

  #settleStart(): void {
    const { loads } = this.#state;
    if (this.#starting === undefined || loads.some(load => load === 'waiting' || load === 'reading')) return;
    if (loads.includes('failed')) return;
    this.#starting.resolve();
    this.#starting = undefined;
  }

  #settleTake(): void {
    if (!this.#waiting) return;
    const placed = this.#collect(this.#waiting.tiles);
    if (placed.length > 0) this.#endWait()?.resolve(placed);
  }

  /** An error of a run that nobody waits for is not lost: a take of its tiles reads it again. */
  #fail(run: number, to: 'home' | 'ring', error: unknown): void {
    if (this.#starting && to === 'home') {
      this.#starting.reject(error);
      this.#starting = undefined;
    }
    const first = this.#waiting?.tiles[0];
    if (first !== undefined && this.#layout.places.get(first)?.run === run) this.#endWait()?.reject(error);
  }
}

/** The DEADLINE of a tile that a take waited for. */
export const notRead = (tile: number, milliseconds: number): PotluckError =>
  new PotluckError(
    'DEADLINE',
    `Tile ${tile} was not read within ${milliseconds} ms: the disk is too slow or does not answer.`,
  );

const stopped = (): PotluckError => new PotluckError('STOPPED', 'The window of tiles is closed.');
const misuse = (what: string): PotluckError =>
  new PotluckError('INTERNAL', `The window was misused: ${what}.`);

interface PromiseWithResolvers<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

function promiseWithResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onDone, onError) => {
    resolve = onDone;
    reject = onError;
  });
  return { promise, resolve, reject };
}
