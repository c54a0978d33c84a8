import type { DaemonStatus, DeviceStatus } from '../daemon/status.ts';
import { formatBytes, formatMicroseconds, textTable } from './text-table.ts';

/** What `potluck status` prints. */
export function statusText(status: DaemonStatus): string {
  const { model, hub, device } = status;
  const lines = [
    `Potluck ${status.version}, cluster ${status.cluster}: ${stateText(status)}`,
    `Model    ${model === null ? 'none yet' : `${model.name} (${model.weights})`}`,
    ...otherModels(status),
    `API      ${status.api.url}`,
    `Hub      ${hub === null ? 'none' : hub.id === device.id ? `${hub.name} (this device)` : hub.name}`,
    '',
    ...textTable([DEVICE_HEADER, ...status.devices.map(each => deviceRow(each, each.id === device.id))]),
    ...expertLines(status.devices),
    ...memoryLines(status),
    ...workLines(status),
    ...status.notes.map(note => `Note: ${note}`),
  ];
  return lines.join('\n');
}

/** What else a request may name. */
function otherModels({ model, models }: DaemonStatus): string[] {
  const others = models.filter(({ id }) => id !== model?.id);
  return others.map(({ name, devices }) => `or       ${name} (on ${devices.join(', ')})`);
}

function stateText(status: DaemonStatus): string {
  if (status.state === 'serving') return `serving (plan ${status.epoch})`;
  if (status.state === 'waiting') return 'waiting for a model or for more devices';
  const progress = status.devices.flatMap(each => (each.progress === null ? [] : [each.progress]));
  const bytes = progress.reduce((sum, each) => sum + each.bytes, 0);
  const total = progress.reduce((sum, each) => sum + each.total, 0);
  return total === 0 ? 'preparing' : `preparing: ${formatBytes(bytes)} of ${formatBytes(total)} on their way`;
}

const DEVICE_HEADER = [
  'device',
  'role',
  'kernel',
  'threads',
  'tiles',
  'weights',
  'streamed',
  'memory',
  'link',
];

function deviceRow(device: DeviceStatus, own: boolean): string[] {
  const { memory, window, experts, link } = device;
  const windowBytes = device.tileBytes - (experts?.totalBytes ?? 0);
  const resident = memory === null ? '-' : formatBytes(memory.residentBytes);
  const streams = window !== null && window.pinnedBytes < windowBytes;
  return [
    own ? `${device.name} *` : device.name,
    device.role,
    device.exact ? device.kernel : `${device.kernel} (not exact)`,
    String(device.threads),
    String(device.tiles),
    formatBytes(device.tileBytes),
    streams ? `${formatBytes(windowBytes - window.pinnedBytes)} a pass` : 'nothing',
    memory?.budgetBytes == null ? resident : `${resident} of ${formatBytes(memory.budgetBytes)}`,
    link === null ? '-' : formatMicroseconds(link.roundTripMicroseconds),
  ];
}

/** How often experts were in memory when the router picked them, by device. */
function expertLines(devices: readonly DeviceStatus[]): string[] {
  return devices.flatMap(({ name, experts }) => {
    if (experts === null) return [];
    const wanted = experts.hits + experts.misses;
    const rate =
      wanted === 0 ? 'none wanted yet' : `${((100 * experts.hits) / wanted).toFixed(1)} % of ${wanted} hit`;
    const held = `${formatBytes(experts.heldBytes)} of ${formatBytes(experts.totalBytes)} held`;
    return [`Experts on ${name}: ${rate}, ${held}, ${formatBytes(experts.streamedBytes)} read`];
  });
}

/** The account of the device that answers, beside what the operating system counts for its process. */
function memoryLines({ device, devices }: DaemonStatus): string[] {
  const own = devices.find(({ id }) => id === device.id);
  const memory = own?.memory;
  const parts = Object.entries(memory?.account ?? {});
  if (!memory || parts.length === 0) return [];
  const sum = parts.reduce((total, [, bytes]) => total + bytes, 0);
  const lines = [
    '',
    `Memory   ${parts.map(([what, bytes]) => `${what} ${formatBytes(bytes)}`).join(', ')}`,
    `         ${formatBytes(sum)} in all${memory.budgetBytes === null ? '' : ` of ${formatBytes(memory.budgetBytes)}`}; ` +
      `the system counts ${formatBytes(memory.residentBytes)}, ${formatBytes(memory.highWaterBytes)} at the highest`,
  ];
  const window = own.window;
  if (window && window.streamedBytesPerPass > 0)
    lines.push(
      `Window   ${formatBytes(window.pinnedBytes)} stay, ${formatBytes(window.streamedBytesPerPass)} a pass stream through ` +
        `${formatBytes(window.ringBytes)} (${window.how})`,
    );
  return lines;
}

function workLines({ engine, allreduce, saturated }: DaemonStatus): string[] {
  const lines: string[] = [];
  if (engine !== null) {
    lines.push(
      `Requests: ${engine.active} active, ${engine.waiting} waiting, ${engine.tokensPerSecond.toFixed(1)} tokens/s; so far ` +
        `${engine.promptTokens} prompt tokens, ${engine.generatedTokens} generated, ${engine.passes} passes`,
    );
    if (engine.draftedTokens > 0)
      lines.push(`Drafts: ${engine.acceptedTokens} of ${engine.draftedTokens} guessed tokens were right`);
  }
  if (allreduce !== null && allreduce.count > 0) {
    lines.push(
      `Allreduce: median ${formatMicroseconds(allreduce.p50Microseconds)}, 99 % within ` +
        `${formatMicroseconds(allreduce.p99Microseconds)}, ${formatBytes(allreduce.bytesPerToken)} a token`,
    );
  }
  if (saturated > 0) lines.push(`Saturated: ${saturated} tile outputs did not fit their range`);
  return lines.length === 0 ? [] : ['', ...lines];
}
