import type { LogitRow, PassRunner, PassSequence } from '../../src/engine/pass-runner.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { PAGE_POSITIONS } from '../../src/pack/tile-shape.ts';

/**
 * A model whose logits depend on every token of a sequence as it is read back from the KV pages: a wrong page table, a page used
 * twice or keys of an old plan give other logits. It also checks what a runner may demand of a pass.
 */

export const VOCABULARY = 48;

function hashOf(tokens: readonly number[]): number {
  let state = 0x811c9dc5;
  for (const token of tokens) {
    state = Math.imul(state ^ (token + 1), 0x01000193);
    state ^= state >>> 15;
  }
  return state;
}

/**
 * Logits after `tokens`; [VOCABULARY]. A model that `repeats` looks at the last token only, but for one time in 64: its
 * answers come back to what they had.
 */
export function modelLogits(tokens: readonly number[], repeats = false): Float32Array {
  const whole = hashOf(tokens);
  const state = repeats && (whole & 63) !== 0 ? hashOf(tokens.slice(-1)) : whole;
  const row = new Float32Array(VOCABULARY);
  for (let id = 0; id < VOCABULARY; id++) {
    let x = Math.imul(state ^ Math.imul(id + 1, 0x9e3779b9), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    row[id] = (((x ^ (x >>> 16)) >>> 0) / 2 ** 32) * 8 - 4;
  }
  return row;
}

export interface FakeOptions {
  kvPages?: number;
  context?: number;
  maxTokens?: number;
  maxLogitRows?: number;
  repeats?: boolean;
}

const macrotask = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

export class FakeRunner implements PassRunner {
  epoch = 1;
  kvPages: number;
  context: number;
  maxTokens: number;
  maxLogitRows: number;
  readonly vocabulary = VOCABULARY;
  rotationSwitch = Number.POSITIVE_INFINITY;
  readonly repeats: boolean;
  /** Every pass that ran, as sequences were given. */
  readonly passes: (readonly PassSequence[])[] = [];
  readyCalls = 0;
  /** Called when a pass begins; what it throws rejects the pass. */
  onRun: (pass: number) => void | Promise<void> = () => undefined;
  onReady: (signal: AbortSignal) => void | Promise<void> = () => undefined;
  /** Called with the rows of a pass before they are handed over. */
  onRows: (rows: LogitRow[]) => void = () => undefined;
  #runs = 0;
  #busy = false;
  #slots: Int32Array;

  constructor({
    kvPages = 64,
    context = 512,
    maxTokens = 32,
    maxLogitRows = 8,
    repeats = false,
  }: FakeOptions = {}) {
    this.repeats = repeats;
    this.kvPages = kvPages;
    this.context = context;
    this.maxTokens = maxTokens;
    this.maxLogitRows = maxLogitRows;
    this.#slots = new Int32Array(kvPages * PAGE_POSITIONS).fill(-1);
  }

  /** Another plan: what the pages held is gone. */
  newEpoch(options: { kvPages?: number; context?: number } = {}): void {
    this.epoch++;
    this.kvPages = options.kvPages ?? this.kvPages;
    this.context = options.context ?? this.context;
    this.#slots = new Int32Array(this.kvPages * PAGE_POSITIONS).fill(-1);
  }

  async ready(signal: AbortSignal): Promise<void> {
    this.readyCalls++;
    await this.onReady(signal);
  }

  async run(sequences: readonly PassSequence[]): Promise<LogitRow[]> {
    if (this.#busy) throw new Error('two passes at a time');
    this.#busy = true;
    try {
      this.#check(sequences);
      const epoch = this.epoch;
      await this.onRun(this.#runs++);
      const rows = sequences.flatMap(s => this.#compute(s));
      await macrotask();
      if (this.epoch !== epoch) throw new PotluckError('DEVICE_LOST', 'the plan changed');
      this.passes.push(sequences);
      this.onRows(rows);
      return rows;
    } finally {
      this.#busy = false;
    }
  }

  #check(sequences: readonly PassSequence[]): void {
    const tokens = sequences.reduce((n, s) => n + s.tokens.length, 0);
    const rows = sequences.reduce((n, s) => n + s.logitsAt.length, 0);
    if (tokens < 1 || tokens > this.maxTokens) throw new Error(`${tokens} tokens in a pass`);
    if (rows > this.maxLogitRows) throw new Error(`${rows} rows in a pass`);
    const pages = sequences.flatMap(s => [...s.pages]);
    if (new Set(pages).size !== pages.length) throw new Error('a page is in two places');
    if (pages.some(p => !(p >= 0 && p < this.kvPages))) throw new Error('a page is out of range');
    for (const s of sequences) {
      const end = s.start + s.tokens.length;
      if (s.tokens.length === 0 || end > this.context || end > s.pages.length * PAGE_POSITIONS) {
        throw new Error(`positions ${s.start} to ${end} do not fit`);
      }
    }
  }

  #compute({ pages, start, tokens, logitsAt }: PassSequence): LogitRow[] {
    const slot = (p: number): number =>
      pages[Math.floor(p / PAGE_POSITIONS)]! * PAGE_POSITIONS + (p % PAGE_POSITIONS);
    tokens.forEach((token, i) => {
      this.#slots[slot(start + i)] = token;
    });
    return logitsAt.map(at => {
      const seen = Array.from({ length: start + at + 1 }, (_, p) => this.#slots[slot(p)]!);
      return modelLogits(seen, this.repeats);
    });
  }
}
