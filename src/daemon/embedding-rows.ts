import { open as openFile } from 'node:fs/promises';
import type { GetBody } from '../cluster/tile-transfer.ts';
import { crc32c } from '../disk-io/crc32c.ts';
import { PotluckError } from '../errors/errors.ts';
import { embeddingFault, type RowFault } from '../model/embedding.ts';
import { readFully } from '../pack/file-system.ts';
import type { LocalModel } from './model-store.ts';

/** An embedding row for another device, whose own is damaged: as it is stored; undefined where it is not here, or damaged here too. */
export async function readEmbeddingRow(
  model: LocalModel | undefined,
  row: number,
): Promise<Uint8Array | undefined> {
  if (!model?.whole || row >= model.manifest.shape.vocabulary) return undefined;
  const { path, embeddingChecks } = model.whole;
  const { offset, rowBytes } = model.manifest.embedding;
  const bytes = new Uint8Array(rowBytes);
  const file = await openFile(path, 'r');
  try {
    await readFully(file, path, bytes, offset + row * rowBytes);
  } finally {
    await file.close();
  }
  return embeddingFault(row, bytes, await embeddingChecks(), crc32c) === null ? bytes : undefined;
}

/** Asks another device for an embedding row. Rejects with what `get` rejects with, with PROTOCOL, and with its fault. */
export async function fetchEmbeddingRow(
  { id, manifest }: LocalModel,
  row: number,
  fault: RowFault,
  get: GetBody,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(manifest.embedding.rowBytes);
  let filled = 0;
  for await (const part of await get(`/potluck/embedding/${id}/${row}`, signal)) {
    if (filled + part.length > bytes.length) break;
    bytes.set(part, filled);
    filled += part.length;
  }
  if (filled !== bytes.length)
    throw new PotluckError(
      'PROTOCOL',
      `Embedding row ${row} of model ${id} did not come with ${bytes.length} bytes.`,
    );
  const wrong = fault(bytes);
  if (wrong) throw wrong;
  return bytes;
}
