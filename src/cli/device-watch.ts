import type { DaemonStatus } from '../daemon/status.ts';

/** Turns statuses, one after another, into the lines that a user wants to see pass by. */
export class DeviceWatch {
  #names: Map<string, string> | null = null;
  #state: DaemonStatus['state'] | null = null;
  #model: string | null = null;
  readonly #notes = new Set<string>();

  /** Lines for what changed since the last call. The first call reports the other devices that are there already. */
  see(status: DaemonStatus): string[] {
    const lines = [...this.#deviceLines(status), ...this.#stateLines(status)];
    for (const note of status.notes) {
      if (this.#notes.has(note)) continue;
      this.#notes.add(note);
      lines.push(`Note: ${note}`);
    }
    return lines;
  }

  #deviceLines({ devices, device }: DaemonStatus): string[] {
    const before = this.#names ?? new Map([[device.id, device.name]]);
    this.#names = new Map(devices.map(each => [each.id, each.name]));
    if (!this.#names.has(device.id)) this.#names.set(device.id, device.name);
    const count = this.#names.size === 1 ? '1 device' : `${this.#names.size} devices`;
    const joined = [...this.#names]
      .filter(([id]) => !before.has(id))
      .map(([, name]) => `+ ${name} joined (${count})`);
    const left = [...before]
      .filter(([id]) => !this.#names?.has(id))
      .map(([, name]) => `- ${name} left (${count})`);
    return [...joined, ...left];
  }

  #stateLines({ state, model, devices }: DaemonStatus): string[] {
    const name = model === null ? null : `${model.name} (${model.weights})`;
    const changed = state !== this.#state || name !== this.#model;
    this.#state = state;
    this.#model = name;
    if (!changed) return [];
    if (state === 'waiting') return ['Waiting for a device that has a model, or for enough memory.'];
    if (state === 'preparing') return [`Preparing ${name ?? 'a model'}: devices get their tiles.`];
    return [
      `Serving ${name ?? 'a model'} on ${devices.length === 1 ? '1 device' : `${devices.length} devices`}.`,
    ];
  }
}
