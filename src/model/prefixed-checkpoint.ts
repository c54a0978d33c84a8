import type { Architecture } from './architecture.ts';
import type { Checkpoint } from './checkpoint.ts';

/**
 * A checkpoint by the names that its architecture has, where they stand behind one of its prefixes; the checkpoint as it is
 * where they do not. Closing it closes the other.
 */
export function withoutPrefix(checkpoint: Checkpoint, { names, prefixes }: Architecture): Checkpoint {
  const rename =
    ([whole, model]: readonly [string, string]) =>
    (name: string) =>
      whole + name.replace(/^model\./, model);
  const found = [rename(['', 'model.']), ...prefixes.map(rename)].find(to =>
    checkpoint.has(to(names.embedding)),
  );
  if (found === undefined || prefixes.length === 0) return checkpoint;
  return {
    path: checkpoint.path,
    configPath: checkpoint.configPath,
    config: checkpoint.config,
    has: tensor => checkpoint.has(found(tensor)),
    expect: (tensor, shape) => checkpoint.expect(found(tensor), shape),
    readRows: (tensor, first, count) => checkpoint.readRows(found(tensor), first, count),
    readFile: (name, limit) => checkpoint.readFile(name, limit),
    readJson: (name, limit) => checkpoint.readJson(name, limit),
    close: () => checkpoint.close(),
  };
}
