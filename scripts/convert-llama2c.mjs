#!/usr/bin/env node
// Makes a checkpoint folder of Hugging Face's layout of a model in llama2.c's format:
//   node scripts/convert-llama2c.mjs MODEL.bin TOKENIZER.bin TARGET_FOLDER
// Then: npm run -s potluck -- pack TARGET_FOLDER

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setupOrExit } from './setup.mjs';

/** Most bytes of a model that is read whole. */
const MOST_BYTES = 2 ** 31;

/**
 * Header: seven int32: width, FFN width, layers, heads, key-value heads, vocabulary (negative: the head is a matrix of its own),
 * context. Then float32, each matrix [rows, columns] for all layers in turn.
 */
export function readModel(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 28) throw new Error('the model has no header');
  const [width, ffnWidth, layers, heads, kvHeads, signed, context] = Array.from({ length: 7 }, (_, i) =>
    view.getInt32(4 * i, true),
  );
  const vocabulary = Math.abs(signed);
  const sizes = { width, ffnWidth, layers, heads, kvHeads, vocabulary, context };
  for (const [name, size] of Object.entries(sizes))
    if (size < 1 || size > 2 ** 20)
      throw new Error(`${name} is ${size}: this is not a model of llama2.c's first format`);
  if (width % (2 * heads) !== 0 || heads % kvHeads !== 0) throw new Error('the heads do not fit the width');
  const headDim = width / heads;
  const kvWidth = kvHeads * headDim;
  let at = 28;
  /** The next `rows` x `columns` numbers. */
  const take = (rows, columns) => {
    const count = rows * columns;
    if (at + 4 * count > bytes.length) throw new Error(`the model ends too early, at byte ${bytes.length}`);
    const values = Float32Array.from({ length: count }, (_, i) => view.getFloat32(at + 4 * i, true));
    at += 4 * count;
    return { shape: rows === 1 ? [columns] : [rows, columns], values };
  };
  const tensors = new Map();
  const perLayer = (name, rows, columns, change = tensor => tensor) => {
    for (let layer = 0; layer < layers; layer++)
      tensors.set(`model.layers.${layer}.${name}.weight`, change(take(rows, columns)));
  };
  tensors.set('model.embed_tokens.weight', take(vocabulary, width));
  perLayer('input_layernorm', 1, width);
  perLayer('self_attn.q_proj', width, width, tensor => halves(tensor, heads));
  perLayer('self_attn.k_proj', kvWidth, width, tensor => halves(tensor, kvHeads));
  perLayer('self_attn.v_proj', kvWidth, width);
  perLayer('self_attn.o_proj', width, width);
  perLayer('post_attention_layernorm', 1, width);
  perLayer('mlp.gate_proj', ffnWidth, width);
  perLayer('mlp.down_proj', width, ffnWidth);
  perLayer('mlp.up_proj', ffnWidth, width);
  tensors.set('model.norm.weight', take(1, width));
  at += 4 * context * headDim; // tables of cosines and sines
  if (signed < 0) tensors.set('lm_head.weight', take(vocabulary, width));
  if (at !== bytes.length) throw new Error(`the model has ${bytes.length} bytes where ${at} were expected`);
  return { config: configOf(sizes, signed > 0), tensors };
}

/** Rows that are rotated as neighbours, as Hugging Face keeps them: first all first ones of a head, then all second ones. */
function halves({ shape: [rows, columns], values }, heads) {
  const size = rows / heads;
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const inHead = row % size;
    const from = row - inHead + (inHead < size / 2 ? 2 * inHead : 2 * (inHead - size / 2) + 1);
    result.set(values.subarray(from * columns, (from + 1) * columns), row * columns);
  }
  return { shape: [rows, columns], values: result };
}

const configOf = (sizes, tied) => ({
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: sizes.vocabulary,
  hidden_size: sizes.width,
  intermediate_size: sizes.ffnWidth,
  num_hidden_layers: sizes.layers,
  num_attention_heads: sizes.heads,
  num_key_value_heads: sizes.kvHeads,
  max_position_embeddings: sizes.context,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: tied,
  bos_token_id: 1,
  // A text ends where the next one would begin.
  eos_token_id: [1, 2],
});

/** Header: int32 longest token. Then for each token: float32 score, int32 bytes, bytes. */
export function readTokens(bytes, vocabulary) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tokens = [];
  let at = 4;
  for (let id = 0; id < vocabulary; id++) {
    if (at + 8 > bytes.length) throw new Error(`the tokenizer ends before token ${id} of ${vocabulary}`);
    const score = view.getFloat32(at, true);
    const length = view.getInt32(at + 4, true);
    at += 8;
    if (length < 0 || at + length > bytes.length) throw new Error(`token ${id} has ${length} bytes`);
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes.subarray(at, at + length));
    at += length;
    tokens.push({ text, score });
  }
  return tokens;
}

const CONTROL = ['<unk>', '<s>', '</s>'];

/** tokenizer.json of llama2.c's tokens: three control tokens, 256 bytes, then pieces whose spaces are spaces. */
async function tokenizerJson(tokens) {
  const { scoredTokenizer, TokenKind } = await import('../build/js/model/scored-tokenizer.js');
  const described = tokens.map(({ text, score }, id) => {
    if (id < CONTROL.length)
      return { text: CONTROL[id], score, kind: id === 0 ? TokenKind.Unknown : TokenKind.Control };
    if (/^<0x[0-9A-F]{2}>$/.test(text)) return { text, score, kind: TokenKind.Byte };
    return { text: text.replaceAll(' ', '\u2581'), score, kind: TokenKind.Normal };
  });
  return scoredTokenizer('BPE', described, { spaceBefore: true });
}

function safetensors(tensors) {
  const header = {};
  let end = 0;
  for (const [name, { shape, values }] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([
    length,
    text,
    ...[...tensors.values()].map(({ values }) => Buffer.from(values.buffer)),
  ]);
}

async function convert([modelPath, tokenizerPath, target]) {
  const bytes = await readFile(modelPath);
  if (bytes.length > MOST_BYTES)
    throw new Error(`${modelPath} has ${bytes.length} bytes, more than ${MOST_BYTES}`);
  const { config, tensors } = readModel(bytes);
  const tokens = readTokens(await readFile(tokenizerPath), config.vocab_size);
  await mkdir(target, { recursive: true });
  const write = (name, json) => writeFile(join(target, name), JSON.stringify(json, null, 1));
  await write('config.json', config);
  await write('tokenizer.json', await tokenizerJson(tokens));
  await write('tokenizer_config.json', {
    bos_token: '<s>',
    eos_token: '</s>',
    unk_token: '<unk>',
    add_bos_token: true,
  });
  await writeFile(join(target, 'model.safetensors'), safetensors(tensors));
  process.stdout.write(`${target}: ${tensors.size} tensors, ${tokens.length} tokens\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const paths = process.argv.slice(2);
  if (paths.length !== 3) {
    process.stderr.write('usage: node scripts/convert-llama2c.mjs MODEL.bin TOKENIZER.bin TARGET_FOLDER\n');
    process.exit(2);
  }
  await setupOrExit();
  try {
    await convert(paths);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}
