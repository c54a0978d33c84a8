import * as fileSystem from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { loadAddon } from '../../daemon/load-backend.ts';
import { projectRoot } from '../../daemon/project-root.ts';
import { crc32c } from '../../disk-io/crc32c.ts';
import { asPotluckError } from '../../errors/errors.ts';
import { findShape, type NamedShape, parseShapes } from '../../model/named-shapes.ts';
import {
  isSyntheticPack,
  type SyntheticPackOptions,
  writeSyntheticPack,
} from '../../model/synthetic-pack.ts';
import { PACK_VERSION } from '../../pack/manifest.ts';
import { openPackFolder, type PackFolder } from '../../pack/pack-folder.ts';
import type { Crc32c } from '../../pack/pack-writer.ts';
import type { ShapeFlags } from '../commands/shape-flags.ts';
import { homeFolder } from '../home-folder.ts';
import { ProgressLine } from '../progress-line.ts';

export interface SyntheticModelOptions {
  /** Name of a shape. */
  readonly shape: string;
  readonly seed: number;
  /** Layers that have bytes of their own on disk; null: all. */
  readonly storedLayers: number | null;
  /** Folder of the pack; null: one below the folder of synthetic packs, made once and found again. */
  readonly folder: string | null;
  readonly crc32c: Crc32c;
  readonly onProgress: (done: number, total: number) => void;
}

/** Text file with the shapes that have a name. */
const shapesFile = (): string => join(projectRoot(), 'models', 'shapes.txt');

async function namedShape(name: string): Promise<NamedShape> {
  const file = shapesFile();
  return findShape(parseShapes(await fileSystem.readFile(file, 'utf8'), file), name);
}

/** The synthetic pack of a shape: the one that is there, else it is written. Rejects with BAD_OPTION or DISK_WRITE. */
async function syntheticModel(options: SyntheticModelOptions): Promise<PackFolder> {
  const shape = await namedShape(options.shape);
  const storedLayers = options.storedLayers ?? shape.config.shape.layers;
  const wanted = { shape, seed: options.seed, storedLayers };
  const target = options.folder ?? ownFolder(wanted);
  const found = await openIfThere(target);
  if (found && isSyntheticPack(found.manifest, wanted)) return found;
  if (options.folder === null) await fileSystem.rm(target, { recursive: true, force: true });
  await writeSyntheticPack({
    ...wanted,
    target,
    fileSystem,
    crc32c: options.crc32c,
    onProgress: options.onProgress,
  });
  return openPackFolder(fileSystem, target);
}

/** Packs of other versions and layouts lie beside each other, so that two checkouts do not replace each other's. */
function ownFolder({
  shape,
  seed,
  storedLayers,
}: Pick<SyntheticPackOptions, 'shape' | 'seed' | 'storedLayers'>) {
  const name = `${shape.name}-v${PACK_VERSION}-seed${seed}-layers${storedLayers}`;
  return join(homeFolder(process.env), 'synthetic', name);
}

/** The pack at `folder`; null where there is none that this version can read. */
async function openIfThere(folder: string): Promise<PackFolder | null> {
  try {
    return await openPackFolder(fileSystem, folder);
  } catch (error) {
    const { code } = asPotluckError(error);
    if (['PACK_NOT_FOUND', 'PACK_INVALID', 'PACK_VERSION'].includes(code)) return null;
    throw error;
  }
}

/** The synthetic pack that flags name, with progress on standard error. See syntheticModel. */
export async function openSyntheticModel(flags: ShapeFlags, folder: string | null): Promise<PackFolder> {
  const { shape, seed, storedLayers = null } = flags;
  const line = new ProgressLine();
  const { addon } = loadAddon();
  let wrote = false;
  const pack = await syntheticModel({
    shape,
    seed,
    storedLayers,
    folder,
    crc32c: addon ? (bytes, before) => addon.crc32c(bytes, before) : crc32c,
    onProgress: (done, total) => {
      wrote = true;
      line.show(`Drawing tiles ${done}/${total}`);
    },
  });
  if (wrote) line.end(`${shape}: ${pack.manifest.tiles.length} tiles drawn into ${pack.folder}`);
  return pack;
}

/** The pack in `folder`, or the synthetic one of `flags` where no folder is given. */
export const openModel = (flags: ShapeFlags, folder: string | undefined): Promise<PackFolder> =>
  folder === undefined ? openSyntheticModel(flags, null) : openPackFolder(fileSystem, resolve(folder));
