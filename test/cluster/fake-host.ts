import type { ClusterHost, HubAddress } from '../../src/cluster/cluster-host.ts';
import { checkPlan, type Plan, type PlannedTile } from '../../src/cluster/plan.ts';
import type { GenerateEvent, GenerateRequest } from '../../src/engine/generate.ts';
import type { EngineWork } from '../../src/engine/pass-runner.ts';
import { PotluckError } from '../../src/errors/errors.ts';

/** 4 layers of 4 attention tiles and 6 FFN tiles, and 8 head tiles. */
export const TILES: readonly PlannedTile[] = [
  ...[0, 1, 2, 3].flatMap(layer => [
    ...Array.from({ length: 4 }, () => ({ kind: 'attention' as const, layer, bytes: 8192 })),
    ...Array.from({ length: 6 }, () => ({ kind: 'ffn' as const, layer, bytes: 4096 })),
  ]),
  ...Array.from({ length: 8 }, () => ({ kind: 'head' as const, layer: 0, bytes: 4096 })),
];

export const MODEL = { id: '0123456789abcdef', name: 'fake' };
export const OTHER_MODEL = { id: 'fedcba9876543210', name: 'other' };
/** A prompt that says which model it is for: the fake engine checks that it runs on that. */
export const promptFor = (model: typeof MODEL): number[] => [model === MODEL ? 101 : 102];

/** Token n of an answer: a function of the prompt and n alone. */
export const fakeToken = (prompt: readonly number[], n: number): number =>
  (prompt.reduce((sum, id) => sum * 31 + id, 7) + n * n) % 50_000;

/** Stands for the tensor streams of a test's devices: who is active in which plan. */
export class FakeNetwork {
  readonly #active = new Map<string, number>();
  #waiting: (() => void)[] = [];

  set(deviceId: string, epoch: number | null): void {
    if (epoch === null) this.#active.delete(deviceId);
    else this.#active.set(deviceId, epoch);
    for (const check of this.#waiting.splice(0)) check();
  }

  /** Resolves when all devices are active in `epoch`. */
  async allActive(ids: readonly string[], epoch: number, signal: AbortSignal): Promise<void> {
    while (!ids.every(id => this.#active.get(id) === epoch)) {
      if (signal.aborted) throw new PotluckError('DEVICE_LOST', 'A tensor stream did not come.');
      await new Promise<void>(resolve => {
        this.#waiting.push(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }
}

export interface FakeHostBehaviour {
  prepare?: (
    plan: Plan,
    onProgress: (bytes: number, total: number) => void,
    signal: AbortSignal,
  ) => Promise<void>;
  activate?: (plan: Plan) => Promise<void>;
  /** Waits before each token. */
  beforeToken?: (n: number) => Promise<void>;
}

/** A daemon without sockets, disks or kernels. It checks the order of the calls that it gets. */
export class FakeHost implements ClusterHost {
  readonly deviceId: string;
  readonly behaviour: FakeHostBehaviour;
  readonly lines: string[] = [];
  readonly prepared: Plan[] = [];
  readonly served: { plan: Plan; kvPages: readonly number[] }[] = [];
  readonly hubs: HubAddress[] = [];
  /** Calls that came while another one ran: must stay empty. */
  readonly overlaps: string[] = [];
  active: Plan | null = null;
  serving: Plan | null = null;
  /** Tokens that this host's engine made. */
  tokens = 0;
  #busy: string | null = null;
  readonly #network: FakeNetwork;

  constructor(deviceId: string, network: FakeNetwork, behaviour: FakeHostBehaviour = {}) {
    this.deviceId = deviceId;
    this.#network = network;
    this.behaviour = behaviour;
  }

  readonly log = {
    info: (message: string) => void this.lines.push(`info ${message}`),
    warn: (message: string) => void this.lines.push(`warn ${message}`),
  };

  async prepare(
    plan: Plan,
    index: number,
    hub: HubAddress,
    onProgress: (bytes: number, total: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    checkPlan(plan, TILES);
    if (plan.devices[index]?.id !== this.deviceId) this.overlaps.push('prepared with another index');
    if (index > 0) this.hubs.push(hub);
    await this.behaviour.prepare?.(plan, onProgress, signal);
    signal.throwIfAborted();
    this.prepared.push(plan);
  }

  activate(plan: Plan, index: number, signal: AbortSignal): Promise<{ kvPages: number }> {
    return this.#alone('activate', async () => {
      this.#end();
      await this.behaviour.activate?.(plan);
      this.active = plan;
      this.#network.set(this.deviceId, plan.epoch);
      const spokes = plan.devices.slice(1).map(d => d.id);
      if (index === 0) await this.#network.allActive(spokes, plan.epoch, signal);
      return { kvPages: 100 + index };
    });
  }

  serve(plan: Plan, kvPages: readonly number[]): Promise<void> {
    return this.#alone('serve', () => {
      this.serving = plan;
      this.served.push({ plan, kvPages });
      return Promise.resolve();
    });
  }

  deactivate(): Promise<void> {
    return this.#alone('deactivate', () => {
      this.#end();
      return Promise.resolve();
    });
  }

  manifestFor(modelId: string): { tiles: readonly PlannedTile[] } {
    if (modelId !== MODEL.id && modelId !== OTHER_MODEL.id)
      throw new PotluckError('UNKNOWN_MODEL', `No model ${modelId}.`);
    return { tiles: TILES };
  }

  status(): unknown {
    return { of: this.deviceId };
  }

  readonly generator = {
    generate: (request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent> =>
      this.#generate(request, signal),
  };

  work(): EngineWork {
    return { calls: this.tokens, computing: false };
  }

  async *#generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
    for (let n = request.generated.length; n < request.maxTokens; n++) {
      await this.behaviour.beforeToken?.(n);
      if (signal.aborted) return;
      if (this.serving === null) throw new PotluckError('NOT_READY', 'No plan.');
      const wanted = request.prompt[0] === 101 ? MODEL : request.prompt[0] === 102 ? OTHER_MODEL : null;
      if (wanted !== null && this.serving.modelId !== wanted.id)
        this.overlaps.push(`a token for ${wanted.name} in plan ${this.serving.epoch} of another model`);
      this.tokens += 1;
      yield { type: 'token', id: fakeToken(request.prompt, n) };
    }
    yield { type: 'finish', reason: 'length' };
  }

  #end(): void {
    this.active = null;
    this.serving = null;
    this.#network.set(this.deviceId, null);
  }

  async #alone<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy !== null) this.overlaps.push(`${name} during ${this.#busy}`);
    this.#busy = name;
    try {
      return await work();
    } finally {
      this.#busy = null;
    }
  }
}
