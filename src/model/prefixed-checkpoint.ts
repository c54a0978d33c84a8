import type { Architecture } from './architecture.ts';
import type { Checkpoint } from './checkpoint.ts';

/**
 * A checkpoint by the names that its architecture has, where they stand behind one of its prefixes; the checkpoint as it is
 * where they do not. Closing it closes the other.
 */
export function withoutPrefix(checkpoint: Checkpoint, { names, prefixes }: Architecture): Checkpoint {
  const found = [['', 'model.'] as const, ...prefixes].find(prefix =>
    checkpoint.has(withPrefix(prefix, names.embedding)),
  );
  if (found === undefined || prefixes.length === 0) return checkpoint;
  const stored = (name: string) => withPrefix(found, name);
  return {
    path: checkpoint.path,
    configPath: checkpoint.configPath,
    config: checkpoint.config,
    has: tensor => checkpoint.has(stored(tensor)),
    *tensors() {
      for (const [name, shape] of checkpoint.tensors()) {
        const own = ofModel(found, name);
        if (own !== undefined) yield [own, shape];
      }
    },
    expect: (tensor, shape) => checkpoint.expect(stored(tensor), shape),
    readRows: (tensor, first, count) => checkpoint.readRows(stored(tensor), first, count),
    readFile: (name, limit) => checkpoint.readFile(name, limit),
    readJson: (name, limit) => checkpoint.readJson(name, limit),
    close: () => checkpoint.close(),
  };
}

type Prefix = Architecture['prefixes'][number];

const withPrefix = ([whole, model]: Prefix, name: string): string => whole + name.replace(/^model\./, model);

/** The name without the prefix; undefined for a tensor of another part of the checkpoint. */
function ofModel([whole, model]: Prefix, name: string): string | undefined {
  if (name.startsWith(whole + model)) return `model.${name.slice((whole + model).length)}`;
  const rest = name.slice(whole.length);
  return name.startsWith(whole) && !rest.startsWith('model.') ? rest : undefined;
}
