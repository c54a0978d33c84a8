import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Guarded, OPTIONAL, rightCalls, SAY_HOW_MUCH, WITHOUT_ARGUMENTS } from './addon-calls.ts';
import { addon } from './addon-under-test.ts';

// A crash ends the process of this file, which vitest reports as a failure.

const calls = rightCalls(addon);
const names = Object.keys(calls);
type Native = (...args: unknown[]) => unknown;
const native = addon as unknown as Record<string, Native>;

/** Any array of numbers. */
const isTyped = (value: unknown): value is Float64Array =>
  ArrayBuffer.isView(value) && !(value instanceof DataView || value instanceof BigInt64Array);

/** What an argument may be replaced by: values of one kind are told apart from those of another by the addon. */
function kindOf(value: unknown): string {
  if (ArrayBuffer.isView(value)) return value.constructor.name;
  if (value instanceof ArrayBuffer) return 'ArrayBuffer';
  return typeof value === 'object' ? 'object' : typeof value;
}

function detached(): ArrayBuffer {
  const buffer = new ArrayBuffer(64);
  structuredClone(buffer, { transfer: [buffer] });
  return buffer;
}

const THINGS: readonly unknown[] = [
  undefined,
  null,
  true,
  7,
  7n,
  'x',
  Symbol('s'),
  () => 7,
  {},
  [],
  [1, 2, 3],
  new Date(0),
  new DataView(new ArrayBuffer(64)),
  new SharedArrayBuffer(64),
  new ArrayBuffer(64),
  new Int8Array(64),
  new Uint8ClampedArray(64),
  new Uint8Array(64),
  new Int16Array(64),
  new Int32Array(64),
  new Uint32Array(64),
  new Float32Array(64),
  new Float64Array(64),
  new BigInt64Array(8),
  { valueOf: () => 7, length: 64 },
];

/** Calls with these; whether it was refused. Whatever it made or started ends here, and nothing is written beside its arrays. */
async function refuses(name: string, change: (args: unknown[]) => unknown): Promise<boolean> {
  const guarded = new Guarded();
  const { args, end } = calls[name]!(guarded);
  change(args);
  let made: unknown;
  try {
    made = native[name]!(...args);
  } catch (error) {
    expect(error).toBeInstanceOf(Error);
    return true;
  }
  try {
    await made;
  } catch (error) {
    expect(error).toBeInstanceOf(RangeError);
    return true;
  } finally {
    expect(guarded.isIntact(), `${name} wrote beside an array`).toBe(true);
  }
  end?.(made);
  return false;
}

it('is every function of the addon', () => {
  const all = Object.keys(addon).filter(name => !WITHOUT_ARGUMENTS.includes(name));
  expect([...names].sort()).toEqual(all.sort());
});

describe.each(names)('%s', name => {
  const right = calls[name]!(new Guarded()).args;
  const count = right.length;

  it('takes what is right', async () => {
    expect(await refuses(name, args => args)).toBe(false);
  });

  it('refuses every argument that is something else, or missing', async () => {
    for (let at = 0; at < count; at++) {
      const optional = OPTIONAL[name]?.includes(at) ?? false;
      for (const thing of THINGS) {
        const kind = kindOf(right[at]);
        if (kindOf(thing) === kind && kind !== 'object') continue;
        if (optional && thing === undefined) continue;
        const refused = await refuses(name, args => {
          args[at] = thing;
        });
        expect(refused, `argument ${at} of ${name}: ${String(kindOf(thing))}`).toBe(true);
      }
      const cut = await refuses(name, args => args.splice(at));
      if (!optional) expect(cut, `${at} arguments of ${name}`).toBe(true);
    }
  });

  it('refuses memory that is detached, and arrays that are too short', async () => {
    for (let at = 0; at < count; at++) {
      const value = right[at];
      if (value instanceof ArrayBuffer)
        expect(
          await refuses(name, args => {
            args[at] = detached();
          }),
        ).toBe(true);
      if (!isTyped(value) || SAY_HOW_MUCH[name]?.includes(at)) continue;
      for (const length of [0, value.length - 1]) {
        const refused = await refuses(name, args => {
          args[at] = (args[at] as Float64Array).subarray(0, length);
        });
        expect(refused, `argument ${at} of ${name} with ${length} elements`).toBe(true);
      }
    }
  });
});

it('whatever else comes is refused or done, and nothing is written beside its place', async () => {
  const ODD = [
    Number.NaN,
    Infinity,
    -Infinity,
    -1,
    -0,
    0.5,
    2 ** 31,
    -(2 ** 31),
    2 ** 32,
    2 ** 53,
    1e300,
    -1e300,
  ];
  const number = fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(...ODD), fc.double());
  const change = fc.record({
    at: fc.nat(9),
    number,
    kind: fc.constantFrom('number', 'element', 'length', 'thing'),
    place: fc.nat(999).map(n => n / 1000),
  });
  let [refused, done] = [0, 0];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...names),
      fc.array(change, { minLength: 1, maxLength: 3 }),
      async (name, changes) => {
        const wasRefused = await refuses(name, args => {
          for (const each of changes) {
            const at = each.at % args.length;
            const value = args[at];
            if (each.kind === 'thing') args[at] = THINGS[Math.floor(each.place * THINGS.length)];
            else if (typeof value === 'number') args[at] = each.number;
            else if (!isTyped(value)) continue;
            else if (each.kind === 'length') args[at] = value.subarray(Math.floor(each.place * value.length));
            else value[Math.floor(each.place * value.length)] = each.number;
          }
        });
        if (wasRefused) refused++;
        else done++;
      },
    ),
    { numRuns: 4000, seed: 11 },
  );
  expect(refused).toBeGreaterThan(500);
  expect(done).toBeGreaterThan(250);
});
