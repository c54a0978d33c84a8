import { invalidCheckpoint } from './checkpoint-error.ts';

/** What the bytes of a JSON file say, not checked. Throws CHECKPOINT_INVALID where they are not JSON; `path` names the file. */
export function parseJsonFile(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalidCheckpoint(path, 'is not JSON', error);
  }
}
