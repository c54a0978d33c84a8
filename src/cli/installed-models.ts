import * as fileSystem from 'node:fs/promises';
import { join } from 'node:path';
import { readWholeFile } from '../pack/file-system.ts';
import type { Manifest } from '../pack/manifest.ts';
import { MANIFEST_BYTES, readManifest } from '../pack/read-manifest.ts';

/** The manifest of the pack of that name, or null where there is none. Rejects with PACK_INVALID or PACK_VERSION. */
export async function installedModel(models: string, name: string): Promise<Manifest | null> {
  const path = join(models, name, 'manifest.json');
  const bytes = await readWholeFile(fileSystem, path, MANIFEST_BYTES);
  return bytes === undefined ? null : readManifest(bytes, path);
}
