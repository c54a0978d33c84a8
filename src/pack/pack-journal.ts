import { type FileSystem, type OpenFile, readWholeFile, writeFully, writing } from './file-system.ts';
import type { TileEntry } from './manifest.ts';

/** Most bytes of a journal: entries of a million tiles. */
const JOURNAL_BYTES = 512 * 2 ** 20;

/** What is done of a pack that is being written. */
export interface PackStep {
  /** -1: the embedding; else the layer whose tiles are written; the number of layers: those of the head. */
  readonly layer: number;
  /** CRC-32C of the embedding; else 0. */
  readonly crc32c: number;
  /** The tiles of the layer, or the head. */
  readonly tiles: readonly TileEntry[];
  /** What 4-bit activations would damage, block by block. */
  readonly damage: readonly number[];
}

/**
 * The steps of a pack that are on disk, a line each, so that a pack that was interrupted goes on behind the last of them.
 * The first line says of what run they are. A step is appended after all that it speaks of is synced.
 */
export class PackJournal {
  readonly #file: OpenFile;
  readonly #path: string;
  #end: number;

  private constructor(file: OpenFile, path: string, end: number) {
    this.#file = file;
    this.#path = path;
    this.#end = end;
  }

  /** Begins a journal of run `run`. Rejects with DISK_WRITE. */
  static async create(fileSystem: FileSystem, path: string, run: string): Promise<PackJournal> {
    const file = await writing(path, () => fileSystem.open(path, 'w+'));
    const journal = new PackJournal(file, path, 0);
    await journal.#orClose(() => journal.#append({ run }));
    return journal;
  }

  /**
   * Opens the journal of run `run` with its steps; undefined where there is none, or one of another run. A last line that was
   * not written whole is cut off. Rejects with DISK_READ or DISK_WRITE.
   */
  static async resume(
    fileSystem: FileSystem,
    path: string,
    run: string,
  ): Promise<{ journal: PackJournal; steps: PackStep[] } | undefined> {
    const bytes = await readWholeFile(fileSystem, path, JOURNAL_BYTES);
    if (bytes === undefined) return undefined;
    const end = bytes.lastIndexOf(10) + 1;
    const lines = new TextDecoder().decode(bytes.subarray(0, end)).split('\n').slice(0, -1);
    const [first, ...steps] = lines.map(line => parseLine(line));
    if (first?.run !== run || !steps.every(isStep)) return undefined;
    const file = await writing(path, () => fileSystem.open(path, 'r+'));
    const journal = new PackJournal(file, path, end);
    await journal.#orClose(() => writing(path, () => file.truncate(end)));
    return { journal, steps };
  }

  async append(step: PackStep): Promise<void> {
    await this.#append(step);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Where it fails, the file is closed. */
  async #orClose(change: () => Promise<void>): Promise<void> {
    try {
      await change();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async #append(line: object): Promise<void> {
    const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
    await writeFully(this.#file, this.#path, bytes, this.#end);
    this.#end += bytes.length;
    await writing(this.#path, () => this.#file.datasync());
  }
}

type Line = Readonly<Record<string, unknown>>;

function parseLine(line: string): Line {
  try {
    const parsed: unknown = JSON.parse(line);
    return typeof parsed === 'object' && parsed !== null ? (parsed as Line) : {};
  } catch {
    return {}; // of no run: the pack is then begun anew
  }
}

function isStep(line: Line): line is Line & PackStep {
  return (
    Number.isInteger(line.layer) &&
    Number.isInteger(line.crc32c) &&
    Array.isArray(line.tiles) &&
    Array.isArray(line.damage)
  );
}
