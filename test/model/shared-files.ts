import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';

const SHARED = fileURLToPath(new URL('../../../shared/', import.meta.url));

/** Path of a file in ../shared. */
export const sharedPath = (path: string): string => SHARED + path;

/** Text of a file in ../shared; skips the test aloud where it is absent. */
export function sharedText(ctx: TestContext, path: string): string {
  const file = SHARED + path;
  if (!existsSync(file)) {
    console.warn(`skipped "${ctx.task.name}": ${file} is absent`);
    ctx.skip();
  }
  return readFileSync(file, 'utf8');
}

export function sharedJson(ctx: TestContext, path: string): unknown {
  return JSON.parse(sharedText(ctx, path));
}
