import { invalidCheckpoint } from '../checkpoint-error.ts';
import type { GgufFamily } from './families.ts';
import type { GgufTensor } from './header.ts';

/** A tensor under the name that Hugging Face gives it: all of a stored one, or one expert of it. */
export interface NamedTensor {
  readonly stored: GgufTensor;
  readonly shape: readonly number[];
  /** First stored row. */
  readonly firstRow: number;
  /** Heads whose rows lie interleaved, see GgufFamily; null: they do not. */
  readonly interleavedHeads: number | null;
  /** Added to every element. */
  readonly addend: number;
}

const TOP: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
};

const LAYER: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_qkv: 'self_attn.qkv_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
  ffn_gate_inp: 'mlp.gate',
  ffn_gate_exps: 'mlp.experts.{expert}.gate_proj',
  ffn_up_exps: 'mlp.experts.{expert}.up_proj',
  ffn_down_exps: 'mlp.experts.{expert}.down_proj',
};

/** Most experts of a layer. */
const MOST_EXPERTS = 4096;

/**
 * The tensors of a file by the names that Hugging Face gives them; those of a layer that it does not have keep their own behind the
 * layer. `heads`: query and key-value heads. Throws CHECKPOINT_INVALID.
 */
export function nameTensors(
  stored: ReadonlyMap<string, GgufTensor>,
  family: GgufFamily,
  heads: { readonly query: number; readonly keyValue: number },
): Map<string, NamedTensor> {
  const named = new Map<string, NamedTensor>();
  for (const [name, tensor] of stored) {
    const parts = /^(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)$/.exec(name);
    const [, layer, part, kind] = parts ?? [];
    const target = layer === undefined ? TOP[part!] : (family.names?.[part!] ?? LAYER[part!]);
    if (target === undefined) {
      const own = name.replace(/^blk\./, 'model.layers.');
      named.set(own, { stored: tensor, shape: tensor.shape, firstRow: 0, interleavedHeads: null, addend: 0 });
      continue;
    }
    const whole = layer === undefined ? `${target}.${kind}` : `model.layers.${layer}.${target}.${kind}`;
    const interleavedHeads = !family.interleavedHeads
      ? null
      : part === 'attn_q'
        ? heads.query
        : part === 'attn_k'
          ? heads.keyValue
          : null;
    const addend = family.normsPlusOne && part!.endsWith('norm') ? -1 : 0;
    if (!whole.includes('{expert}')) {
      named.set(whole, { stored: tensor, shape: tensor.shape, firstRow: 0, interleavedHeads, addend });
      continue;
    }
    const [experts = 0, ...shape] = tensor.shape;
    if (experts > MOST_EXPERTS)
      throw invalidCheckpoint(name, `has ${experts} experts, more than ${MOST_EXPERTS}`);
    for (let expert = 0; expert < experts; expert++)
      named.set(whole.replace('{expert}', String(expert)), {
        stored: tensor,
        shape,
        firstRow: expert * (shape[0] ?? 0),
        interleavedHeads,
        addend,
      });
  }
  return named;
}

/**
 * Stored rows of rows `first` to `first + count` of a matrix of `rows` rows whose heads are interleaved: the rows from
 * `from` on, `order` says which of them each row is. Row j of the first half of a head lies at 2j, of the second at 2j + 1.
 */
export function interleavedRows(
  rows: number,
  heads: number,
  first: number,
  count: number,
): { readonly from: number; readonly count: number; readonly order: Uint32Array } {
  const size = rows / heads;
  const from = Math.floor(first / size) * size;
  const to = Math.ceil((first + count) / size) * size;
  const order = Uint32Array.from({ length: count }, (_, i) => {
    const row = (first + i) % size;
    const head = first + i - row - from;
    return head + (row < size / 2 ? 2 * row : 2 * (row - size / 2) + 1);
  });
  return { from, count: to - from, order };
}
