import type { TileSource } from '../disk-io/tile-source.ts';
import { PotluckError } from '../errors/errors.ts';
import type { WindowPlan, WindowTile } from './choose-pinned.ts';
import { layOut, type WindowLayout } from './window-layout.ts';
import {
  isTaken,
  newWindowState,
  readyOffset,
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
  /** In execution order. */
  readonly tiles: readonly WindowTile[];
  /** Weights memory, 4096-byte aligned: at least the pinned bytes and the ring of the plan. */
  readonly memory: ArrayBuffer;
  /** Of choosePinned for the same tiles. */
  readonly plan: WindowPlan;
  /** Stays the caller's: `close` does not close it. */
  readonly source: TileSource;
  /** Most reads under way; 4 where nothing is said. */
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
  readonly pinnedBytes: number;
  readonly ringBytes: number;
  /** Bytes read through the ring since the start. */
  readonly streamedBytes: number;
  /** Tiles read since the start, pinned ones included. */
  readonly reads: number;
  /** Reads that failed, each after its second try. */
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

const USUAL_READ_DEPTH = 4;

/**
 * The tiles of this device that are in memory now: performs what the machine says. `start`, then for every half layer
 * `take` and `release` until all its tiles were had, `skip` for tiles that a pass does not use, and `close`.
 */
export class Window {
  /** True where every tile stays in memory: `take` then never waits, and nothing needs `release`. */
  readonly resident: boolean;
  readonly #options: WindowOptions;
  readonly #layout: WindowLayout;
  readonly #loaded = new Map<number, PlacedNow>();
  readonly #reads = new Set<Promise<void>>();
  #state: WindowState;
  #starting: PromiseWithResolvers<void> | undefined;
  #waiting: Waiting | undefined;
  #streamedBytes = 0;
  #readCount = 0;
  #failedReads = 0;
  #waitMicroseconds = 0;

  constructor(options: WindowOptions) {
    const { tiles, plan, memory } = options;
    this.#options = options;
    this.#layout = layOut(tiles, plan, options.readDepth ?? USUAL_READ_DEPTH);
    this.#state = newWindowState(this.#layout);
    this.resident = this.#layout.streamed.length === 0;
    if (memory.byteLength < plan.pinnedBytes + plan.ringBytes) {
      throw new PotluckError('INTERNAL', 'The weights memory is smaller than the plan of the window.');
    }
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
    if (this.resident) return;
    for (const tile of tiles) {
      if (!this.#layout.pinnedPlaces.has(tile)) this.#dispatch({ type: 'release', tile });
    }
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
    return {
      pinnedBytes: this.#layout.ringOffset,
      ringBytes: this.#layout.ringBytes,
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

  /** Tells the machine what compute needs next: the first tile, and the first that streams. */
  #wantFirst(tiles: readonly number[]): void {
    const first = tiles[0]!;
    const streamed = tiles.find(tile => this.#layout.streamedPlaces.has(tile));
    if (streamed !== undefined) this.#dispatch({ type: 'want', tile: streamed });
    if (first !== streamed && !this.#loaded.has(first)) this.#dispatch({ type: 'want', tile: first });
  }

  #collect(tiles: readonly number[]): PlacedNow[] {
    const placed: PlacedNow[] = [];
    for (const tile of tiles) {
      const loaded = this.#loaded.get(tile);
      if (loaded) {
        placed.push(loaded);
        continue;
      }
      const offset = readyOffset(this.#state, tile);
      if (offset === undefined) {
        this.#checkWantable(tile);
        continue;
      }
      this.#dispatch({ type: 'take', tile });
      placed.push({ tile, offset });
    }
    return placed;
  }

  #checkWantable(tile: number): void {
    if (this.#state.phase === 'new') throw misuse('a take came before start');
    const { pinnedPlaces, streamedPlaces } = this.#layout;
    if (!pinnedPlaces.has(tile) && !streamedPlaces.has(tile))
      throw misuse(`tile ${tile} is not of this window`);
    if (isTaken(this.#state, tile)) throw misuse(`tile ${tile} was taken and not released`);
  }

  #wait(tiles: readonly number[]): Promise<PlacedNow[]> {
    const { promise, resolve, reject } = promiseWithResolvers<PlacedNow[]>();
    const { now, deadline } = this.#options;
    const timer = deadline?.timers.setTimeout(() => {
      this.#endWait()?.reject(
        new PotluckError(
          'DEADLINE',
          `Tile ${tiles[0]} was not read within ${deadline.milliseconds} ms: the disk is too slow or does not answer.`,
        ),
      );
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
  }

  #perform(action: WindowAction): void {
    if (action.type === 'read') {
      const read = this.#read(action.tile, action.offset);
      this.#reads.add(read);
      void read.then(() => this.#reads.delete(read));
    } else if (action.type === 'ready') {
      const pinned = this.#layout.pinnedPlaces.has(action.tile);
      if (pinned) this.#loaded.set(action.tile, { tile: action.tile, offset: action.offset });
      this.#settleStart();
      this.#settleTake();
    } else {
      this.#fail(action.tile, action.error);
    }
  }

  /** Never rejects: what went wrong is an event. */
  async #read(tile: number, offset: number): Promise<void> {
    const { source, memory } = this.#options;
    try {
      await source.read(tile, memory, offset);
    } catch (error) {
      this.#failedReads++;
      this.#dispatch({ type: 'readFailed', tile, error });
      return;
    }
    this.#readCount++;
    const place = this.#layout.streamedPlaces.get(tile);
    if (place !== undefined) this.#streamedBytes += this.#layout.streamed[place]!.bytes;
    this.#dispatch({ type: 'readDone', tile });
  }

  #settleStart(): void {
    if (this.#loaded.size < this.#layout.pinned.length) return;
    this.#starting?.resolve();
    this.#starting = undefined;
  }

  #settleTake(): void {
    if (!this.#waiting) return;
    const placed = this.#collect(this.#waiting.tiles);
    if (placed.length > 0) this.#endWait()?.resolve(placed);
  }

  /** An error of a tile that nobody waits for is not lost: a take of that tile reads it again. */
  #fail(tile: number, error: unknown): void {
    if (this.#starting && this.#layout.pinnedPlaces.has(tile)) {
      this.#starting.reject(error);
      this.#starting = undefined;
    }
    if (this.#waiting?.tiles[0] === tile) this.#endWait()?.reject(error);
  }
}

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
