import { describe, expect, it } from 'vitest';
import { MAX_EPOCH } from '../../src/cluster/device.ts';
import { deviceParts, makePlan, type PlanCandidate } from '../../src/cluster/make-plan.ts';
import { type Plan, type PlannedTile, tilesOf } from '../../src/cluster/plan.ts';
import { seeded } from './random.ts';
import { idOf } from './ws-devices.ts';

const candidate = (n: number, more: Partial<PlanCandidate> = {}): PlanCandidate => ({
  id: idOf(n),
  name: `d${n}`,
  host: '10.0.0.1',
  linkPort: 1000 + n,
  share: 1,
  memoryBytes: 2 ** 40,
  ...more,
});

interface Counts {
  layers: number;
  attention: number;
  ffn: number;
  head: number;
}

function model({ layers, attention, ffn, head }: Counts): PlannedTile[] {
  const tiles: PlannedTile[] = [];
  const add = (kind: PlannedTile['kind'], layer: number, count: number, bytes: number): void => {
    for (let i = 0; i < count; i++) tiles.push({ kind, layer, bytes });
  };
  for (let layer = 0; layer < layers; layer++) {
    add('attention', layer, attention, 3 * 4096);
    add('ffn', layer, ffn, 2 * 4096);
  }
  add('head', 0, head, 4096);
  return tiles;
}

const bytesOf = (tiles: readonly PlannedTile[], plan: Plan, device: number): number =>
  tilesOf(plan, device).reduce((sum, t) => sum + tiles[t]!.bytes, 0);

const countIn = (
  tiles: readonly PlannedTile[],
  plan: Plan,
  device: number,
  kind: string,
  layer: number,
): number => tilesOf(plan, device).filter(t => tiles[t]!.kind === kind && tiles[t]!.layer === layer).length;

const make = (
  tiles: readonly PlannedTile[],
  devices: readonly PlanCandidate[],
  previous: Plan | null = null,
): Plan => makePlan({ epoch: 7, modelId: '00112233aabbccdd', tiles, devices, previous });

/** Bytes that a device holds now and did not hold before. */
function movedBytes(tiles: readonly PlannedTile[], before: Plan, after: Plan): number {
  return after.assignment.reduce((sum, device, tile) => {
    const was = before.devices[before.assignment[tile]!]!.id;
    return sum + (was === after.devices[device]!.id ? 0 : tiles[tile]!.bytes);
  }, 0);
}

describe('makePlan', () => {
  it('gives one device everything', () => {
    const tiles = model({ layers: 2, attention: 4, ffn: 3, head: 2 });
    const plan = make(tiles, [candidate(1)]);
    expect(tilesOf(plan, 0)).toEqual(tiles.map((_, i) => i));
    expect(plan).toMatchObject({ epoch: 7, hubId: idOf(1), devices: [{ id: idOf(1), linkPort: 1001 }] });
  });

  it('takes the last plan number, and says so where it was taken', () => {
    const tiles = model({ layers: 1, attention: 4, ffn: 3, head: 2 });
    const at = (epoch: number) =>
      makePlan({ epoch, modelId: '00112233aabbccdd', tiles, devices: [candidate(1)] });
    expect(at(MAX_EPOCH).epoch).toBeLessThan(2 ** 32);
    expect(() => at(MAX_EPOCH + 1)).toThrow(/Stop all devices/);
  });

  it('lets the odd tile go round: 4 attention tiles on 3 devices', () => {
    const tiles = model({ layers: 6, attention: 4, ffn: 6, head: 3 });
    const plan = make(
      tiles,
      [1, 2, 3].map(n => candidate(n)),
    );
    for (let layer = 0; layer < 6; layer++) {
      const counts = [0, 1, 2].map(d => countIn(tiles, plan, d, 'attention', layer));
      expect([...counts].sort()).toEqual([1, 1, 2]);
      expect([0, 1, 2].map(d => countIn(tiles, plan, d, 'ffn', layer))).toEqual([2, 2, 2]);
    }
    const bytes = [0, 1, 2].map(d => bytesOf(tiles, plan, d));
    expect(new Set(bytes).size).toBe(1);
  });

  it('follows shares, evens out and uses every tile once, for 1 to 16 devices', () => {
    const random = seeded(11);
    for (let n = 1; n <= 16; n++) {
      const tiles = model({ layers: 8, attention: 1 + Math.floor(random() * 8), ffn: 5, head: 9 });
      const devices = Array.from({ length: n }, (_, i) => candidate(i + 1, { share: 0.5 + 3 * random() }));
      const plan = make(tiles, devices);
      const all = devices.flatMap((_, i) => tilesOf(plan, i));
      expect(all.sort((a, b) => a - b)).toEqual(tiles.map((_, i) => i));
      const sum = devices.reduce((s, d) => s + d.share, 0);
      for (const kind of ['attention', 'ffn', 'head']) {
        const total = tiles.filter(t => t.kind === kind).length;
        for (const [i, d] of devices.entries()) {
          const has = tilesOf(plan, i).filter(t => tiles[t]!.kind === kind).length;
          expect(Math.abs(has - (total * d.share) / sum), `${n} devices, ${kind}`).toBeLessThan(1.5);
        }
      }
    }
  });

  it('is the same for the same input', () => {
    const tiles = model({ layers: 4, attention: 4, ffn: 7, head: 5 });
    const devices = [candidate(3, { share: 1.3 }), candidate(1), candidate(2, { share: 2 })];
    expect(make(tiles, devices)).toEqual(make(tiles, devices));
  });

  it('moves nothing when only the hub is another', () => {
    const tiles = model({ layers: 5, attention: 4, ffn: 7, head: 5 });
    const [a, b, c] = [candidate(1), candidate(2, { share: 1.7 }), candidate(3)];
    const before = make(tiles, [a!, b!, c!]);
    const after = make(tiles, [c!, a!, b!], before);
    expect(after.hubId).toBe(c!.id);
    expect(movedBytes(tiles, before, after)).toBe(0);
  });

  it('moves little more than the part of a device that joins or leaves', () => {
    const tiles = model({ layers: 12, attention: 8, ffn: 12, head: 16 });
    const total = tiles.reduce((s, t) => s + t.bytes, 0);
    for (let n = 2; n <= 8; n++) {
      const devices = Array.from({ length: n }, (_, i) => candidate(i + 1));
      const before = make(tiles, devices.slice(0, -1));
      const joined = make(tiles, devices, before);
      expect(movedBytes(tiles, before, joined) / total, `join ${n}`).toBeLessThan(1 / n + 0.05);
      const left = make(tiles, devices.slice(0, -1), joined);
      expect(movedBytes(tiles, joined, left) / total, `leave ${n}`).toBeLessThan(1 / n + 0.05);
    }
  });

  it('moves little where shares are uneven and tiles few', () => {
    const random = seeded(3);
    let moved = 0;
    let least = 0;
    for (let round = 0; round < 60; round++) {
      const attention = 1 + Math.floor(random() * 8);
      const tiles = model({ layers: 16, attention, ffn: 3 + Math.floor(random() * 12), head: 4 });
      const devices = Array.from({ length: 2 + Math.floor(random() * 6) }, (_, i) =>
        candidate(i + 1, { share: 0.5 + random() }),
      );
      const fewer = devices.slice(0, -1);
      const before = make(tiles, fewer);
      const joined = make(tiles, devices, before);
      const left = make(tiles, fewer, joined);
      const bytes = movedBytes(tiles, before, joined) + movedBytes(tiles, joined, left);
      const sum = devices.reduce((s, d) => s + d.share, 0);
      moved += bytes / tiles.reduce((s, t) => s + t.bytes, 0);
      least += (2 * devices.at(-1)!.share) / sum;
    }
    expect(moved / least).toBeLessThan(1.1);
  });

  it('passes over a plan of another model', () => {
    const tiles = model({ layers: 2, attention: 4, ffn: 3, head: 2 });
    const devices = [candidate(1), candidate(2)];
    const other = { ...make(tiles, [candidate(2), candidate(1)]), modelId: 'ffffffffffffffff' };
    expect(make(tiles, devices, other)).toEqual(make(tiles, devices));
  });

  it('keeps every device within its memory while all together have room', () => {
    const tiles = model({ layers: 20, attention: 8, ffn: 12, head: 16 });
    const total = tiles.reduce((s, t) => s + t.bytes, 0);
    const devices = [
      candidate(1, { memoryBytes: total * 0.15 }),
      candidate(2, { memoryBytes: total * 0.3 }),
      candidate(3, { memoryBytes: total, share: 0.5 }),
    ];
    const plan = make(tiles, devices);
    for (const [i, d] of devices.entries())
      expect(bytesOf(tiles, plan, i)).toBeLessThanOrEqual(d.memoryBytes);
    expect(bytesOf(tiles, plan, 0)).toBeGreaterThan(total * 0.1);
  });

  it('gives nothing to a device that cannot hold a window, and refuses where none can', () => {
    const tiles = model({ layers: 3, attention: 4, ffn: 4, head: 4 });
    const tiny = { memoryBytes: 4 * 4096 };
    const plan = make(tiles, [candidate(1), candidate(2, tiny)]);
    expect(tilesOf(plan, 1)).toEqual([]);
    expect(() => make(tiles, [candidate(1, tiny), candidate(2, tiny)])).toThrow(/--memory/);
  });

  it('shares what does not fit by speed', () => {
    const tiles = model({ layers: 10, attention: 4, ffn: 4, head: 4 });
    const small = 20 * 3 * 4096;
    const parts = deviceParts(tiles, [
      candidate(1, { memoryBytes: small, share: 3 }),
      candidate(2, { memoryBytes: small, share: 1 }),
    ]);
    expect(parts[0]! + parts[1]!).toBeCloseTo(1, 12);
    expect(parts[0]!).toBeGreaterThan(parts[1]!);
  });
});
