import type { Tensor } from '../model/small-checkpoint.ts';

/**
 * What transformers computes of a checkpoint, in double precision and plain loops, from the fields of config.json and the
 * names of tensors alone: nothing here is shared with src.
 */

// biome-ignore lint/suspicious/noExplicitAny: a config.json is what it is
export type Config = Record<string, any>;
export type Tensors = ReadonlyMap<string, Tensor>;
type Vector = Float64Array;

/** What config classes have where a config.json leaves a field out: those that all have, then those of each. */
const ALL_DEFAULTS: Config = {
  hidden_act: 'silu',
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-6,
  rope_theta: 1e4,
  tie_word_embeddings: false,
};
const GEMMA: Config = {
  hidden_activation: 'gelu_pytorch_tanh',
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  tie_word_embeddings: true,
};
const QWEN: Config = { max_position_embeddings: 32768, sliding_window: 4096, max_window_layers: 28 };
const GRANITE: Config = { attention_multiplier: 1 };
const CLASS_DEFAULTS: Record<string, Config> = {
  mistral: { num_key_value_heads: 8, max_position_embeddings: 131072, sliding_window: 4096 },
  mixtral: {
    num_key_value_heads: 8,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 1e6,
    num_local_experts: 8,
    num_experts_per_tok: 2,
  },
  qwen2: { ...QWEN, num_key_value_heads: 32 },
  qwen3: { ...QWEN, num_key_value_heads: 32, head_dim: 128 },
  qwen3_moe: {
    ...QWEN,
    num_key_value_heads: 4,
    num_experts: 128,
    num_experts_per_tok: 8,
    moe_intermediate_size: 768,
    norm_topk_prob: false,
  },
  gemma2: {
    ...GEMMA,
    max_position_embeddings: 8192,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
  },
  gemma3_text: { ...GEMMA, max_position_embeddings: 131072, rope_theta: 1e6, rope_local_base_freq: 1e4 },
  phi3: { max_position_embeddings: 4096, original_max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
  smollm3: {
    num_key_value_heads: 4,
    max_position_embeddings: 32768,
    rope_theta: 2e6,
    no_rope_layer_interval: 4,
    tie_word_embeddings: true,
  },
  olmo2: { rms_norm_eps: 1e-5 },
  olmo3: { rms_norm_eps: 1e-5, rope_theta: 5e5, sliding_window: 4096 },
  granite: GRANITE,
  granitemoe: { ...GRANITE, num_local_experts: 8, num_experts_per_tok: 2, shared_intermediate_size: 0 },
  granitemoeshared: { ...GRANITE, num_local_experts: 8, num_experts_per_tok: 2, shared_intermediate_size: 0 },
  granitemoehybrid: {
    ...GRANITE,
    num_local_experts: 8,
    num_experts_per_tok: 2,
    shared_intermediate_size: 1024,
  },
};

/** A config with what it leaves out. */
export const completed = (config: Config): Config => ({
  ...ALL_DEFAULTS,
  ...CLASS_DEFAULTS[config.model_type],
  ...JSON.parse(JSON.stringify(config)),
});

const FAMILIES: Record<string, Config> = {
  gemma2: { plusOne: true, sandwich: true, scaled: true },
  gemma3_text: { plusOne: true, sandwich: true, scaled: true, headNorm: true },
  olmo2: { behind: true, wholeNorm: true },
  olmo3: { behind: true, wholeNorm: true },
  qwen2: { queryBias: true },
  qwen3: { headNorm: true },
  qwen3_moe: { headNorm: true },
};

/** Logits after each of `ids`. `lengths`: positions that count for the rotation of each token. */
export function oracleLogits(
  config: Config,
  tensors: Tensors,
  ids: readonly number[],
  lengths: readonly number[] = ids.map(() => ids.length),
): Vector[] {
  return new Oracle(config, tensors, lengths).logits(ids);
}

class Oracle {
  readonly c: Config;
  readonly family: Config;
  readonly tensors: Tensors;
  readonly lengths: readonly number[];
  readonly headDim: number;
  readonly kvHeads: number;

  constructor(config: Config, tensors: Tensors, lengths: readonly number[]) {
    this.c = completed(config);
    this.family = FAMILIES[config.model_type] ?? {};
    this.tensors = tensors;
    this.lengths = lengths;
    this.kvHeads = this.c.num_key_value_heads ?? this.c.num_attention_heads;
    this.headDim = this.c.head_dim ?? this.c.hidden_size / this.c.num_attention_heads;
  }

  logits(ids: readonly number[]): Vector[] {
    const { c } = this;
    const embedding = this.tensor('model.embed_tokens.weight');
    const scale = this.family.scaled ? Math.sqrt(c.hidden_size) : (c.embedding_multiplier ?? 1);
    let x: Vector[] = ids.map(id => row(embedding, id).map(value => value * scale));
    for (let layer = 0; layer < c.num_hidden_layers; layer++) x = this.layer(layer, x);
    const head = c.tie_word_embeddings ? embedding : this.tensor('lm_head.weight');
    const cap = c.final_logit_softcapping;
    return x.map(h =>
      times(head, this.norm(h, 'model.norm')).map(value => {
        const scaled = value / (c.logits_scaling ?? 1);
        return cap ? cap * Math.tanh(scaled / cap) : scaled;
      }),
    );
  }

  layer(layer: number, x: Vector[]): Vector[] {
    const name = `model.layers.${layer}.`;
    const { behind, sandwich } = this.family;
    const multiplier = this.c.residual_multiplier ?? 1;
    const before = (h: Vector, norm: string) => (behind ? h : this.norm(h, name + norm));
    const after = (h: Vector, norm: string) => (behind || sandwich ? this.norm(h, name + norm) : h);
    const attended = this.attention(
      layer,
      x.map(h => before(h, 'input_layernorm')),
    );
    const middle = x.map((h, t) => {
      const sum = after(attended[t]!, 'post_attention_layernorm');
      return h.map((value, j) => value + sum[j]! * multiplier);
    });
    return middle.map(h => {
      const input = before(h, sandwich ? 'pre_feedforward_layernorm' : 'post_attention_layernorm');
      const sum = after(this.ffn(layer, input), 'post_feedforward_layernorm');
      return h.map((value, j) => value + sum[j]! * multiplier);
    });
  }

  attention(layer: number, x: Vector[]): Vector[] {
    const { c, headDim, kvHeads } = this;
    const name = `model.layers.${layer}.self_attn.`;
    const projected = x.map((h, t) => {
      const [q, k, v] = this.project(name, h);
      const turn = (heads: Vector) => this.turn(layer, heads, t);
      if (this.family.wholeNorm)
        return [turn(this.norm(q, `${name}q_norm`)), turn(this.norm(k, `${name}k_norm`)), v] as const;
      if (!this.family.headNorm) return [turn(q), turn(k), v] as const;
      const each = (heads: Vector, norm: string) =>
        eachHead(heads, headDim, head => this.norm(head, name + norm));
      return [turn(each(q, 'q_norm')), turn(each(k, 'k_norm')), v] as const;
    });
    const scale =
      c.attention_multiplier ?? (c.query_pre_attn_scalar ? c.query_pre_attn_scalar ** -0.5 : headDim ** -0.5);
    const window = this.window(layer);
    const group = c.num_attention_heads / kvHeads;
    return projected.map(([q], t) => {
      const out = new Float64Array(q.length);
      for (let head = 0; head < c.num_attention_heads; head++) {
        const at = Math.floor(head / group) * headDim;
        const scores: number[] = [];
        for (let s = 0; s <= t; s++) {
          const k = projected[s]![1];
          let score = 0;
          for (let d = 0; d < headDim; d++) score += q[head * headDim + d]! * k[at + d]!;
          score *= scale;
          const cap = c.attn_logit_softcapping;
          if (cap) score = cap * Math.tanh(score / cap);
          scores.push(window > 0 && s <= t - window ? Number.NEGATIVE_INFINITY : score);
        }
        softmax(scores).forEach((share, s) => {
          const v = projected[s]![2];
          for (let d = 0; d < headDim; d++) out[head * headDim + d]! += share * v[at + d]!;
        });
      }
      return this.linear(`${name}o_proj`, out);
    });
  }

  project(name: string, h: Vector): [Vector, Vector, Vector] {
    const queries = this.c.num_attention_heads * this.headDim;
    const keys = this.kvHeads * this.headDim;
    if (!this.tensors.has(`${name}qkv_proj.weight`))
      return [
        this.linear(`${name}q_proj`, h),
        this.linear(`${name}k_proj`, h),
        this.linear(`${name}v_proj`, h),
      ];
    const all = this.linear(`${name}qkv_proj`, h);
    return [all.slice(0, queries), all.slice(queries, queries + keys), all.slice(queries + keys)];
  }

  ffn(layer: number, h: Vector): Vector {
    const { c } = this;
    const name = `model.layers.${layer}.`;
    if (c.model_type.startsWith('granitemoe')) return this.graniteFfn(name, h);
    const router = ['block_sparse_moe.gate', 'mlp.gate'].find(gate =>
      this.tensors.has(`${name}${gate}.weight`),
    );
    if (router === undefined) return this.mlp(`${name}mlp.`, h);
    const shares = softmax([...this.linear(name + router, h)]);
    const best = [...shares.keys()].sort((a, b) => shares[b]! - shares[a]!).slice(0, c.num_experts_per_tok);
    const normalized = c.model_type === 'mixtral' || c.norm_topk_prob;
    const total = normalized ? best.reduce((sum, expert) => sum + shares[expert]!, 0) : 1;
    const out = new Float64Array(h.length);
    for (const expert of best)
      this.mlp(`${name}${router.replace('gate', '')}experts.${expert}.`, h).forEach((value, j) => {
        out[j]! += (value * shares[expert]!) / total;
      });
    return out;
  }

  graniteFfn(name: string, h: Vector): Vector {
    const { c } = this;
    const fused = (both: Vector) => {
      const half = both.length / 2;
      return both.slice(0, half).map((g, i) => (g / (1 + Math.exp(-g))) * both[half + i]!);
    };
    const out = new Float64Array(h.length);
    const add = (values: Vector, share: number) =>
      values.forEach((value, j) => {
        out[j]! += value * share;
      });
    if (c.shared_intermediate_size > 0)
      add(
        this.linear(
          `${name}shared_mlp.output_linear`,
          fused(this.linear(`${name}shared_mlp.input_linear`, h)),
        ),
        1,
      );
    if (!c.num_local_experts) return out;
    const scores = this.linear(`${name}block_sparse_moe.router.layer`, h);
    const best = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!).slice(0, c.num_experts_per_tok);
    const shares = softmax(best.map(expert => scores[expert]!));
    best.forEach((expert, i) => {
      const part = (which: string) => {
        const { shape, values } = this.tensor(`${name}block_sparse_moe.${which}_linear.weight`);
        const [, rows, columns] = shape as [number, number, number];
        const size = rows * columns;
        return { shape: [rows, columns], values: values.subarray(expert * size, (expert + 1) * size) };
      };
      add(times(part('output'), fused(times(part('input'), h))), shares[i]!);
    });
    return out;
  }

  mlp(name: string, h: Vector): Vector {
    const has = (part: string) => this.tensors.has(`${name}${part}.weight`);
    let gate: Vector;
    let up: Vector;
    if (has('gate_up_proj')) {
      const both = this.linear(`${name}gate_up_proj`, h);
      gate = both.slice(0, both.length / 2);
      up = both.slice(both.length / 2);
    } else {
      gate = this.linear(name + (has('w1') ? 'w1' : 'gate_proj'), h);
      up = this.linear(name + (has('w1') ? 'w3' : 'up_proj'), h);
    }
    const { c } = this;
    const gelu = (c.model_type.startsWith('gemma') ? c.hidden_activation : c.hidden_act) !== 'silu';
    const hidden = gate.map((g, i) => {
      const tanh = Math.tanh(Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3));
      return (gelu ? 0.5 * g * (1 + tanh) : g / (1 + Math.exp(-g))) * up[i]!;
    });
    return this.linear(name + (has('w2') ? 'w2' : 'down_proj'), hidden);
  }

  slides(layer: number): boolean {
    const { c } = this;
    if (c.layer_types) return c.layer_types[layer] === 'sliding_attention';
    if (c.model_type === 'gemma2') return layer % 2 === 0;
    if (c.model_type === 'gemma3_text') return (layer + 1) % (c.sliding_window_pattern ?? 6) !== 0;
    if (c.model_type === 'olmo3') return (layer + 1) % 4 !== 0;
    if (['mistral', 'mixtral', 'phi3'].includes(c.model_type)) return true;
    if (c.model_type === 'qwen3_moe') return c.use_sliding_window;
    if (c.model_type.startsWith('qwen')) return c.use_sliding_window && layer >= c.max_window_layers;
    return c.model_type === 'smollm3' && c.use_sliding_window && !this.rotates(layer);
  }

  rotates(layer: number): boolean {
    const { c } = this;
    if (c.model_type === 'granitemoehybrid') return c.position_embedding_type === 'rope';
    if (c.no_rope_layers) return c.no_rope_layers[layer] === 1;
    return c.model_type !== 'smollm3' || (layer + 1) % c.no_rope_layer_interval !== 0;
  }

  window = (layer: number): number => (this.slides(layer) ? (this.c.sliding_window ?? 0) : 0);

  turn(layer: number, heads: Vector, t: number): Vector {
    const { headDim } = this;
    if (!this.rotates(layer)) return heads;
    const { frequencies, magnitude } = this.angles(layer, this.lengths[t]!);
    const n = frequencies.length;
    return eachHead(heads, headDim, head => {
      const out = head.slice();
      for (let i = 0; i < n; i++) {
        const [cos, sin] = [
          Math.cos(t * frequencies[i]!) * magnitude,
          Math.sin(t * frequencies[i]!) * magnitude,
        ];
        out[i] = head[i]! * cos - head[i + n]! * sin;
        out[i + n] = head[i + n]! * cos + head[i]! * sin;
      }
      return out;
    });
  }

  angles(layer: number, length: number): { frequencies: number[]; magnitude: number } {
    const { c } = this;
    const kind = this.slides(layer) ? 'sliding_attention' : 'full_attention';
    const given = c.rope_parameters ?? c.rope_scaling ?? {};
    const nested = given.full_attention !== undefined || given.sliding_attention !== undefined;
    // In these families layers that slide turn by the plain rule.
    const plainly = ['gemma3_text', 'olmo3'].includes(c.model_type) && kind === 'sliding_attention';
    const rope: Config = nested ? (given[kind] ?? {}) : plainly ? { rope_theta: given.rope_theta } : given;
    const theta = (plainly && c.rope_local_base_freq) || c.rope_theta;
    return this.frequencies(rope, rope.rope_theta ?? theta, length);
  }

  frequencies(rope: Config, theta: number, length: number): { frequencies: number[]; magnitude: number } {
    const { c } = this;
    const type = (rope.rope_type ?? rope.type ?? 'default').replace(/^su$/, 'longrope');
    const dims = Math.floor(this.headDim * (rope.partial_rotary_factor ?? c.partial_rotary_factor ?? 1));
    const plain = (base: number) => Array.from({ length: dims / 2 }, (_, i) => base ** ((-2 * i) / dims));
    const most = c.max_position_embeddings;
    const original = rope.original_max_position_embeddings ?? c.original_max_position_embeddings ?? most;
    const ln = Math.log;
    if (type === 'linear')
      return { frequencies: plain(theta).map(value => value / rope.factor), magnitude: 1 };
    if (type === 'dynamic') {
      const longest = Math.max(length, most);
      const grown = theta * ((rope.factor * longest) / most - (rope.factor - 1)) ** (dims / (dims - 2));
      return { frequencies: plain(grown), magnitude: 1 };
    }
    if (type === 'longrope') {
      const factors = length > original ? rope.long_factor : rope.short_factor;
      const factor = rope.factor ?? most / original;
      return {
        frequencies: plain(theta).map((value, i) => value / factors[i]),
        magnitude: rope.attention_factor ?? (factor <= 1 ? 1 : Math.sqrt(1 + ln(factor) / ln(original))),
      };
    }
    if (type === 'llama3') {
      const frequencies = plain(theta).map(value => {
        const turns = (original * value) / (2 * Math.PI);
        if (turns > rope.high_freq_factor) return value;
        if (turns < rope.low_freq_factor) return value / rope.factor;
        const smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        return ((1 - smooth) * value) / rope.factor + smooth * value;
      });
      return { frequencies, magnitude: 1 };
    }
    if (type === 'yarn') {
      const at = (turns: number) => (dims * ln(original / (turns * 2 * Math.PI))) / (2 * ln(theta));
      const low = Math.max(Math.floor(at(rope.beta_fast ?? 32)), 0);
      const high = Math.min(Math.ceil(at(rope.beta_slow ?? 1)), dims - 1);
      const frequencies = plain(theta).map((value, i) => {
        const ramp = Math.min(1, Math.max(0, (i - low) / (low === high ? 0.001 : high - low)));
        return (value / rope.factor) * ramp + value * (1 - ramp);
      });
      return { frequencies, magnitude: rope.attention_factor ?? 0.1 * ln(rope.factor) + 1 };
    }
    return { frequencies: plain(theta), magnitude: 1 };
  }

  norm(x: Vector, name: string): Vector {
    const weight = this.tensor(`${name}.weight`).values;
    const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length;
    const factor = 1 / Math.sqrt(mean + this.c.rms_norm_eps);
    return x.map((value, j) => value * factor * (weight[j]! + (this.family.plusOne ? 1 : 0)));
  }

  linear(name: string, x: Vector): Vector {
    const out = times(this.tensor(`${name}.weight`), x);
    const bias = this.tensors.get(`${name}.bias`);
    return bias ? out.map((value, j) => value + bias.values[j]!) : out;
  }

  tensor(name: string): Tensor {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`no tensor ${name}`);
    return found;
  }
}

const row = ({ shape, values }: Tensor, i: number): Vector =>
  Float64Array.from(values.subarray(i * shape[1]!, (i + 1) * shape[1]!));

function times({ shape, values }: Tensor, x: Vector): Vector {
  const [rows, columns] = shape as [number, number];
  return Float64Array.from({ length: rows }, (_, r) => {
    let sum = 0;
    for (let k = 0; k < columns; k++) sum += values[r * columns + k]! * x[k]!;
    return sum;
  });
}

function eachHead(heads: Vector, dim: number, change: (head: Vector) => Vector): Vector {
  const out = new Float64Array(heads.length);
  for (let at = 0; at < heads.length; at += dim) out.set(change(heads.slice(at, at + dim)), at);
  return out;
}

function softmax(scores: readonly number[]): number[] {
  const most = Math.max(...scores);
  const powers = scores.map(score => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(value => value / sum);
}
