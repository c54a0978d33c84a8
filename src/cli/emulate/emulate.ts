import { addressOption } from '../greeting.ts';
import { goOnWithoutOutput } from '../lost-output.ts';
import { onStopSignal } from '../stop-signals.ts';
import { type Emulation, type EmulationOptions, startEmulation } from './emulation.ts';

/** `potluck emulate`: runs until it is told to stop. */
export async function emulate(options: EmulationOptions): Promise<void> {
  goOnWithoutOutput();
  const stopped = new AbortController();
  const stopAsked = new Promise<void>(resolve => {
    onStopSignal(() => {
      stopped.abort();
      resolve();
    });
  });
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  let emulation: Emulation;
  try {
    emulation = await startEmulation({ ...options, signal: stopped.signal, onProgress: say });
  } catch (error) {
    if (stopped.signal.aborted) return say('Stopped.');
    throw error;
  }
  const where = addressOption(emulation.apiUrl);
  say('');
  say(`${emulation.devices.length} devices serve one model:`);
  for (const { name, apiUrl, pid } of emulation.devices) say(`  ${name}  ${apiUrl}  (process ${pid})`);
  say(`Chat      ${emulation.apiUrl}   or: npm run -s potluck -- chat${where}`);
  say(`Status    npm run -s potluck -- status${where}`);
  say('Ctrl-C ends all of them.');
  await stopAsked;
  say('Stopping.');
  await emulation.stop();
}
