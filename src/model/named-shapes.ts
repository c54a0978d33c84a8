import { PotluckError } from '../errors/errors.ts';
import { PACK_NAME } from '../pack/read-manifest.ts';
import type { ModelConfig } from './architecture.ts';
import { findArchitecture } from './architectures.ts';

/** A model's numbers without its weights. */
export interface NamedShape {
  readonly name: string;
  readonly config: ModelConfig;
}

/** Fields that are words; all others are numbers. */
const WORDS = new Set(['name', 'model_type', 'hidden_act']);

/**
 * Reads a text of shapes: a line of column names (fields of a config.json), then one shape a line; `#` begins a comment,
 * `-` leaves a field out. `file` names it in errors. Throws BAD_OPTION for what is not such a text, and what
 * Architecture.readConfig throws for numbers that make no model.
 */
export function parseShapes(text: string, file: string): NamedShape[] {
  const lines = text
    .split('\n')
    .map((line, i) => ({ number: i + 1, cells: line.replace(/#.*/, '').split(/\s+/).filter(Boolean) }))
    .filter(({ cells }) => cells.length > 0);
  const columns = lines[0]?.cells ?? [];
  if (columns[0] !== 'name' || new Set(columns).size !== columns.length)
    throw new PotluckError(
      'BAD_OPTION',
      `${file}: the first line does not name each column once, 'name' first.`,
    );
  const shapes = lines.slice(1).map(line => readLine(columns, line, file));
  const twice = shapes.find(({ name }, i) => shapes.findIndex(other => other.name === name) !== i);
  if (twice) throw new PotluckError('BAD_OPTION', `${file}: names the shape ${twice.name} twice.`);
  return shapes;
}

function readLine(
  columns: readonly string[],
  { number, cells }: { readonly number: number; readonly cells: readonly string[] },
  file: string,
): NamedShape {
  const wrong = (reason: string) => new PotluckError('BAD_OPTION', `${file}, line ${number}: ${reason}.`);
  if (cells.length !== columns.length) throw wrong(`has ${cells.length} columns, not ${columns.length}`);
  const fields: Record<string, string | number> = {};
  for (const [i, column] of columns.entries()) {
    const cell = cells[i]!;
    if (cell === '-') continue;
    const value = WORDS.has(column) ? cell : Number(cell);
    if (Number.isNaN(value)) throw wrong(`${column} is ${cell}, which is not a number`);
    fields[column] = value;
  }
  const { name, ...config } = fields;
  if (typeof name !== 'string' || !PACK_NAME.test(name))
    throw wrong('the name is not letters, digits, dots and dashes');
  const place = `${file}, line ${number}`;
  return { name, config: findArchitecture(config, place).readConfig(config, place) };
}

/** The shape of that name. Throws BAD_OPTION, which lists those that there are. */
export function findShape(shapes: readonly NamedShape[], name: string): NamedShape {
  const found = shapes.find(shape => shape.name === name);
  if (found) return found;
  const names = shapes.map(shape => shape.name).join(', ');
  throw new PotluckError('BAD_OPTION', `There is no shape ${JSON.stringify(name)}. There are: ${names}.`);
}
