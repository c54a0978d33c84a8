import { logitFrameBytes } from '../allreduce/frame-memory.ts';
import { passLimits } from '../engine/device-tiles.ts';
import { PotluckError } from '../errors/errors.ts';
import type { ModelShape } from '../pack/manifest.ts';
import { constantsFloats, kvPageBytes } from '../pack/tile-shape.ts';
import {
  type Accounted,
  accountMemory,
  given,
  type MemoryAccount,
  mebibytes,
  passLogitBytes,
} from './memory-account.ts';
import { firstBudget, nextBudget } from './memory-budget.ts';
import type { ProcessMemory, SystemMemory } from './process-memory.ts';

export interface MemoryKeeperOptions {
  /** Bytes the whole process may take; 'auto': what the system can spare; null: no budget. */
  readonly budget: number | 'auto' | null;
  /** Most bytes for tiles, whatever the budget leaves; null: no further limit. */
  readonly windowBytes: number | null;
  readonly count: () => ProcessMemory;
  readonly system: () => SystemMemory;
  /** Resolves so many milliseconds later. */
  readonly pause: (milliseconds: number) => Promise<void>;
}

/** A plan's part of a device, as far as memory is concerned. */
export interface PlanNeeds {
  readonly shape: ModelShape;
  readonly attentionTiles: number;
  readonly tileBytes: number;
  readonly leastWindow: number;
  /** Of the links to other devices; they are written before the plan is opened here. */
  readonly frameBytes: number;
  /** Of a row of logits that goes over the links; their memory is made when they are asked for. */
  readonly logitRowBytes: number;
}

/** What of a plan takes memory, once it is open. */
export interface OpenMemory extends PlanNeeds {
  readonly activationBytes: number;
  /** The window of tiles: takes at most `memoryBytes`, and keeps to a new budget from the next pass on. */
  readonly window: {
    readonly memoryBytes: number;
    /** Highest `memoryBytes` since the last call. */
    highestBytes(): number;
    resize(budget: number): void;
  };
}

/** What a worker that renders chats takes; measured: 7 to 14 MiB. */
const WORKER = 14 << 20;
/**
 * What a daemon takes more than at its start, once it has done everything, beside the tokenizer. Measured: up to 5 MiB until the first
 * plan, 14 of code that is compiled for requests, and that worker.
 */
const GROWTH = (22 << 20) + WORKER;
/** Room that a start leaves for plans of several devices, which have links and frames, and for more positions than the least. */
const LATER_PLANS = 8 << 20;
/** What starts differ by. Measured: up to 5 MiB, 6 on a busy machine. */
const START_SPREAD = 8 << 20;
/** Room for what it may grow between two looks, once it works as it always does. */
const STEADY_RESERVE = 8 << 20;
/** From this many passes on it does. */
const STEADY_PASSES = 48;
/** Looks over which the largest size counts: a minute at two a second. */
const LOOKS = 120;
/** Tiles are pinned or given up in steps of at least this. */
const LEAST_CHANGE = 4 << 20;
/** Tiles make room when a pass ends: how often that is looked at, and how long a pass may take. */
const ROOM_STEP = 5;
const ROOM_MILLISECONDS = 60_000;

/**
 * Holds the account of one device: looks at what the process takes, follows `--memory auto`, and lets the window of tiles
 * grow into what is left or give memory back. Tiles are the ballast: whatever else grows, they make room.
 */
export class MemoryKeeper {
  readonly #options: MemoryKeeperOptions;
  readonly #first: number | null;
  #budget: number | null;
  /** What the process is expected to take beside a plan in the end. */
  #expected: number;
  #open: OpenMemory | null = null;
  #accounted: Accounted | null = null;
  /** What the process took beside the plan, at the last looks. */
  #looks: number[] = [];
  #highWater = 0;
  #regionsBefore = 0;
  #kvPagesUsed = 0;
  #logitRowsUsed = 0;
  #passes = 0;
  /** Workers that were given room and did not end, and what the process took before the first. */
  #workers = 0;
  #beforeWorkers = 0;
  #weights = 0;
  #over: string | null = null;
  /** Between `close` and `freed`. */
  #closing = false;

  constructor(options: MemoryKeeperOptions) {
    this.#options = options;
    const { budget, count, system } = options;
    this.#first = budget === 'auto' ? firstBudget(system(), count().residentBytes) : budget;
    this.#budget = this.#first;
    this.look();
    this.#expected = this.#processBytes() + GROWTH;
  }

  /** The budget now; `--memory auto` changes it. */
  get budget(): number | null {
    return this.#budget;
  }

  get account(): MemoryAccount | null {
    return this.#accounted?.account ?? null;
  }

  /** What a user should know; one sentence each. */
  get notes(): readonly string[] {
    const cut = this.#budget !== this.#first;
    const auto = cut
      ? `Memory is short on this system: the budget went from ${mebibytes(this.#first!)} to ${mebibytes(this.#budget!)} for now.`
      : null;
    return [auto, this.#over].filter(note => note !== null);
  }

  /** Bytes for weights, whatever the model; Infinity without a budget. */
  get weightBytes(): number {
    const { reserveBytes, laterBytes } = this.#growth();
    const own =
      this.#budget === null ? Infinity : this.#budget - this.#processBytes() - reserveBytes - laterBytes;
    return Math.max(0, Math.min(own, this.#options.windowBytes ?? Infinity));
  }

  /**
   * Throws MEMORY_TOO_SMALL where a daemon that only started could never serve such a plan. `tokenizerBytes`: what its tokenizer
   * will take, which is not open yet.
   */
  check(needs: PlanNeeds, tokenizerBytes: number): void {
    const { windowBytes } = this.#options;
    if (windowBytes !== null && windowBytes < needs.leastWindow)
      throw new PotluckError(
        'MEMORY_TOO_SMALL',
        `--window ${given(windowBytes)} is too small: this model takes at least ${needs.leastWindow} bytes, for two tiles.`,
      );
    this.look();
    this.#expected = this.#processBytes() + GROWTH + tokenizerBytes;
    const { reserveBytes, laterBytes } = this.#growth();
    this.#make(needs, null, {
      reserveBytes,
      laterBytes: laterBytes + LATER_PLANS,
      marginBytes: START_SPREAD,
    });
  }

  /** The account of a plan before it is opened: no tile is in memory. Throws MEMORY_TOO_SMALL. */
  plan(needs: PlanNeeds): Accounted {
    this.look();
    return this.#make(needs, null, this.#growth());
  }

  /** From now on the window is kept to the account. Throws MEMORY_TOO_SMALL. */
  open(open: OpenMemory): Accounted {
    this.#kvPagesUsed = 0;
    this.#logitRowsUsed = 0;
    this.#passes = 0;
    this.#looks = [];
    this.#open = open;
    this.look();
    this.#accounted = this.#make(open, open.activationBytes, this.#growth());
    this.#resize(this.#accounted.account.weights);
    return this.#accounted;
  }

  /**
   * The tiles that stay are in memory: what was counted since `open` is forgotten. Half loaded, they take up to half as much again, as
   * the system gives memory in huge pages and neighbours at home are not read one after another.
   */
  loaded(): void {
    this.#looks.length = Math.min(this.#looks.length, 1);
    this.look();
    this.#adjust();
  }

  /** The plan ends: its window is left alone from now on. */
  close(): void {
    this.look();
    this.#open = null;
    this.#accounted = null;
    this.#over = null;
    this.#closing = true;
  }

  /** The memory of the plan that was closed is given back: what is counted from now on is the process alone. */
  freed(): void {
    this.#closing = false;
  }

  /**
   * Before a pass that writes KV pages up to `pages` and is asked for `logitRows` rows: tiles make room for pages that were never
   * written, and for more rows than ever.
   */
  beginPass(pages: number, logitRows: number): void {
    this.#passes++;
    const known = pages <= this.#kvPagesUsed && logitRows <= this.#logitRowsUsed;
    if (known && this.#passes !== STEADY_PASSES) return;
    this.#kvPagesUsed = Math.max(this.#kvPagesUsed, pages);
    this.#logitRowsUsed = Math.max(this.#logitRowsUsed, logitRows);
    this.#adjust();
  }

  /**
   * Before a worker that renders chats starts: resolves when tiles have made room for it, which they do between two passes. Rejects
   * with DEADLINE where that takes over a minute.
   */
  async roomForWorker(): Promise<void> {
    if (this.#workers++ === 0) this.#beforeWorkers = this.#processBytes();
    this.#adjust();
    for (let waited = 0; (this.#open?.window.memoryBytes ?? 0) > this.#weights; waited += ROOM_STEP) {
      if (waited >= ROOM_MILLISECONDS) {
        this.workerEnded();
        throw new PotluckError(
          'DEADLINE',
          'The chat could not be rendered: tiles made no room within a minute.',
        );
      }
      await this.#options.pause(ROOM_STEP);
    }
  }

  /** A worker that was given room ended, or did not start. */
  workerEnded(): void {
    this.#workers--;
  }

  /** To be called about twice a second. */
  tick(): void {
    this.look();
    const { budget, system, count } = this.#options;
    if (budget === 'auto') {
      this.#budget = nextBudget(this.#budget!, this.#first!, system(), count().residentBytes);
    }
    this.#adjust();
  }

  /** Counts what the process takes beside the plan. */
  look(): void {
    if (this.#closing) return;
    const { residentBytes, highWaterBytes } = this.#options.count();
    const open = this.#open;
    const regions = this.#regions(open?.window.memoryBytes ?? 0);
    const highest = this.#regions(open?.window.highestBytes() ?? 0);
    let beside = residentBytes - regions;
    // A new high mark was reached between two looks, when the regions were at most at their highest.
    if (highWaterBytes > this.#highWater && this.#looks.length > 0)
      beside = Math.max(beside, highWaterBytes - Math.max(highest, this.#regionsBefore));
    this.#highWater = highWaterBytes;
    this.#regionsBefore = regions;
    this.#looks.push(beside);
    if (this.#looks.length > LOOKS) this.#looks.shift();
  }

  #processBytes(): number {
    return Math.max(...this.#looks);
  }

  /**
   * Room for what the process may grow: what was not seen yet of all that it ever grows. What a worker takes comes later, when one
   * is asked for. `steady`: the plan works as it always does.
   */
  #growth(steady = false): { reserveBytes: number; laterBytes: number } {
    const process = this.#processBytes();
    const unseen = steady ? 0 : this.#expected - process;
    if (this.#workers === 0) {
      const reserveBytes = Math.max(STEADY_RESERVE, unseen - WORKER);
      return { reserveBytes, laterBytes: Math.max(STEADY_RESERVE + WORKER, unseen) - reserveBytes };
    }
    const workers = Math.max(0, this.#workers * WORKER - Math.max(0, process - this.#beforeWorkers));
    return { reserveBytes: Math.max(STEADY_RESERVE + workers, unseen), laterBytes: 0 };
  }

  /** Memory that the plan takes, with so many bytes of tiles. */
  #regions(tiles: number): number {
    const open = this.#open;
    if (!open) return 0;
    const { shape, logitRowBytes } = open;
    const kv = this.#kvPagesUsed * kvPageBytes(shape, open.attentionTiles);
    const logits = logitFrameBytes(logitRowBytes, this.#logitRowsUsed, passLimits(shape).maxLogitRows);
    const buffers = constantsFloats(shape) * 4 + open.activationBytes + open.frameBytes;
    return buffers + passLogitBytes(shape, this.#logitRowsUsed) + logits + kv + tiles;
  }

  #make(
    needs: PlanNeeds,
    activationBytes: number | null,
    growth: {
      readonly reserveBytes: number;
      readonly laterBytes: number | null;
      readonly marginBytes?: number;
    },
    kvPagesUsed = 0,
    logitRowsUsed = 0,
  ): Accounted {
    const { shape, attentionTiles, tileBytes, leastWindow, frameBytes, logitRowBytes } = needs;
    return accountMemory({
      // A start asks for room for later plans, too.
      marginBytes: START_SPREAD + LATER_PLANS,
      ...{ shape, attentionTiles, tileBytes, leastWindow, frameBytes, logitRowBytes },
      ...{ activationBytes, ...growth, kvPagesUsed, logitRowsUsed },
      budget: this.#budget,
      windowBytes: this.#options.windowBytes,
      processBytes: this.#processBytes(),
    });
  }

  #adjust(): void {
    const open = this.#open;
    if (!open) return;
    try {
      const accounted = this.#make(
        open,
        open.activationBytes,
        { ...this.#growth(this.#passes >= STEADY_PASSES), laterBytes: null },
        this.#kvPagesUsed,
        this.#logitRowsUsed,
      );
      this.#accounted = { ...accounted, mostKvPages: this.#accounted!.mostKvPages };
      this.#over = null;
      const { weights } = accounted.account;
      const change = weights - this.#weights;
      if (change < 0 || change >= LEAST_CHANGE || weights === open.tileBytes) this.#resize(weights);
    } catch (error) {
      // The least window is all that can be done.
      this.#over = `The memory budget may not hold: ${error instanceof Error ? error.message : String(error)}`;
      this.#resize(open.leastWindow);
    }
  }

  #resize(weights: number): void {
    this.#weights = weights;
    this.#open?.window.resize(weights);
  }
}
