import { randomInt } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import bonjour from 'bonjour-service';
import { type ConsolaInstance, createConsola } from 'consola';
import type { WebSocket } from 'ws';
import type { ApiHost, ApiModel, ListedModel } from '../api/host.ts';
import { type Cluster, createCluster } from '../cluster/cluster.ts';
import type { ClusterHost } from '../cluster/cluster-host.ts';
import { type DeviceInfo, PROTOCOL_VERSION } from '../cluster/device.ts';
import type { ClusterModel } from '../cluster/model-choice.ts';
import { MdnsDiscovery } from '../discovery/mdns-discovery.ts';
import { crc32c } from '../disk-io/crc32c.ts';
import { createEngine, type Engine } from '../engine/engine.ts';
import type { Generator } from '../engine/generate.ts';
import { PlanRunner } from '../engine/plan-runner.ts';
import { asPotluckError, type ErrorCode, PotluckError } from '../errors/errors.ts';
import type { RowFault } from '../model/embedding.ts';
import { tokenizerMemory } from '../model/pack-tokenizer.ts';
import type { Manifest } from '../pack/manifest.ts';
import { leastWindowBytes } from '../window-scheduler/plan-window.ts';
import { type ApiServer, openApiServer } from './api-server.ts';
import { type AskOne, askOthers, RECOVER_MILLISECONDS } from './ask-others.ts';
import { type Close, closeAfter, closeAll } from './close-all.ts';
import { clusterStatus } from './cluster-status.ts';
import { type DataFolder, openDataFolder } from './data-folder.ts';
import { fetchEmbeddingRow } from './embedding-rows.ts';
import { httpGetter } from './http-get.ts';
import type { HubEngine } from './internal-routes.ts';
import { dialControl, type LinkServer, openLinkServer } from './link-server.ts';
import { type LoadedBackend, loadBackend } from './load-backend.ts';
import { type LocalStatus, localStatus } from './local-status.ts';
import { MemoryKeeper } from './memory-keeper.ts';
import { type LocalModel, ModelStore } from './model-store.ts';
import type { DaemonOptions, RunningDaemon } from './options.ts';
import { PlanHost } from './plan-host.ts';
import { processMemory, systemMemory } from './process-memory.ts';
import { ServedModels } from './served-model.ts';
import type { DaemonStatus } from './status.ts';
import { TensorArrivals } from './tensor-links.ts';
import { tileReaders } from './tile-readers.ts';
import { TIMERS } from './timers.ts';
import { PATIENCE } from './transfer-deadline.ts';
import { version } from './version.ts';

/** How often the account of memory is looked at. */
const LOOK_MILLISECONDS = 500;
const ENGINE_LIMITS = { maxSequences: 16, maxQueue: 64 };
/** Manifest, constants and tokenizer of a model come from another device within this time. */
const RECEIVE_MILLISECONDS = 60_000;
/** A plan that took longer to activate was given up. */
const STREAM_MILLISECONDS = 90_000;
/** What keeps a device out of a plan without being its own fault; the next plan has it again. */
const PASSING: ReadonlySet<ErrorCode> = new Set(['NOT_READY', 'DEVICE_LOST', 'DEADLINE', 'STOPPED']);
/** Names that a client may use for whatever model is served. */
const ALIASES = ['default', 'potluck'];

/** Starts a daemon; resolves when both ports listen. Rejects with what keeps it from starting, and leaves nothing open. */
export async function startDaemon(options: DaemonOptions): Promise<RunningDaemon> {
  const opened: Close[] = [];
  try {
    const folder = await openDataFolder(options.dataFolder);
    opened.push(() => folder.release());
    const compute = await loadBackend(options);
    opened.push(() => compute.backend.close());
    const store = await ModelStore.open(options, options.dataFolder, checksumOf(compute));
    opened.push(() => store.close());
    const daemon = new Daemon(options, folder, compute, store);
    opened.push(() => daemon.close());
    await daemon.open();
    return daemon.running(opened);
  } catch (error) {
    return closeAfter(error, opened);
  }
}

/** Everything of one device, put together. */
class Daemon {
  readonly #options: DaemonOptions;
  readonly #folder: DataFolder;
  readonly #compute: LoadedBackend;
  readonly #store: ModelStore;
  readonly #log: ConsolaInstance;
  readonly #arrivals = new TensorArrivals({
    isMember: id => this.#cluster?.view().members.some(member => member.id === id) ?? false,
    timers: TIMERS,
    patience: STREAM_MILLISECONDS,
  });
  readonly #runner = new PlanRunner(TIMERS);
  readonly #engine: Engine;
  readonly #plans: PlanHost;
  readonly #keeper: MemoryKeeper;
  readonly #startedAt = Date.now();
  #cluster: Cluster | null = null;
  #links: LinkServer | null = null;
  #api: ApiServer | null = null;
  readonly #served: ServedModels;
  /** Models, by id, of which it was said that embedding rows are damaged. */
  readonly #toldOfRows = new Set<string>();
  /** Models, by id, of which tiles were lost or wrong. */
  readonly #damaged = new Map<string, LocalModel>();
  #looking: NodeJS.Timeout | undefined;
  /** Why this device could not take its part of the last plan that another made; null where it could. */
  #leftOut: string | null = null;

  constructor(options: DaemonOptions, folder: DataFolder, compute: LoadedBackend, store: ModelStore) {
    this.#options = options;
    this.#folder = folder;
    this.#compute = compute;
    this.#store = store;
    this.#log = createConsola({ level: process.env.POTLUCK_DEBUG === '1' ? 4 : 1, stdout: process.stderr });
    this.#keeper = new MemoryKeeper({
      budget: options.memory,
      windowBytes: options.windowBytes,
      count: processMemory,
      system: systemMemory,
      pause: milliseconds => new Promise(resolve => TIMERS.setTimeout(() => resolve(), milliseconds)),
    });
    this.#served = new ServedModels(this.#keeper, TIMERS);
    this.#engine = createEngine({
      runner: this.#runner,
      logitMath: compute.backend.logitMath,
      clock: TIMERS.now,
      limits: ENGINE_LIMITS,
      drafts: options.drafts,
      defer: setImmediate,
    });
    this.#plans = new PlanHost({
      deviceId: folder.deviceId,
      backend: compute.backend,
      disk: compute.addon,
      store,
      runner: this.#runner,
      arrivals: this.#arrivals,
      keeper: this.#keeper,
      recover: (model, tile, signal) => this.#recoverTile(model, tile, signal),
      recoverRow: (model, row, fault) => this.#recoverRow(model, row, fault),
      onLost: (epoch, deviceId, error) => this.#cluster?.planBroken(epoch, deviceId, error),
    });
    for (const note of compute.notes) this.#log.warn(note);
    const [pack] = store.packs;
    if (pack) this.#checkMemory(pack.manifest);
  }

  async open(): Promise<void> {
    const { apiHost, apiPort, linkPort, discovery, cluster, peers } = this.#options;
    this.#links = await openLinkServer({
      port: linkPort,
      arrivals: this.#arrivals,
      readers: tileReaders({
        store: this.#store,
        crc32c: checksumOf(this.#compute),
        repair: (model, tile) => this.#recoverTile(model, tile, AbortSignal.timeout(RECOVER_MILLISECONDS)),
      }),
      patience: PATIENCE,
      onControl: (socket, host) => this.#acceptLink(socket, host),
      onError: error => this.#log.warn(error.message),
    });
    this.#api = await openApiServer(apiHost, apiPort, this.#apiHost(), {
      status: () => this.#status(),
      engine: () => this.#hubEngine(),
      vocabulary: () => this.#runner.vocabulary,
    });
    this.#cluster = createCluster({
      self: this.#device(this.#links.port, this.#api.port),
      clusterName: cluster,
      discovery: discovery ? createDiscovery() : null,
      peers,
      dial: dialControl,
      timers: TIMERS,
      host: this.#clusterHost(),
    });
    this.#cluster.start();
    this.#looking = setInterval(() => this.#keeper.tick(), LOOK_MILLISECONDS);
    this.#looking.unref();
  }

  /** Who connects before there is a cluster is refused, and tries again by itself. */
  #acceptLink(socket: WebSocket, host: string): void {
    if (this.#cluster !== null) {
      this.#cluster.acceptLink(socket, host);
      return;
    }
    socket.on('error', error => this.#log.info(`A link that came too early broke: ${error.message}`));
    socket.terminate();
  }

  /** `opened`: all that there is to close when it is stopped. */
  running(opened: Close[]): RunningDaemon {
    let finish: () => void = () => undefined;
    const finished = new Promise<void>(resolve => {
      finish = resolve;
    });
    let stopping: Promise<void> | null = null;
    return {
      apiUrl: this.#api!.url,
      linkPort: this.#links!.port,
      deviceId: this.#folder.deviceId,
      status: () => this.#status(),
      finished,
      stop: () => {
        stopping ??= closeAll(opened).finally(finish);
        return stopping;
      },
    };
  }

  close(): Promise<void> {
    clearInterval(this.#looking);
    return closeAll([
      () => this.#served.close(),
      () => this.#links?.close(),
      () => this.#arrivals.close(),
      () => this.#api?.close(),
      () => this.#engine.close(),
      () => this.#cluster?.stop({ leave: true }),
    ]);
  }

  /** Throws MEMORY_TOO_SMALL where this device could not even serve alone, streaming every tile. */
  #checkMemory({ shape, tiles, files }: Manifest): void {
    const needs = {
      shape,
      attentionTiles: tiles.filter(tile => tile.kind === 'attention').length,
      tileBytes: tiles.reduce((sum, { bytes }) => sum + bytes, 0),
      leastWindow: leastWindowBytes(tiles.map(({ bytes }, tile) => ({ tile, bytes }))),
      frameBytes: 0,
      logitRowBytes: 0,
    };
    this.#keeper.check(needs, tokenizerMemory(files, shape.vocabulary));
  }

  #running(): Cluster {
    if (!this.#cluster) throw new PotluckError('NOT_READY', 'The daemon is still starting.');
    return this.#cluster;
  }

  #device(linkPort: number, apiPort: number): DeviceInfo {
    const options = this.#options;
    const { backend } = this.#compute;
    return {
      id: this.#folder.deviceId,
      name: options.name,
      version,
      protocol: PROTOCOL_VERSION,
      startedAt: this.#startedAt,
      host: options.advertiseHost ?? '',
      linkPort: options.advertisePort ?? linkPort,
      apiPort,
      threads: options.threads,
      kernel: backend.name,
      exact: backend.exact,
      memoryBytes: Math.floor(
        Math.min(
          this.#keeper.weightBytes,
          this.#keeper.budget === null ? systemMemory().availableBytes : Number.MAX_SAFE_INTEGER,
        ),
      ),
      share: options.share ?? options.threads,
      models: this.#ownModels(),
    };
  }

  #clusterHost(): ClusterHost {
    const plans = this.#plans;
    const store = this.#store;
    return {
      prepare: (plan, index, hub, onProgress, signal) =>
        this.#takingPart(index, () =>
          store.prepare(plan, index, httpGetter(hub.host, hub.linkPort, PATIENCE), onProgress, signal),
        ),
      activate: async (plan, index, signal) => {
        await this.#openTokenizer(plan.modelId);
        const part = await this.#takingPart(index, () => plans.activate(plan, index, signal));
        this.#leftOut = null;
        return part;
      },
      serve: (plan, kvPages) => plans.serve(plan, kvPages),
      deactivate: reason => plans.deactivate(reason),
      manifestFor: id => {
        const pack = store.packs.find(each => each.id === id);
        if (pack) return pack.manifest;
        throw new PotluckError('UNKNOWN_MODEL', `Model ${id} is not on this device.`);
      },
      generator: this.#engine,
      work: () => this.#runner.work,
      status: () => this.#localStatus(),
      log: { info: text => this.#log.info(text), warn: text => this.#log.warn(text) },
    };
  }

  /** The hub of a plan remembers why its own part failed. */
  async #takingPart<T>(index: number, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const { code, message } = asPotluckError(error);
      if (index > 0 && !PASSING.has(code)) this.#leftOut = message;
      throw error;
    }
  }

  #apiHost(): ApiHost {
    return {
      version,
      now: () => Date.now(),
      models: () => this.#listModels(),
      state: () => this.#cluster?.view().state ?? 'waiting',
      randomSeed: () => randomInt(2 ** 47),
      timers: TIMERS,
      reportDefect: (error: PotluckError) =>
        this.#log.error(`${error.code}: ${error.message}`, error.cause ?? ''),
    };
  }

  #ownModels(): DeviceInfo['models'] {
    return this.#store.packs.map(({ id, manifest }) => ({ id, name: manifest.name }));
  }

  /** The models of the cluster, that which is served now first: it has the aliases. */
  async #listModels(): Promise<ListedModel[]> {
    const cluster = this.#running();
    if (await this.#store.look()) cluster.updateSelf({ models: this.#ownModels() });
    const models = cluster.models();
    const served = this.#plans.current?.model.id ?? cluster.view().modelId;
    const first = models.find(({ id }) => id === served) ?? models[0];
    if (first === undefined)
      throw new PotluckError(
        'NOT_READY',
        'No device of the cluster has a model yet. Look at: potluck status',
      );
    return [first, ...models.filter(model => model !== first)].map(model => ({
      id: model.name,
      aliases: model === first ? [...ALIASES, model.id] : [model.id],
      created: Math.floor(this.#startedAt / 1000),
      open: () => this.#openModel(model),
    }));
  }

  async #openModel(model: ClusterModel): Promise<ApiModel> {
    const { id, name } = model;
    const local = await this.#localModel(model);
    const { tokenizer, renderChat, answerFormat } = await this.#served.get(id, async () => local);
    const { shape, stopTokens, beginToken } = local.manifest;
    return {
      id: name,
      generator: this.#limited(this.#running().generator(id)),
      context: shape.context,
      vocabulary: shape.vocabulary,
      tokenizer,
      renderChat,
      answerFormat,
      stopTokens,
      beginToken,
    };
  }

  /** A model as far as answers need it: from this disk, or fetched from a device that holds it. Rejects with DEVICE_LOST. */
  #localModel({ id, name, holders }: ClusterModel): Promise<LocalModel> {
    const here = this.#store.find(id);
    if (here !== undefined) return Promise.resolve(here);
    const holder = this.#running()
      .view()
      .members.find(member => holders.includes(member.id));
    if (holder === undefined)
      throw new PotluckError('DEVICE_LOST', `No device that has the model ${name} is here any more.`);
    const signal = AbortSignal.timeout(RECEIVE_MILLISECONDS);
    return this.#store.receive(id, httpGetter(holder.host, holder.linkPort, PATIENCE), signal);
  }

  /** Cuts answers at --max-tokens. */
  #limited(generator: Generator): Generator {
    const most = this.#options.maxTokens ?? Number.MAX_SAFE_INTEGER;
    return {
      generate: (request, signal) =>
        generator.generate({ ...request, maxTokens: Math.min(request.maxTokens, most) }, signal),
    };
  }

  /** Before memory is shared out, so that the account sees what a tokenizer takes. A model without one serves token ids. */
  async #openTokenizer(modelId: string): Promise<void> {
    const model = this.#store.find(modelId);
    if (!model) return;
    try {
      await this.#served.get(modelId, async () => model);
    } catch (error) {
      this.#log.warn(asPotluckError(error).message);
    }
  }

  /** Asks the other devices for a tile, one after another. Rejects with what the last one answered, or DEVICE_LOST. Said once for a model. */
  #recoverTile(model: LocalModel, tile: number, signal: AbortSignal): Promise<void> {
    const what = this.#damaged.has(model.id) ? null : `Tile ${tile} of ${model.manifest.name}`;
    this.#damaged.set(model.id, model);
    return this.#askOthers(what, signal, (get, late) => this.#store.refetch(model, tile, get, late));
  }

  /** The same for an embedding row. */
  #recoverRow(model: LocalModel, row: number, fault: RowFault): Promise<Uint8Array> {
    const late = AbortSignal.timeout(RECOVER_MILLISECONDS);
    const what = this.#toldOfRows.has(model.id) ? null : `Embedding row ${row} of ${model.manifest.name}`;
    this.#toldOfRows.add(model.id);
    return this.#askOthers(what, late, (get, signal) => fetchEmbeddingRow(model, row, fault, get, signal));
  }

  /** `what`: for the log, which hears of it where it was found; null: nothing is said. */
  async #askOthers<T>(what: string | null, signal: AbortSignal, ask: AskOne<T>): Promise<T> {
    const { got, from } = await askOthers(this.#running().view().members, signal, ask);
    if (what !== null) this.#log.warn(`${what} was lost or wrong here: fetched from ${from}.`);
    return got;
  }

  #hubEngine(): HubEngine {
    const cluster = this.#running();
    const view = cluster.view();
    if (view.role === 'hub')
      return {
        generate: (request, signal) => cluster.generator(view.modelId ?? '').generate(request, signal),
        evaluate: (tokens, at, onRow, signal) =>
          cluster.hold(
            either => this.#engine.evaluate(tokens, at, onRow, either),
            signal ?? new AbortController().signal,
          ),
      };
    const hub = view.members.find(member => member.id === view.hubId);
    const where = hub
      ? `Ask the hub, ${hub.name}, at port ${hub.apiPort} of ${hub.host}.`
      : 'There is no hub.';
    throw new PotluckError('NOT_READY', `This device runs no passes of its own. ${where}`);
  }

  #localStatus(): LocalStatus {
    const notes = [
      ...this.#compute.notes,
      ...this.#store.notes,
      ...this.#keeper.notes,
      ...[...this.#damaged.values()]
        .filter(({ whole }) => whole !== null)
        .map(
          ({ whole }) =>
            `${whole!.path}: tiles are lost or wrong, and come from other devices. Look at the disk, and fetch or pack the model anew.`,
        ),
      ...[...this.#served.withoutTemplate].map(
        name => `${name} brings no chat template: messages are written as plain "role: content" lines.`,
      ),
    ];
    const isHub = this.#cluster?.view().role === 'hub';
    return localStatus(
      this.#plans,
      this.#keeper,
      notes,
      isHub ? { engine: this.#engine, runner: this.#runner } : null,
    );
  }

  #status(): Promise<DaemonStatus> {
    return clusterStatus({
      cluster: this.#running(),
      self: this.#device(this.#links!.port, this.#api!.port),
      local: this.#localStatus(),
      apiUrl: this.#api!.url,
      discovery: this.#options.discovery,
      leftOut: this.#leftOut,
      model: this.#plans.current?.model ?? null,
    });
  }
}

const checksumOf =
  ({ addon }: LoadedBackend) =>
  (bytes: Uint8Array, before: number): number =>
    addon ? addon.crc32c(bytes, before) : crc32c(bytes, before);

function createDiscovery(): MdnsDiscovery {
  return new MdnsDiscovery({
    bonjour: (interfaceOptions, failed) => new bonjour.Bonjour(interfaceOptions as object, failed),
    networkInterfaces,
    timers: TIMERS,
    loopback: false,
  });
}
