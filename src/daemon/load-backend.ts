import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { Addon } from '../kernels/addon.ts';
import type { Backend } from '../kernels/backend.ts';
import { createNativeBackend } from '../kernels/native-backend.ts';
import { createOnnxBackend } from '../kernels/onnx-backend.ts';
import { projectRoot } from './project-root.ts';

export interface BackendChoice {
  readonly backend: 'native' | 'onnxruntime' | 'auto';
  /** Kernel variant; null: POTLUCK_KERNEL, or the best this processor has. */
  readonly kernel: string | null;
  readonly threads: number;
}

export interface LoadedBackend {
  readonly backend: Backend;
  /** Null where the addon could not be loaded: disks are then read by Node. */
  readonly addon: Addon | null;
  /** Fallbacks that were taken. */
  readonly notes: readonly string[];
}

/** The native addon, or onnxruntime where there is none. Rejects with KERNEL_FAILED or KERNEL_UNKNOWN. */
export async function loadBackend(choice: BackendChoice): Promise<LoadedBackend> {
  const loaded = choice.backend === 'onnxruntime' ? null : loadAddon();
  if (loaded?.addon) {
    const { addon } = loaded;
    const options = { threads: choice.threads, ...(choice.kernel === null ? {} : { kernel: choice.kernel }) };
    return { backend: createNativeBackend(addon, options), addon, notes: [] };
  }
  if (choice.backend === 'native')
    throw new PotluckError('KERNEL_FAILED', `The native addon does not load: ${loaded!.reason}`);
  const notes = [
    loaded
      ? `The native addon does not load (${loaded.reason}); onnxruntime computes instead. It is slower, and its answers are close but not bit-equal to those of other devices.`
      : 'onnxruntime computes, as asked. Its answers are close but not bit-equal to those of other devices.',
  ];
  return { backend: await loadOnnx(choice.threads), addon: null, notes };
}

async function loadOnnx(threads: number): Promise<Backend> {
  let ort: typeof import('onnxruntime-node');
  try {
    ort = await import('onnxruntime-node');
  } catch (error) {
    throw new PotluckError(
      'KERNEL_FAILED',
      `Neither the native addon nor onnxruntime loads: ${asPotluckError(error).message}. Install a C++ compiler and run: npm run setup`,
    );
  }
  return createOnnxBackend(ort, { threads, now: () => performance.now() });
}

/** The native addon, or why there is none. */
export function loadAddon(): { addon: Addon; reason: '' } | { addon: null; reason: string } {
  const path = join(projectRoot(), 'build', 'potluck.node');
  if (!existsSync(path)) return { addon: null, reason: buildError() };
  try {
    return { addon: createRequire(import.meta.url)(path) as Addon, reason: '' };
  } catch (error) {
    return { addon: null, reason: asPotluckError(error).message };
  }
}

/** Why the set-up could not build the addon. */
function buildError(): string {
  const path = join(projectRoot(), 'build', 'addon-error.txt');
  const first = existsSync(path) ? readFileSync(path, 'utf8').split('\n')[0]!.trim() : '';
  return first === '' ? 'it was not built' : first;
}
