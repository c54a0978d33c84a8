import { PotluckError } from '../../errors/errors.ts';
import type { LimitPrograms } from '../../kernels/addon.ts';
import { median } from './alternate.ts';

/** Bytes that one sample of the read rate reads at least, and multiply-adds of one sample of the peak, for each thread. */
const SAMPLE_BYTES = 2 ** 29;
const SAMPLE_MULTIPLY_ADDS = 4e9;
/** Samples of each program when the fastest is looked for. */
const TRIES = 3;

/** What this machine can do at most, measured when it is asked for. */
export class Limits {
  readonly #addon: LimitPrograms;
  readonly #memory: ArrayBuffer;
  /** The fastest program by kind and threads, once it is known. */
  readonly #fastest = new Map<string, Promise<string>>();

  /** `memory`: what is read, of the addon's `allocate`, much larger than the last cache; nobody writes to it meanwhile. */
  constructor(addon: LimitPrograms, memory: ArrayBuffer) {
    this.#addon = addon;
    this.#memory = memory;
  }

  /** One sample of how fast memory can be read, in bytes a second: the program that is the fastest of several. */
  async readRate(threads: number): Promise<number> {
    const { read } = this.#addon.limitPrograms();
    const program = await this.#pick(`read ${threads}`, read, each => this.#read(each, threads));
    return this.#read(program, threads);
  }

  /** One sample of the peak of 8-bit dot products, in multiply-adds a second. `isa`: a part of the instruction's name. */
  async dotPeak(threads: number, isa = ''): Promise<number> {
    const names = this.#addon.limitPrograms().dot.map(({ name }) => name);
    const among = names.filter(name => name.includes(isa));
    if (among.length === 0)
      throw new PotluckError('KERNEL_UNKNOWN', `This processor has no dot products ${isa}.`);
    const program = await this.#pick(`dot ${isa} ${threads}`, among, each => this.#dot(each, threads));
    return this.#dot(program, threads);
  }

  async #read(program: string, threads: number): Promise<number> {
    const bytes = this.#memory.byteLength - (this.#memory.byteLength % 2 ** 20);
    const repeats = Math.ceil((SAMPLE_BYTES * threads) / bytes);
    return (
      (bytes * repeats) / (await this.#addon.measureRead(this.#memory, bytes, program, threads, repeats))
    );
  }

  async #dot(program: string, threads: number): Promise<number> {
    const { multiplyAdds } = this.#addon.limitPrograms().dot.find(({ name }) => name === program)!;
    const rounds = Math.ceil((SAMPLE_MULTIPLY_ADDS * threads) / multiplyAdds);
    return (multiplyAdds * rounds) / (await this.#addon.measureDot(program, threads, rounds));
  }

  #pick(
    key: string,
    programs: readonly string[],
    sample: (program: string) => Promise<number>,
  ): Promise<string> {
    const known = this.#fastest.get(key);
    if (known) return known;
    const found = fastest(programs, sample);
    this.#fastest.set(key, found);
    return found;
  }
}

async function fastest(
  programs: readonly string[],
  sample: (program: string) => Promise<number>,
): Promise<string> {
  const rates = new Map<string, number[]>(programs.map(program => [program, []]));
  for (let round = 0; round < TRIES; round++)
    for (const program of programs) rates.get(program)!.push(await sample(program));
  return programs.reduce((best, each) => (median(rates.get(each)!) > median(rates.get(best)!) ? each : best));
}
