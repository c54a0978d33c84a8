import { networkInterfaces } from 'node:os';
import { createInterface } from 'node:readline';
import type { DaemonOptions, RunningDaemon } from '../daemon/options.ts';
import { interfaceAddresses } from '../discovery/interface-addresses.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { DeviceWatch } from './device-watch.ts';
import { greeting } from './greeting.ts';
import { goOnWithoutOutput } from './lost-output.ts';
import { printError } from './print-error.ts';
import { rememberModel } from './remembered-model.ts';
import { onStopSignal } from './stop-signals.ts';

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
  goOnWithoutOutput();
  const stopAsked = new Promise<void>(resolve => {
    onStopSignal(resolve);
    if (child) createInterface({ input: process.stdin }).once('close', resolve);
  });
  const daemon = await startDaemon(options).catch(error => {
    // Open, it would keep a child that could not start from ending.
    process.stdin.destroy();
    throw error;
  });
  let watch: { stop(): void } | null = null;
  try {
    if (remember) rememberOrSay(options);
    if (child) {
      const { apiUrl, linkPort, deviceId } = daemon;
      process.stdout.write(`${JSON.stringify({ apiUrl, linkPort, deviceId } satisfies Announcement)}\n`);
    } else {
      process.stdout.write(greeting(daemon, options, interfaceAddresses(networkInterfaces(), false)));
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

function watchDevices(daemon: RunningDaemon): { stop(): void } {
  const devices = new DeviceWatch();
  let busy = false;
  let failures = 0;
  const look = async (): Promise<void> => {
    if (busy) return;
    busy = true;
    try {
      for (const line of devices.see(await daemon.status())) process.stdout.write(`${line}\n`);
      failures = 0;
    } catch (error) {
      // Once is a slow moment; for long, it is a defect to be seen.
      failures++;
      if (failures === 10)
        printError(new PotluckError('INTERNAL', 'The daemon cannot tell its own status', { cause: error }));
    } finally {
      busy = false;
    }
  };
  const timer = setInterval(() => void look(), WATCH_MILLISECONDS);
  void look();
  return { stop: () => clearInterval(timer) };
}
