import * as fs from 'node:fs/promises';
import { embeddingFault } from '../../src/model/embedding.ts';
import type { PackFolder } from '../../src/pack/pack-folder.ts';
import { crc32c } from './crc32c-table.ts';

/** The rows of a pack's embedding that are not what its checks say. */
export async function embeddingFaults(pack: PackFolder): Promise<number[]> {
  const { offset, rowBytes } = pack.manifest.embedding;
  const data = await fs.readFile(pack.tilesPath);
  const checks = await pack.embeddingChecks();
  const rows = Array.from({ length: pack.manifest.shape.vocabulary }, (_, row) => row);
  return rows.filter(row => {
    const at = offset + row * rowBytes;
    return embeddingFault(row, data.subarray(at, at + rowBytes), checks, bytes => crc32c(bytes, 0)) !== null;
  });
}
