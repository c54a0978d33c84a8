import type { Architecture, ModelConfig } from './architecture.ts';
import type { Checkpoint } from './checkpoint.ts';

/** Bytes of rows that are compared at a time, about. */
const CHUNK = 8 * 2 ** 20;

/**
 * A config that ties the head to the embedding, without that where the checkpoint has a head of its own with other numbers:
 * transformers does not tie them then. Rejects with CHECKPOINT_INVALID, UNSUPPORTED_MODEL or DISK_READ.
 */
export async function withOwnHead(
  checkpoint: Checkpoint,
  { names }: Architecture,
  config: ModelConfig,
): Promise<ModelConfig> {
  if (!config.tiedHead || !checkpoint.has(names.head)) return config;
  const { vocabulary, width } = config.shape;
  for (const name of [names.embedding, names.head]) checkpoint.expect(name, [vocabulary, width]);
  const atOnce = Math.max(1, Math.floor(CHUNK / (4 * width)));
  const embedding = new Float32Array(width);
  const head = new Float32Array(width);
  for (let first = 0; first < vocabulary; first += atOnce) {
    const rows = Math.min(atOnce, vocabulary - first);
    const ofEmbedding = await checkpoint.readRows(names.embedding, first, rows);
    const ofHead = await checkpoint.readRows(names.head, first, rows);
    for (let row = 0; row < rows; row++) {
      ofEmbedding.copy(row, 0, width, embedding);
      ofHead.copy(row, 0, width, head);
      if (head.some((value, i) => value !== embedding[i])) return { ...config, tiedHead: false };
    }
  }
  return config;
}
