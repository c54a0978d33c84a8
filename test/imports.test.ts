import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { expect, test } from 'vitest';

/** Lowest first; layers of one line may use each other's types, not their values. */
const LAYERS = [
  ['errors'],
  ['disk-io', 'pack'],
  ['kernels', 'pull'],
  ['model'],
  ['window-scheduler'],
  ['allreduce'],
  ['engine'],
  ['discovery'],
  ['cluster'],
  ['api'],
  ['daemon'],
  ['cli'],
];
/** These reach the outside world; only the layers from daemon up may. */
const OUTSIDE = new Set(
  [
    'fs',
    'fs/promises',
    'net',
    'http',
    'https',
    'tls',
    'dgram',
    'child_process',
    'worker_threads',
    'timers',
  ].map(name => `node:${name}`),
).add('node:timers/promises');
const CLOCKS = [
  /\bDate\.now\b/,
  /\bnew Date\(\)/,
  /\bperformance\.now\b/,
  /\bprocess\.hrtime\b/,
  // A bare call; a method or a parameter of that name belongs to a clock that was passed in.
  /(?<![.\w'"])(?:setTimeout|setInterval|setImmediate)\((?!\s*[\w]+\s*:)/,
];
const VAGUE = /^(?:utils?|common|helpers?|misc|shared)(?:\.|$)/;
const MOST_LINES = 600;

interface Import {
  readonly from: string;
  readonly typeOnly: boolean;
}

interface Source {
  /** Relative to src. */
  readonly path: string;
  readonly layer: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

/** `import ... from`, `export ... from`, `import '...'` and `import('...')` of a TypeScript source. */
function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  for (const match of code.matchAll(
    /^\s*(?:import|export)\s+(type\s+)?([^;'"]*?)\s*from\s*['"]([^'"]+)['"]/gm,
  )) {
    const names = /^\{([^}]*)\}$/s
      .exec(match[2]!)?.[1]
      ?.split(',')
      .map(each => each.trim()) ?? ['*'];
    const values = names.filter(name => name !== '' && !name.startsWith('type '));
    found.push({ from: match[3]!, typeOnly: match[1] !== undefined || values.length === 0 });
  }
  for (const match of code.matchAll(/^\s*import\s*['"]([^'"]+)['"]/gm))
    found.push({ from: match[1]!, typeOnly: false });
  for (const match of code.matchAll(/(typeof\s+)?\bimport\(\s*['"]([^'"]+)['"]/g)) {
    found.push({ from: match[2]!, typeOnly: match[1] !== undefined });
  }
  return found;
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[\s;{}()])\/\/.*$/gm, '$1');
}

const root = join(import.meta.dirname, '..', 'src');
const paths = readdirSync(root, { recursive: true, encoding: 'utf8' }).map(path =>
  path.replaceAll('\\', '/'),
);
const sources: Source[] = paths
  .filter(path => path.endsWith('.ts'))
  .map(path => {
    const text = readFileSync(join(root, path), 'utf8');
    return { path, layer: path.split('/')[0]!, text, imports: importsOf(text) };
  });
const rankOf = (layer: string): number => LAYERS.findIndex(layers => layers.includes(layer));
const low = sources.filter(({ layer }) => rankOf(layer) < rankOf('daemon'));

test('the reader of imports finds every kind', () => {
  const text = [
    "import type { A } from './a.ts';",
    "import { type B } from './b.ts';",
    "import { type C, c } from './c.ts';",
    "import * as d from './d.ts';",
    'export {\n  e,\n} from "./e.ts";',
    "import './f.ts';",
    "const g = await import('./g.ts');",
    "let h: typeof import('./h.ts');",
    "// import { i } from './i.ts';",
    "/* import { j } from './j.ts'; */",
  ].join('\n');
  const values = importsOf(text).filter(each => !each.typeOnly);
  const types = importsOf(text).filter(each => each.typeOnly);
  expect(values.map(each => each.from).sort()).toEqual(['./c.ts', './d.ts', './e.ts', './f.ts', './g.ts']);
  expect(types.map(each => each.from).sort()).toEqual(['./a.ts', './b.ts', './h.ts']);
});

test('there are sources in every layer, and no other folders', () => {
  const folders = new Set(sources.map(each => each.layer));
  expect([...folders].sort()).toEqual(LAYERS.flat().sort());
});

test('imports go down', () => {
  const wrong: string[] = [];
  for (const { path, layer, imports } of sources) {
    for (const { from, typeOnly } of imports) {
      if (!from.startsWith('.')) continue;
      const target = posix.join(posix.dirname(path), from).split('/')[0]!;
      if (target === layer) continue;
      const beside = rankOf(target) === rankOf(layer);
      if (beside ? !typeOnly : rankOf(target) > rankOf(layer)) wrong.push(`${path} imports ${from}`);
    }
  }
  expect(wrong).toEqual([]);
});

test('layers below daemon open no files, sockets or processes', () => {
  const wrong = low.flatMap(({ path, imports }) =>
    imports
      .filter(({ from, typeOnly }) => !typeOnly && OUTSIDE.has(from))
      .map(({ from }) => `${path} imports ${from}`),
  );
  expect(wrong).toEqual([]);
});

test('layers below daemon read no clock and set no timer of their own', () => {
  const wrong: string[] = [];
  for (const { path, text } of low) {
    for (const [i, line] of withoutComments(text).split('\n').entries()) {
      if (isDeclaration(line)) continue;
      if (CLOCKS.some(clock => clock.test(line))) wrong.push(`${path}, near line ${i + 1}: ${line.trim()}`);
    }
  }
  expect(wrong).toEqual([]);
});

/** A member of an interface such as `setTimeout(call: () => void, milliseconds: number): unknown;`. */
const isDeclaration = (line: string): boolean =>
  /^\s*(?:readonly )?set(?:Timeout|Interval)\(.*\): \w+;$/.test(line);

test('no file is too long', () => {
  const long = sources.filter(({ text }) => text.split('\n').length > MOST_LINES).map(({ path }) => path);
  expect(long).toEqual([]);
});

test('no name is vague', () => {
  const vague = paths.filter(path => path.split('/').some(part => VAGUE.test(part)));
  expect(vague).toEqual([]);
});
