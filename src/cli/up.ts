import { createInterface } from 'node:readline';
import type { DaemonOptions, RunningDaemon } from '../daemon/options.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { fetchStatus } from './api-client.ts';
import { DeviceWatch } from './device-watch.ts';
import { printError } from './print-error.ts';
import { rememberModel } from './remembered-model.ts';
import { onStopSignal } from './stop-signals.ts';
import { formatBytes } from './text-table.ts';

const WATCH_MILLISECONDS = 1000;

/** How a parent process that emulates devices finds out where its child listens: this line on standard output. */
export interface Announcement {
  readonly apiUrl: string;
  readonly linkPort: number;
  readonly deviceId: string;
}

/**
 * Runs a daemon until it is told to stop. `child`: announces itself as JSON, and ends when standard input does. `remember`: its model is
 * the default of the next start.
 */
export async function up(options: DaemonOptions, child: boolean, remember: boolean): Promise<void> {
  const { startDaemon } = await import('../daemon/daemon.ts');
  const stopAsked = new Promise<void>(resolve => {
    onStopSignal(resolve);
    if (child) createInterface({ input: process.stdin }).once('close', resolve);
  });
  const daemon = await startDaemon(options);
  let watch: { stop(): void } | null = null;
  try {
    if (remember) rememberOrSay(options);
    if (child) {
      const { apiUrl, linkPort, deviceId } = daemon;
      process.stdout.write(`${JSON.stringify({ apiUrl, linkPort, deviceId } satisfies Announcement)}\n`);
    } else {
      process.stdout.write(greeting(daemon, options));
      watch = watchDevices(daemon);
    }
    await Promise.race([daemon.finished, stopAsked]);
    if (!child) process.stdout.write('Stopping.\n');
  } finally {
    watch?.stop();
    // A stopped daemon has closed everything; standard input of a child may still be open.
    await daemon.stop().finally(() => process.stdin.destroy());
  }
}

/** A full disk is no reason not to serve. */
function rememberOrSay({ dataFolder, model }: DaemonOptions): void {
  try {
    rememberModel(dataFolder, model);
  } catch (error) {
    const reason = asPotluckError(error).message;
    process.stderr.write(
      `This model is served, but not remembered: give --model again at the next start (${reason}).\n`,
    );
  }
}

function greeting({ apiUrl, linkPort }: RunningDaemon, options: DaemonOptions): string {
  const port = new URL(apiUrl).port;
  const memory =
    options.memory === null
      ? 'no limit'
      : options.memory === 'auto'
        ? 'automatic'
        : formatBytes(options.memory);
  const message = `'{"model":"default","messages":[{"role":"user","content":"Hello!"}]}'`;
  return [
    '',
    `Chat      npm run -s potluck -- chat${port === '11500' ? '' : ` --port ${port}`}  (in a terminal)`,
    `or        curl ${apiUrl}/v1/chat/completions -H 'content-type: application/json' -d ${message}`,
    `Device    ${options.name}: ${options.threads} threads, memory: ${memory}`,
    `Model     ${options.model === 'none' ? 'from another device' : options.model}`,
    `Cluster   ${options.cluster}: other devices join by themselves, or with --peer THIS-ADDRESS:${linkPort}`,
    '',
    '',
  ].join('\n');
}

function watchDevices(daemon: RunningDaemon): { stop(): void } {
  const devices = new DeviceWatch();
  let busy = false;
  let failures = 0;
  const look = async (): Promise<void> => {
    if (busy) return;
    busy = true;
    try {
      for (const line of devices.see(await fetchStatus(daemon.apiUrl))) process.stdout.write(`${line}\n`);
      failures = 0;
    } catch (error) {
      // Once is a slow moment; for long, it is a defect to be seen.
      failures++;
      if (failures === 10)
        printError(new PotluckError('INTERNAL', 'The daemon does not answer itself', { cause: error }));
    } finally {
      busy = false;
    }
  };
  const timer = setInterval(() => void look(), WATCH_MILLISECONDS);
  void look();
  return { stop: () => clearInterval(timer) };
}
