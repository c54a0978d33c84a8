import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import { MOST_THREADS } from '../../kernels/backend.ts';
import type { EmulationOptions } from '../emulate/emulation.ts';
import { homeFolder } from '../home-folder.ts';
import { parseBytes, parseDuration, parseInteger, parsePositives, parseRate } from '../option-values.ts';
import { builtInModel } from '../project.ts';

/** More devices than this are no home any more. */
export const MOST_DEVICES = 64;

export interface EmulationFlags {
  readonly devices: number;
  readonly memory?: number;
  readonly window?: number;
  readonly threads?: number;
  readonly shares?: readonly number[];
  readonly linkLatency?: number;
  readonly linkRate?: number;
  readonly model?: string;
}

export function withDevices(command: Command, count: number): Command {
  return command.option(
    '--devices <n>',
    'emulated devices',
    text => parseInteger('--devices', text, 1, MOST_DEVICES),
    count,
  );
}

/** Adds the options that say what each emulated device is like. */
export function withEmulation(command: Command): Command {
  return command
    .option('--memory <size>', 'most memory of each device, such as 256M', text =>
      parseBytes('--memory', text),
    )
    .option(
      '--window <size>',
      'most memory for the weights of each device; the rest streams from disk',
      text => parseBytes('--window', text),
    )
    .option('--threads <n>', 'threads of each device (default: the cores, shared out)', text =>
      parseInteger('--threads', text, 1, MOST_THREADS),
    )
    .option('--shares <a,b,...>', 'part of the work of each device (default: its threads)', text =>
      parsePositives('--shares', text),
    )
    .option('--link-latency <time>', 'delay of each link in one direction, such as 1ms', text =>
      parseDuration('--link-latency', text),
    )
    .option('--link-rate <rate>', 'rate of each link, both directions together, such as 100mbit', text =>
      parseRate('--link-rate', text),
    )
    .option(
      '--model <folder>',
      'model of the first device: name, pack, checkpoint folder or GGUF file (default: the one that comes along)',
    );
}

/** Rejects with BAD_OPTION where options contradict each other, or as findPack does. */
export async function emulationOptions(flags: EmulationFlags): Promise<EmulationOptions> {
  const { devices, memory, window, threads, shares, linkLatency, linkRate, model } = flags;
  if (shares !== undefined && shares.length !== devices) {
    throw new PotluckError(
      'BAD_OPTION',
      `--shares has ${shares.length} numbers for ${devices} devices: give one for each`,
    );
  }
  const slow = linkLatency !== undefined || linkRate !== undefined;
  const places = { home: homeFolder(process.env), builtIn: builtInModel() };
  const { findPack } = await import('../model-path.ts');
  return {
    devices,
    model: model === undefined ? builtInModel() : await findPack(model, places, process.stderr),
    ...(memory === undefined ? {} : { memory }),
    ...(window === undefined ? {} : { window }),
    ...(threads === undefined ? {} : { threads }),
    ...(shares === undefined ? {} : { shares }),
    ...(slow ? { link: { latencyMilliseconds: linkLatency ?? 0, bytesPerSecond: linkRate ?? null } } : {}),
  };
}
