import type { Backend, Batch, Half, ModelMemory, PlacedTile, Step } from '../../src/kernels/backend.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import type { TileKind } from '../../src/pack/manifest.ts';
import {
  constantOffset,
  paddedVocabulary,
  tileBytes,
  tileCount,
  tilePanels,
  tileQueryHeads,
} from '../../src/pack/tile-shape.ts';
import { decodePanel, unrotated } from './decode-panel.ts';

/**
 * A backend that computes with the decoded tiles in plain float64, one sequence at a time. Weights are exact,
 * activations are not quantized: what it gives differs from the native kernels by rounding and by A8.
 */
export function plainBackend(): Backend {
  return {
    name: 'plain',
    exact: false,
    threads: 1,
    logitMath: SCRIPT_LOGIT_MATH,
    allocate: bytes => new ArrayBuffer(bytes),
    discard: () => undefined,
    release: () => undefined,
    openModel: memory => new PlainModel(memory),
    close: () => undefined,
  };
}

type Matrix = Float32Array[];

class PlainModel {
  readonly pass;
  #memory: ModelMemory;
  #batch: Batch | undefined;
  #normed: Float64Array[] = [];
  readonly #decoded = new Map<string, Matrix[]>();

  constructor(memory: ModelMemory) {
    this.#memory = memory;
    const { shape, maxTokens, maxLogitRows } = memory;
    this.pass = {
      maxTokens,
      maxLogitRows,
      residual: new Float32Array(maxTokens * shape.width),
      partial: new Int32Array(maxTokens * shape.width),
      logits: new Float32Array(maxLogitRows * paddedVocabulary(shape)),
      routes: new Int32Array(0),
    };
  }

  get activationBytes(): number {
    return this.pass.residual.byteLength + this.pass.partial.byteLength;
  }

  setBatch(batch: Batch): void {
    this.#batch = batch;
  }

  setConstants(constants: ArrayBuffer): void {
    this.#memory = { ...this.#memory, constants };
  }

  close(): void {
    this.#decoded.clear();
  }

  run(steps: readonly Step[]): Promise<{ computeMicroseconds: number; saturated: number }> {
    let saturated = 0;
    for (const step of steps) saturated += this.#step(step);
    return Promise.resolve({ computeMicroseconds: 0, saturated });
  }

  #constant(what: Parameters<typeof constantOffset>[1], layer = 0): Float32Array {
    const { shape, constants } = this.#memory;
    return new Float32Array(constants, constantOffset(shape, what, layer) * 4, shape.width);
  }

  #norm(token: number, weight: Float32Array): Float64Array {
    const { width, normEpsilon } = this.#memory.shape;
    const x = this.pass.residual.subarray(token * width, (token + 1) * width);
    const mean = x.reduce((sum, value) => sum + value * value, 0) / width;
    return Float64Array.from(x, (value, j) => (value / Math.sqrt(mean + normEpsilon)) * weight[j]!);
  }

  #step(step: Step): number {
    const { width } = this.#memory.shape;
    const tokens = this.#batch!.positions.length;
    const scaleOf = (half: Half) => (half === 'attention' ? 'attentionScale' : 'ffnScale');
    if (step.op === 'begin') {
      this.pass.partial.fill(0);
      const norm = this.#constant(step.half === 'attention' ? 'attentionNorm' : 'ffnNorm', step.layer);
      this.#normed = Array.from({ length: tokens }, (_, token) => this.#norm(token, norm));
    } else if (step.op === 'tiles') {
      let saturated = 0;
      for (const tile of step.tiles) {
        const outputs =
          step.half === 'attention' ? this.#attention(tile, step.layer) : this.#ffn(tile, step.layer);
        saturated += this.#addFixed(
          outputs,
          this.#constant(scaleOf(step.half), step.layer),
          tileCount(this.#memory.shape, step.half),
        );
      }
      return saturated;
    } else if (step.op === 'end') {
      const scale = this.#constant(scaleOf(step.half), step.layer);
      for (let i = 0; i < tokens * width; i++)
        this.pass.residual[i]! += this.pass.partial[i]! / scale[i % width]!;
    } else if (step.op === 'head-begin') {
      this.#normed = [...this.#batch!.logitRows].map(token => this.#norm(token, this.#constant('finalNorm')));
    } else if (step.op === 'head-tiles') {
      for (const tile of step.tiles) this.#head(tile);
    } else {
      throw new Error(`no ${step.op} here`);
    }
    return 0;
  }

  #addFixed(outputs: Float64Array[], scale: Float32Array, tiles: number): number {
    const limit = (2 ** 31 - 1) / tiles;
    let saturated = 0;
    outputs.forEach((output, token) => {
      output.forEach((value, j) => {
        const scaled = value * scale[j]!;
        if (!(Math.abs(scaled) <= limit)) saturated++;
        const clamped = Number.isNaN(scaled) ? 0 : Math.min(limit, Math.max(-limit, scaled));
        this.pass.partial[token * output.length + j]! += Math.round(clamped);
      });
    });
    return saturated;
  }

  /** Memory is used again for each layer, so the layer is part of the key. */
  #panels(kind: TileKind, tile: PlacedTile, layer: number): Matrix[] {
    const { shape, weights } = this.#memory;
    const key = `${layer} ${tile.offset}`;
    const known = this.#decoded.get(key);
    if (known) return known;
    const bytes = new Uint8Array(weights, tile.offset, tileBytes(shape, kind));
    const stored = tilePanels(shape, kind).map(panel => decodePanel(shape.weights, panel, bytes));
    const panels = unrotated(shape, stored);
    this.#decoded.set(key, panels);
    return panels;
  }

  #attention(tile: PlacedTile, layer: number): Float64Array[] {
    const { shape } = this.#memory;
    const [q, k, v, o] = this.#panels('attention', tile, layer) as [Matrix, Matrix, Matrix, Matrix];
    const d = shape.headDim;
    const heads = tileQueryHeads(shape);
    const keys = this.#normed.map((x, token) => this.#rotate(multiply(k, x, d), token));
    const values = this.#normed.map(x => multiply(v, x, d));
    return this.#normed.map((x, token) => {
      const queries = multiply(q, x, heads * d);
      const mixed = new Float64Array(heads * d);
      for (let head = 0; head < heads; head++) {
        const query = this.#rotate(queries.slice(head * d, (head + 1) * d), token);
        const scores = keys.slice(0, token + 1).map(key => dot(query, key) / Math.sqrt(d));
        const most = Math.max(...scores);
        const shares = scores.map(score => Math.exp(score - most));
        const all = shares.reduce((a, b) => a + b, 0);
        shares.forEach((share, t) => {
          for (let i = 0; i < d; i++) mixed[head * d + i]! += (share / all) * values[t]![i]!;
        });
      }
      return multiply(o, mixed, shape.width);
    });
  }

  #rotate(x: Float64Array, token: number): Float64Array {
    const { frequencies } = this.#memory.shape.rotations[0]!;
    const half = x.length / 2;
    const out = new Float64Array(x.length);
    frequencies.forEach((frequency, i) => {
      const angle = this.#batch!.positions[token]! * frequency;
      out[i] = x[i]! * Math.cos(angle) - x[i + half]! * Math.sin(angle);
      out[i + half] = x[i + half]! * Math.cos(angle) + x[i]! * Math.sin(angle);
    });
    return out;
  }

  #ffn(tile: PlacedTile, layer: number): Float64Array[] {
    const { shape } = this.#memory;
    const [both, down] = this.#panels('ffn', tile, layer) as [Matrix, Matrix];
    return this.#normed.map(x => {
      const h = new Float64Array(shape.tiling.ffnColumns);
      for (let i = 0; i < h.length; i++) {
        const row = Math.floor(i / 16) * 32 + (i % 16);
        const gate = dot(both[row]!, x);
        h[i] = (gate / (1 + Math.exp(-gate))) * dot(both[row + 16]!, x);
      }
      return multiply(down, h, shape.width);
    });
  }

  #head(tile: PlacedTile): void {
    const { shape } = this.#memory;
    const [rows] = this.#panels('head', tile, -1) as [Matrix];
    this.#normed.forEach((x, row) => {
      this.pass.logits.set(
        multiply(rows, x, shape.tiling.headRows),
        row * paddedVocabulary(shape) + tile.slot,
      );
    });
  }
}

function dot(weights: ArrayLike<number>, x: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += weights[i]! * x[i]!;
  return sum;
}

function multiply(matrix: Matrix, x: Float64Array, rows: number): Float64Array {
  return Float64Array.from({ length: rows }, (_, row) => dot(matrix[row]!, x));
}
