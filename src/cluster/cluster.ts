import type { Discovery } from '../discovery/discovery.ts';
import type { Timers } from '../discovery/timers.ts';
import type { Generator } from '../engine/generate.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { ClusterGenerator, type GenerateRoute } from './cluster-generator.ts';
import type { ClusterHost } from './cluster-host.ts';
import type { ClusterView, NextPlanView } from './cluster-view.ts';
import type { WebSocketLike } from './control-link.ts';
import { Coordinator } from './coordinator.ts';
import type { DeviceInfo } from './device.ts';
import { type Candidate, electHub } from './election.ts';
import { HubReach } from './hub-reach.ts';
import { type Member, Members } from './members.ts';
import { MAX_KNOWN_PEERS, type Message, type MessageOf } from './messages.ts';
import { betterChoice, type ClusterModel, type ModelChoice, modelsOf } from './model-choice.ts';
import { ModelQueue } from './model-queue.ts';
import { MAX_PLAN_DEVICES } from './plan.ts';
import { PlanHolder } from './plan-holder.ts';
import { RemoteStreams } from './remote-streams.ts';
import { ServeGenerate } from './serve-generate.ts';
import { SpokeRole } from './spoke-role.ts';

/** A device that leaves in peace waits this long for a plan without it. */
const LEAVE_MS = 5000;
const STATUS_MS = 2000;

export interface ClusterOptions {
  readonly self: DeviceInfo;
  readonly clusterName: string;
  /** Null: only `peers`, and whoever dials this device. */
  readonly discovery: Discovery | null;
  /** Addresses to dial without discovery. */
  readonly peers: readonly { readonly host: string; readonly port: number }[];
  /** Resolves to an open WebSocket; has a deadline of its own. */
  readonly dial: (host: string, port: number) => Promise<WebSocketLike>;
  readonly timers: Timers;
  readonly host: ClusterHost;
}

/** This device's place in its cluster: finds the others, elects the hub, and holds or follows the plan. */
export class Cluster {
  readonly #options: ClusterOptions;
  #self: DeviceInfo;
  readonly #members: Members;
  readonly #reach: HubReach;
  readonly #holder: PlanHolder;
  readonly #coordinator: Coordinator;
  readonly #spoke: SpokeRole;
  readonly #queue: ModelQueue;
  readonly #serveGenerate: ServeGenerate;
  readonly #remoteStreams = new RemoteStreams();
  readonly #listeners = new Set<() => void>();
  #phase: 'new' | 'running' | 'leaving' | 'stopped' = 'new';
  #hubId: string | null = null;
  /** Which model the cluster computes, by the best word so far; null: nobody asked for one. */
  #choice: ModelChoice | null = null;
  #stateText = '';
  #refreshing = false;
  #refreshAgain = false;
  #statusRequests = 0;
  /** The highest epoch that a hub offered to this device. */
  #offeredEpoch = 0;
  /** Set while this device waits to be let go. */
  #letGo: (() => void) | null = null;
  #stopping: Promise<void> | null = null;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.#self = options.self;
    const { host, timers } = options;
    const changed = (): void => this.#refresh();
    this.#holder = new PlanHolder(host);
    this.#members = new Members({
      self: () => this.#self,
      cluster: options.clusterName,
      timers,
      log: host.log,
      dial: options.dial,
      state: () => this.#state(),
      joined: member => this.#joined(member),
      left: (member, error) => this.#left(member, error),
      changed,
      received: (member, message) => this.#received(member, message),
    });
    this.#reach = new HubReach({
      selfId: options.self.id,
      timers,
      members: () => this.#members.all,
      changed,
    });
    this.#coordinator = new Coordinator({
      self: () => this.#self,
      timers,
      holder: this.#holder,
      host,
      model: () => this.#targetModel(),
      begins: plan => this.#queue.begins(plan.modelId),
      serves: plan => this.#queue.serving(plan.modelId),
      modelFailed: (modelId, error) => this.#queue.failed(modelId, error),
      followers: () => this.#members.all.filter(m => m.state?.hubId === this.#self.id && !m.leaving),
      leavers: () => this.#members.all.filter(m => m.leaving),
      nextEpoch: () => this.#epoch() + 1,
      changed,
    });
    this.#spoke = new SpokeRole({
      selfId: options.self.id,
      timers,
      holder: this.#holder,
      hubId: () => this.#hubId,
      changed,
    });
    this.#queue = new ModelQueue({
      generator: host.generator,
      work: () => host.work(),
      timers,
      target: () => this.#targetModel(),
      choose: modelId => this.#choose(modelId),
      previous: () => this.#holder.latest?.modelId ?? null,
    });
    this.#serveGenerate = new ServeGenerate({
      generate: (modelId, request, signal) => this.#queue.generate(modelId, request, signal),
      isHub: () => this.#isHub(),
    });
  }

  /** Answers with a model of the cluster, wherever its hub is. */
  generator(modelId: string): Generator {
    return new ClusterGenerator({
      route: () => this.#route(modelId),
      onRoute: call => this.onChange(call),
      timers: this.#options.timers,
    });
  }

  /** Runs work on this hub's engine while the cluster stays with the model that it serves; see ModelQueue. */
  hold<T>(work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#queue.hold(work, signal);
  }

  /** What this device and those that it may follow hold completely. */
  models(): ClusterModel[] {
    const others = this.#members.all.filter(m => !m.leaving && this.#reach.mayBeHub(m.id));
    return modelsOf([this.#self, ...others.map(m => m.device)]);
  }

  /** Begins to look for other devices, and to be one. */
  start(): void {
    if (this.#phase !== 'new') return;
    this.#phase = 'running';
    const { discovery, peers, clusterName } = this.#options;
    for (const { host, port } of peers) this.#members.add(host, port, null, 'user');
    discovery?.onFound(found => {
      if (found.cluster === clusterName) this.#members.add(found.host, found.port, found.id, 'network');
    });
    const { id, name, linkPort, version } = this.#self;
    discovery?.start({ id, name, cluster: clusterName, linkPort, version });
    this.#refresh();
  }

  /** Takes a control link that another device dialed; its WebSocket is open. */
  acceptLink(socket: WebSocketLike, remoteAddress: string): void {
    this.#members.accept(socket, remoteAddress);
  }

  /** This device is another now (it holds a further model, its share was measured): tells the others. */
  updateSelf(change: Partial<Pick<DeviceInfo, 'models' | 'share' | 'memoryBytes' | 'apiPort'>>): void {
    this.#self = { ...this.#self, ...change };
    this.#members.broadcast({ type: 'device', device: this.#self });
    this.#refresh();
  }

  /** The active plan does not work any more, says the host; `deviceId` is who is to blame, where it can tell. */
  planBroken(epoch: number, deviceId: string | null, error: PotluckError): void {
    if (this.#isHub()) {
      this.#coordinator.planBroken(epoch, deviceId, error);
    } else if (this.#holder.active?.epoch === epoch) {
      const { code, message } = error;
      this.#hub()?.link.send({ type: 'plan-failed', epoch, code, message });
    }
  }

  /** What another device tells of itself. Rejects with DEVICE_LOST or DEADLINE. */
  async deviceStatus(deviceId: string): Promise<unknown> {
    const member = this.#members.get(deviceId);
    if (member === undefined)
      throw new PotluckError('DEVICE_LOST', `There is no link to device ${deviceId}.`);
    const n = ++this.#statusRequests;
    const isReply = (m: Message): boolean => m.type === 'status-reply' && m.n === n;
    const reply = await member.link.request({ type: 'status-request', n }, isReply, STATUS_MS);
    return reply.type === 'status-reply' ? reply.status : null;
  }

  /** Calls back after every change of `view`; returns what ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  view(): ClusterView {
    const { active } = this.#holder;
    const isHub = this.#isHub();
    const plan = isHub ? this.#coordinator.serving : active?.hubId === this.#hubId ? active : null;
    const next = this.#nextPlan();
    const notes = [
      this.#options.discovery?.note(),
      isHub ? this.#coordinator.trouble?.message : null,
      ...this.#reach.notes,
      ...this.#members.notes,
    ];
    return {
      cluster: this.#options.clusterName,
      selfId: this.#self.id,
      hubId: this.#hubId,
      role: isHub ? 'hub' : this.#hubId === null ? 'none' : 'spoke',
      state: plan !== null ? 'serving' : next !== null ? 'preparing' : 'waiting',
      modelId: plan?.modelId ?? this.#holder.latest?.modelId ?? this.#wantedModel() ?? this.#hubModel(),
      epoch: this.#epoch(),
      plan,
      next,
      members: this.#members.all.map(({ device, state, leaving, link }) => ({
        ...device,
        hubId: state?.hubId ?? null,
        leaving,
        roundTripMs: link.roundTripMs,
      })),
      failures: isHub ? this.#coordinator.failures.current : [],
      notes: notes.filter(note => typeof note === 'string'),
    };
  }

  /**
   * Ends all links. With `leave` the others are told first, and the hub makes a plan without this device while it still
   * computes; that has a deadline.
   */
  stop({ leave }: { leave: boolean }): Promise<void> {
    this.#stopping ??= this.#stop(leave);
    return this.#stopping;
  }

  async #stop(leave: boolean): Promise<void> {
    if (leave && this.#phase === 'running') await this.#leave();
    this.#phase = 'stopped';
    this.#coordinator.stop();
    this.#reach.stop();
    this.#serveGenerate.stop();
    this.#queue.stop();
    this.#holder.abandon();
    this.#members.stop();
    for (const listener of [...this.#listeners]) listener();
    await this.#options.discovery?.stop();
    await this.#holder.deactivate(new PotluckError('STOPPED', 'This device is stopping.'));
  }

  async #leave(): Promise<void> {
    const { timers } = this.#options;
    this.#phase = 'leaving';
    this.#members.broadcast({ type: 'leave' });
    const gone = new Promise<void>(resolve => {
      this.#letGo = resolve;
    });
    this.#refresh();
    if (this.#hubId === null) return;
    const timer = timers.setTimeout(() => this.#letGo?.(), LEAVE_MS);
    await gone;
    timers.clearTimeout(timer);
  }

  #isHub(): boolean {
    return this.#hubId === this.#self.id && this.#phase !== 'stopped';
  }

  #hub(): Member | undefined {
    return this.#hubId === null ? undefined : this.#members.get(this.#hubId);
  }

  /** The highest epoch that this device knows of. */
  #epoch(): number {
    const own = Math.max(
      this.#holder.latest?.epoch ?? 0,
      this.#coordinator.attempt?.plan.epoch ?? 0,
      this.#offeredEpoch,
    );
    return this.#members.all.reduce((most, m) => Math.max(most, m.state?.epoch ?? 0), own);
  }

  #state(): MessageOf<'state'> {
    const peers = this.#members.all
      .map(({ id, device }) => ({ id, host: device.host, port: device.linkPort }))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
    return {
      type: 'state',
      hubId: this.#hubId,
      epoch: this.#epoch(),
      clusterSize: Math.min(MAX_PLAN_DEVICES, this.#coordinator.size),
      choice: this.#choice,
      peers: peers.slice(0, MAX_KNOWN_PEERS),
    };
  }

  /** Elects, and tells everybody what is new. */
  #refresh(): void {
    if (this.#phase === 'new' || this.#phase === 'stopped') return;
    // a send can end a link, and that comes back here
    this.#refreshAgain = true;
    if (this.#refreshing) return;
    this.#refreshing = true;
    while (this.#refreshAgain) {
      this.#refreshAgain = false;
      this.#reach.update();
      for (const { state } of this.#members.all)
        this.#choice = betterChoice(this.#choice, state?.choice ?? null);
      this.#elect();
      this.#coordinator.update();
      const state = this.#state();
      const text = JSON.stringify(state);
      if (text !== this.#stateText) {
        this.#stateText = text;
        this.#members.broadcast(state);
      }
    }
    this.#refreshing = false;
    for (const listener of [...this.#listeners]) listener();
  }

  #elect(): void {
    const hubId = electHub(this.#candidates());
    if (hubId === this.#hubId) return;
    const wasHub = this.#hubId === this.#self.id;
    this.#hubId = hubId;
    if (wasHub) {
      this.#coordinator.stop();
      this.#serveGenerate.stop();
      this.#queue.stop();
    }
    if (hubId === this.#self.id) {
      // what another hub sent is not wanted any more
      this.#holder.abandon();
      this.#coordinator.start();
    }
    // nobody is left who could make a plan without this device
    if (hubId === null) this.#letGo?.();
    const name = hubId === this.#self.id ? 'this device' : this.#hub()?.device.name;
    this.#options.host.log.info(hubId === null ? 'No device can be hub.' : `The hub is ${name}.`);
  }

  /** Before its first word nobody knows whether a device claims. */
  #mayBeHub({ id, state, leaving }: Member): boolean {
    return state !== null && !leaving && this.#reach.mayBeHub(id);
  }

  /** The chosen model where a device that may be hub holds it; null: any hub serves its own first one. */
  #wantedModel(): string | null {
    const modelId = this.#choice?.modelId;
    const mayBeHub = [
      ...(this.#phase === 'running' ? [this.#self] : []),
      ...this.#members.all.filter(m => this.#mayBeHub(m)).map(m => m.device),
    ];
    return modelId !== undefined && mayBeHub.some(device => holds(device, modelId)) ? modelId : null;
  }

  /** The model that this device makes plans for where it is hub. */
  #targetModel(): string | null {
    return this.#wantedModel() ?? this.#self.models[0]?.id ?? null;
  }

  /** The first model of the hub; null where there is none. */
  #hubModel(): string | null {
    const hub = this.#isHub() ? this.#self : this.#hub()?.device;
    return hub?.models[0]?.id ?? null;
  }

  /** The hub's word: from now on the cluster computes this model. False where no device holds it. */
  #choose(modelId: string): boolean {
    if (!this.#isHub() || !this.models().some(({ id }) => id === modelId)) return false;
    this.#choice = { turn: (this.#choice?.turn ?? 0) + 1, modelId };
    this.#refresh();
    return true;
  }

  #candidates(): Candidate[] {
    const wanted = this.#wantedModel();
    const canServe = (device: DeviceInfo): boolean =>
      wanted === null ? device.models.length > 0 : holds(device, wanted);
    const self: Candidate = {
      id: this.#self.id,
      startedAt: this.#self.startedAt,
      electable: canServe(this.#self) && this.#phase === 'running',
      hubId: this.#hubId,
      clusterSize: this.#coordinator.size,
    };
    const others = this.#members.all.map(member => ({
      id: member.id,
      startedAt: member.device.startedAt,
      electable: this.#mayBeHub(member) && canServe(member.device),
      hubId: member.state?.hubId ?? null,
      clusterSize: member.state?.clusterSize ?? 0,
    }));
    return [self, ...others];
  }

  #joined(member: Member): void {
    if (this.#phase === 'leaving') member.link.send({ type: 'leave' });
    this.#refresh();
  }

  #left(member: Member, error: PotluckError): void {
    if (this.#phase === 'stopped') return;
    const wasHub = member.id === this.#hubId;
    this.#reach.lost(member, error);
    this.#coordinator.memberLeft(member, error);
    this.#serveGenerate.memberLeft(member);
    this.#remoteStreams.memberLeft(member, error);
    // a hub looks after its plan itself
    if (!this.#isHub()) {
      if (wasHub) this.#holder.abandon();
      const { active } = this.#holder;
      if (active !== null && (active.hubId === member.id || active.hubId === this.#self.id)) {
        void this.#holder.deactivate(error).then(() => this.#refresh());
      }
    }
    if (wasHub) this.#letGo?.();
    this.#refresh();
  }

  #received(member: Member, message: Message): void {
    if (this.#phase === 'stopped') return;
    if ('plan' in message) this.#offeredEpoch = Math.max(this.#offeredEpoch, message.plan.epoch);
    if (message.type === 'left') {
      if (member.id === this.#hubId) this.#letGo?.();
    } else if (message.type === 'status-request') {
      this.#sendStatus(member, message.n);
    } else if (message.type === 'status-reply') {
      // came after its deadline
    } else if (
      !this.#spoke.receive(member, message) &&
      !this.#coordinator.receive(member, message) &&
      !this.#serveGenerate.receive(member, message) &&
      !this.#remoteStreams.receive(member, message)
    ) {
      throw new PotluckError('PROTOCOL', `${member.device.name} sent ${message.type} at the wrong time.`);
    }
  }

  #sendStatus(member: Member, n: number): void {
    try {
      member.link.send({ type: 'status-reply', n, status: this.#options.host.status() ?? null });
    } catch (error) {
      this.#options.host.log.warn(
        `The status of this device could not be sent: ${asPotluckError(error).message}`,
      );
    }
  }

  #nextPlan(): NextPlanView | null {
    const { attempt } = this.#coordinator;
    if (attempt !== null) {
      const progress = [...attempt.progress].map(([deviceId, { bytes, total }]) => ({
        deviceId,
        bytes,
        total,
      }));
      return { epoch: attempt.plan.epoch, phase: attempt.phase, progress };
    }
    const own = this.#spoke.progress;
    if (own === null) return null;
    const { epoch, bytes, total } = own;
    return { epoch, phase: 'prepare', progress: [{ deviceId: this.#self.id, bytes, total }] };
  }

  #route(modelId: string): GenerateRoute | null {
    if (this.#phase === 'stopped') throw new PotluckError('STOPPED', 'This device is stopping.');
    if (this.#hubId === null) return null;
    if (this.#isHub()) {
      return {
        hubId: this.#hubId,
        generate: (request, signal) => this.#queue.generate(modelId, request, signal),
      };
    }
    const hub = this.#hub();
    if (hub === undefined) return null;
    return {
      hubId: hub.id,
      generate: (request, signal) => this.#remoteStreams.generate(hub, modelId, request, signal),
    };
  }
}

const holds = (device: DeviceInfo, modelId: string): boolean =>
  device.models.some(({ id }) => id === modelId);

export const createCluster = (options: ClusterOptions): Cluster => new Cluster(options);
