#!/usr/bin/env node
// Sets up what is stale, then runs the command line in this same process.

import { join } from 'node:path';
import { projectRoot, setupOrExit } from './setup.mjs';

await setupOrExit();
// npm runs scripts in the project's folder; paths on the command line are meant from where the user stands.
const fromNpm = process.env.npm_package_json === join(projectRoot, 'package.json');
if (fromNpm && process.env.npm_lifecycle_event !== undefined && process.env.INIT_CWD !== undefined) {
  process.chdir(process.env.INIT_CWD);
}
await import('../build/js/cli/main.js');
