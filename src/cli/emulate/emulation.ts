import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DaemonStatus } from '../../daemon/status.ts';
import { asPotluckError, PotluckError } from '../../errors/errors.ts';
import { fetchStatus } from '../api-client.ts';
import { defaultThreads } from '../default-threads.ts';
import { ChildDaemon } from './child-daemon.ts';
import type { LinkLimits } from './link-shaper.ts';
import { Relay } from './relay.ts';

export interface EmulationOptions {
  readonly devices: number;
  /** Pack of the first device; the others start without a model. */
  readonly model: string;
  /** Bytes of each device's whole process. */
  readonly memory?: number;
  /** Bytes of tiles in each device's memory. */
  readonly window?: number;
  readonly threads?: number;
  /** One for each device. */
  readonly shares?: readonly number[];
  /** Limits of each device's link. */
  readonly link?: LinkLimits;
  /** First API port: device i gets `port + 2 i`, and the port after it for its link. Any free ones unless given. */
  readonly port?: number;
  /** False: passes check no drafts, so that each token is one pass. */
  readonly drafts?: boolean;
  readonly backend?: string;
  readonly kernel?: string;
  /** Most milliseconds until all devices serve; three minutes unless given. */
  readonly deadline?: number;
  /** Gives up while devices get ready. */
  readonly signal?: AbortSignal;
  /** Called with a line now and then while devices get ready. */
  readonly onProgress?: (line: string) => void;
}

export interface EmulatedDevice {
  readonly name: string;
  readonly apiUrl: string;
  readonly pid: number;
  /** Ends it as a power cut would. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

export interface Emulation {
  readonly devices: readonly EmulatedDevice[];
  /** API of the first device. */
  readonly apiUrl: string;
  status(device: number): Promise<DaemonStatus>;
  /** API of the hub: it runs the engine. Rejects with NOT_READY where there is none. */
  hubUrl(): Promise<string>;
  /** Waits until these devices (all, unless given) serve one plan of exactly them. Rejects with NOT_READY. */
  serving(devices?: readonly number[], deadline?: number): Promise<void>;
  /** Ends all devices and removes their folders. May be called twice. */
  stop(): Promise<void>;
}

const READY_MILLISECONDS = 180_000;
const POLL_MILLISECONDS = 100;

/**
 * Starts real daemons, each a process with a folder and a memory budget of its own, in a cluster of their own, and waits
 * until one plan has them all. Rejects with NOT_READY (and what the device said last) where that fails; nothing is
 * left running then.
 */
export async function startEmulation(options: EmulationOptions): Promise<Emulation> {
  const running = new RunningEmulation(await mkdtemp(join(tmpdir(), 'potluck-emulation-')), options);
  try {
    await running.start();
    await running.serving();
    return running;
  } catch (error) {
    await running.stop();
    throw error;
  }
}

class RunningEmulation implements Emulation {
  readonly #folder: string;
  readonly #options: EmulationOptions;
  readonly #cluster = `emulation-${randomBytes(6).toString('hex')}`;
  readonly #children: ChildDaemon[] = [];
  readonly #relays: Relay[] = [];
  devices: EmulatedDevice[] = [];

  constructor(folder: string, options: EmulationOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  get apiUrl(): string {
    return this.devices[0]!.apiUrl;
  }

  async start(): Promise<void> {
    const { devices, deadline } = this.#options;
    const late = AbortSignal.timeout(deadline ?? READY_MILLISECONDS);
    const signal = this.#options.signal === undefined ? late : AbortSignal.any([late, this.#options.signal]);
    // All devices wait at once; over ten, Node would take that for a leak.
    setMaxListeners(devices, signal);
    await this.#startDevice(0, null, signal);
    const peer = this.#relays[0]?.port ?? this.#children[0]!.announcement.linkPort;
    const others = Array.from({ length: devices - 1 }, (_, i) => this.#startDevice(i + 1, peer, signal));
    // All of them, so that none is still starting when the first failure stops the emulation.
    const failed = (await Promise.allSettled(others)).find(each => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    this.devices = this.#children.map(child => ({
      name: child.name,
      apiUrl: child.announcement.apiUrl,
      pid: child.pid,
      kill: () => child.kill(),
      stop: () => child.stop(),
    }));
  }

  async #startDevice(index: number, peerPort: number | null, signal: AbortSignal): Promise<void> {
    const { link } = this.#options;
    const relay = link === undefined ? null : await Relay.open(link);
    if (relay !== null) this.#relays[index] = relay;
    const args = this.#arguments(index, peerPort);
    if (relay !== null) args.push('--advertise', `127.0.0.1:${relay.port}`);
    const child = new ChildDaemon(`device-${index + 1}`, args, this.#folder);
    this.#children[index] = child;
    const { linkPort } = await child.listening(signal);
    if (relay !== null) relay.target = { host: '127.0.0.1', port: linkPort };
  }

  #arguments(index: number, peerPort: number | null): string[] {
    const { devices, model, memory, window, threads, shares, port, drafts, backend, kernel } = this.#options;
    const spread = Math.max(1, Math.floor(defaultThreads() / devices));
    const args = ['--name', `device-${index + 1}`, '--cluster', this.#cluster, '--no-discovery'];
    const add = (option: string, value: string | number | undefined): void => {
      if (value !== undefined) args.push(option, String(value));
    };
    add('--port', port === undefined ? 0 : port + 2 * index);
    add('--link-port', port === undefined ? 0 : port + 2 * index + 1);
    add('--data', join(this.#folder, `device-${index + 1}`));
    add('--model', index === 0 ? model : 'none');
    add('--memory', memory);
    add('--window', window);
    add('--threads', threads ?? spread);
    add('--share', shares?.[index]);
    if (drafts === false) args.push('--no-drafts');
    add('--backend', backend);
    add('--kernel', kernel);
    if (peerPort !== null) add('--peer', `127.0.0.1:${peerPort}`);
    return args;
  }

  status(device: number): Promise<DaemonStatus> {
    return fetchStatus(this.devices[device]!.apiUrl);
  }

  async hubUrl(): Promise<string> {
    const { hub } = await this.status(0);
    const child = this.#children.find(each => each.announcement.deviceId === hub?.id);
    if (child === undefined) throw new PotluckError('NOT_READY', 'The emulated devices have no hub');
    return child.announcement.apiUrl;
  }

  async serving(
    wanted?: readonly number[],
    deadline = this.#options.deadline ?? READY_MILLISECONDS,
  ): Promise<void> {
    const indices = wanted ?? this.devices.map((_, index) => index);
    const end = performance.now() + deadline;
    let said = '';
    for (;;) {
      const missing = await this.#missing(indices);
      if (missing === null) return;
      if (missing !== said) this.#options.onProgress?.(missing);
      said = missing;
      const left = end - performance.now();
      if (left <= 0 || this.#options.signal?.aborted) throw this.#notReady(missing);
      await sleep(Math.min(POLL_MILLISECONDS, left));
    }
  }

  /** What is missing until these devices serve one plan of exactly them; null where nothing is. */
  async #missing(indices: readonly number[]): Promise<string | null> {
    for (const index of indices) {
      const child = this.#children[index]!;
      if (child.exit !== null) throw child.failure('ended');
    }
    const asked = await Promise.allSettled(indices.map(index => this.status(index)));
    const statuses: DaemonStatus[] = [];
    for (const [i, answer] of asked.entries()) {
      const { name } = this.#children[indices[i]!]!;
      if (answer.status === 'rejected') return `${name}: ${asPotluckError(answer.reason).message}`;
      statuses.push(answer.value);
    }
    return missingIn(statuses);
  }

  #notReady(missing: string): PotluckError {
    const words = this.#children
      .filter(each => each.lastWords !== '')
      .map(each => `${each.name}: ${each.lastWords}`);
    const said = words.length === 0 ? '' : `; last words: ${words.join('; ')}`;
    return new PotluckError('NOT_READY', `The emulated devices are not ready in time: ${missing}${said}`);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#children.map(child => child.stop()));
    await Promise.all(this.#relays.map(relay => relay.close()));
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** What is missing until the devices that gave these statuses serve one plan of exactly them; null: nothing. */
export function missingIn(statuses: readonly DaemonStatus[]): string | null {
  const count = statuses.length;
  const epoch = statuses[0]?.epoch;
  for (const { state, device, devices, epoch: own } of statuses) {
    if (state !== 'serving') return `${device.name} is ${state}`;
    const inPlan = devices.filter(each => each.role !== 'waiting').length;
    if (inPlan !== count) return `the plan of ${device.name} has ${inPlan} of ${count} devices`;
    if (device.role === 'waiting') return `${device.name} is not in the plan`;
    if (own !== epoch)
      return `${device.name} has plan ${own}, and ${statuses[0]?.device.name} has plan ${epoch}`;
  }
  return null;
}
