import type { DaemonStatus } from '../daemon/status.ts';

/** Turns statuses, one after another, into the lines that a user wants to see pass by. */
export class DeviceWatch {
  #names: Map<string, string> | null = null;
  /** The last line of what the cluster does. */
  #said: string | null = null;
  /** It waited at the last look. */
  #waiting = false;
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
    // Between two plans a device waits for a moment; what is still so at the next look is worth a line.
    const lasts = state !== 'waiting' || this.#waiting;
    this.#waiting = state === 'waiting';
    const line = stateLine(
      state,
      model === null ? 'a model' : `${model.name} (${model.weights})`,
      devices.filter(({ role }) => role !== 'waiting').length,
    );
    if (!lasts || line === this.#said) return [];
    this.#said = line;
    return [line];
  }
}

/** `devices`: that compute. */
function stateLine(state: DaemonStatus['state'], model: string, devices: number): string {
  if (state === 'waiting') return 'Waiting for a device that has a model, or for enough memory.';
  if (state === 'preparing') return `Preparing ${model}: devices get their tiles.`;
  return `Serving ${model} on ${devices === 1 ? '1 device' : `${devices} devices`}.`;
}
