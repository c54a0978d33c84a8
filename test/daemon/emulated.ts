import { type Emulation, type EmulationOptions, startEmulation } from '../../src/cli/emulate/emulation.ts';
import { builtInModel } from '../../src/cli/project.ts';

/** Real daemons on loopback with the built-in model, ended when `work` is over. */
export async function emulated<T>(
  options: Omit<EmulationOptions, 'model'>,
  work: (emulation: Emulation) => Promise<T>,
): Promise<T> {
  const emulation = await startEmulation({ model: builtInModel(), threads: 1, deadline: 60_000, ...options });
  try {
    return await work(emulation);
  } finally {
    await emulation.stop();
  }
}

/** A prompt of token ids of the built-in model's vocabulary. */
export const promptTokens = (length: number): number[] =>
  Array.from({ length }, (_, i) => 10 + ((i * 7919) % 8000));

export const everyPosition = (tokens: readonly number[]): number[] => [...tokens.keys()];
