// Opens the tokenizer of a folder twice and prints the bytes that the second one takes: right behind loading, garbage included, and
// once that is collected. Run with --expose-gc. Argument: the folder.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packTokenizer } from '../../build/js/model/pack-tokenizer.js';

const folder = process.argv[2];
const open = () => packTokenizer(name => readFile(join(folder, name)).catch(() => undefined), folder);
const counted = () => {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};
const kept = [await open()]; // code that is compiled the first time does not count
globalThis.gc();
const before = counted();
kept.push(await open());
const atOnce = counted() - before;
globalThis.gc();
console.log(JSON.stringify({ atOnce, taken: counted() - before, tokens: kept.map(one => one.vocabulary) }));
