import { describe, expect, it } from 'vitest';
import { type Candidate, electHub } from '../../src/cluster/election.ts';
import { seeded } from './random.ts';

const device = (id: string, startedAt: number, more: Partial<Candidate> = {}): Candidate => ({
  id,
  startedAt,
  electable: true,
  hubId: null,
  clusterSize: 0,
  ...more,
});

describe('electHub', () => {
  it('elects the first that started, then the lower id', () => {
    expect(electHub([device('b', 5), device('c', 4), device('a', 5)])).toBe('c');
    expect(electHub([device('b', 5), device('a', 5)])).toBe('a');
  });

  it('elects only devices that hold the pack', () => {
    expect(electHub([device('a', 1, { electable: false }), device('b', 2)])).toBe('b');
    expect(electHub([device('a', 1, { electable: false })])).toBeNull();
    expect(electHub([])).toBeNull();
  });

  it('keeps a hub that serves others, but not one that serves alone', () => {
    const old = device('a', 1);
    expect(electHub([old, device('b', 2, { hubId: 'b', clusterSize: 2 })])).toBe('b');
    expect(electHub([old, device('b', 2, { hubId: 'b', clusterSize: 1 })])).toBe('a');
    expect(electHub([old, device('b', 2, { hubId: 'c', clusterSize: 2 })])).toBe('a');
    expect(electHub([old, device('b', 2, { hubId: 'b', clusterSize: 9, electable: false })])).toBe('a');
  });
});

/** A device of the simulation: its own state, and the last word that it has of every other one. */
class Node {
  readonly id: string;
  readonly startedAt: number;
  readonly electable: boolean;
  alive = true;
  hubId: string | null = null;
  /** Devices of the plan that it serves; set some time after it became hub. */
  size = 0;
  readonly heard = new Map<string, { word: Candidate; version: number }>();
  version = 0;

  constructor(id: string, startedAt: number, electable: boolean) {
    this.id = id;
    this.startedAt = startedAt;
    this.electable = electable;
  }

  get word(): Candidate {
    const { id, startedAt, electable, hubId, size: clusterSize } = this;
    return { id, startedAt, electable, hubId, clusterSize };
  }

  elect(): boolean {
    const before = `${this.hubId} ${this.size}`;
    this.hubId = electHub([this.word, ...[...this.heard.values()].map(h => h.word)]);
    const followers = [...this.heard.values()].filter(h => h.word.hubId === this.id).length;
    this.size = this.hubId === this.id ? 1 + followers : 0;
    return before !== `${this.hubId} ${this.size}`;
  }
}

/** Devices that join and leave, and tell each other their state with delays; each keeps only the newest word of another. */
class Simulation {
  readonly random: () => number;
  readonly nodes: Node[] = [];
  queue: { at: number; to: Node; word: Candidate; version: number }[] = [];
  now = 0;

  constructor(seed: number) {
    this.random = seeded(seed);
  }

  get alive(): Node[] {
    return this.nodes.filter(n => n.alive);
  }

  join(): void {
    const id = String(100 + this.nodes.length);
    const node = new Node(id, Math.floor(this.random() * 20), this.nodes.length === 0 || this.random() < 0.7);
    this.nodes.push(node);
    for (const other of this.alive) {
      if (other !== node) this.send(other, node);
    }
    node.elect();
    this.tell(node);
  }

  leave(node: Node): void {
    node.alive = false;
    for (const other of this.alive) {
      other.heard.delete(node.id);
      if (other.elect()) this.tell(other);
    }
  }

  send(from: Node, to: Node): void {
    this.queue.push({ at: this.now + this.random() * 50, to, word: from.word, version: from.version });
  }

  tell(node: Node): void {
    node.version += 1;
    for (const other of this.alive) if (other !== node) this.send(node, other);
  }

  /** Delivers one message; false where none is left. */
  step(): boolean {
    this.queue.sort((a, b) => a.at - b.at);
    const next = this.queue.shift();
    if (next === undefined) return false;
    this.now = next.at;
    const from = this.nodes.find(n => n.id === next.word.id)!;
    const known = next.to.heard.get(from.id);
    if (!next.to.alive || !from.alive || (known && known.version > next.version)) return true;
    next.to.heard.set(from.id, { word: next.word, version: next.version });
    if (next.to.elect()) this.tell(next.to);
    return true;
  }
}

describe('election with delays, joins and leaves', () => {
  it('always ends with one hub that everybody follows', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const simulation = new Simulation(seed);
      const { random } = simulation;
      for (let event = 0; event < 25; event++) {
        const { alive } = simulation;
        if (alive.length < 2 || (alive.length < 9 && random() < 0.6)) simulation.join();
        else simulation.leave(alive[Math.floor(random() * alive.length)]!);
        for (let steps = random() * 40; steps > 0; steps--) simulation.step();
      }
      let steps = 0;
      while (simulation.step()) {
        if (++steps > 20_000) throw new Error(`seed ${seed}: no end`);
      }
      const { alive } = simulation;
      const hubs = new Set(alive.map(n => n.hubId));
      expect(hubs.size, `seed ${seed}`).toBe(1);
      const [hub] = hubs;
      const electable = alive.some(n => n.electable);
      expect(hub === null, `seed ${seed}`).toBe(!electable);
      if (electable) expect(alive.find(n => n.id === hub)?.electable, `seed ${seed}`).toBe(true);
    }
  });

  it('never changes a hub that serves others because a device joins', () => {
    for (let seed = 1; seed <= 100; seed++) {
      const simulation = new Simulation(seed);
      while (simulation.alive.length < 3) simulation.join();
      while (simulation.step());
      const hub = simulation.alive[0]!.hubId;
      for (let n = 0; n < 5; n++) {
        simulation.join();
        while (simulation.step()) {
          for (const old of simulation.nodes.slice(0, 3)) expect(old.hubId, `seed ${seed}`).toBe(hub);
        }
      }
      expect(new Set(simulation.alive.map(n => n.hubId)), `seed ${seed}`).toEqual(new Set([hub]));
    }
  });
});
