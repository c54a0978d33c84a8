import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { FoundDevice } from '../../src/discovery/discovery.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const child = fileURLToPath(new URL('mdns-child.mjs', import.meta.url));
const namespace = `potluck-mdns-${process.pid}`;
/** Why there is no network namespace here; null where there is one. */
let missing: string | null = null;

const ip = (...words: string[]): string =>
  execFileSync('ip', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** The child runs compiled code: compiles where that is older than the source. */
function compile(): void {
  const sources = readdirSync(join(root, 'src/discovery')).map(name => join(root, 'src/discovery', name));
  const stale = sources.some(source => {
    const built = source.replace(join(root, 'src'), join(root, 'build/js')).replace(/\.ts$/, '.js');
    return !existsSync(built) || statSync(built).mtimeMs < statSync(source).mtimeMs;
  });
  if (!stale) return;
  const options = [
    '--outDir',
    'build/js',
    '--rootDir',
    'src',
    '--incremental',
    'false',
    '-p',
    'tsconfig.json',
  ];
  // errors of types are for another check; the child fails where nothing was written
  spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', ...options], {
    cwd: root,
    stdio: 'ignore',
  });
}

interface Device {
  readonly process: ChildProcessWithoutNullStreams;
  readonly found: FoundDevice[];
  readonly notes: (string | null)[];
  errors: string;
}

const devices: Device[] = [];

function device(id: string, port: number, cluster = 'home', ...bogus: string[]): Device {
  const words = ['netns', 'exec', namespace, process.execPath, child, id, String(port), cluster, ...bogus];
  const started = spawn('ip', words, { cwd: root });
  const result: Device = { process: started, found: [], notes: [], errors: '' };
  devices.push(result);
  createInterface({ input: started.stdout }).on('line', line => {
    const said = JSON.parse(line) as FoundDevice | { note: string | null };
    if ('note' in said) result.notes.push(said.note);
    else result.found.push(said);
  });
  started.stderr.on('data', data => {
    result.errors += String(data);
  });
  return result;
}

async function until(what: string, done: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!done()) {
    if (Date.now() > end)
      throw new Error(
        `Not reached: ${what} ${JSON.stringify(devices.map(d => [d.found, d.notes.at(-1), d.errors]))}`,
      );
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

const sees = (d: Device, id: string): boolean => d.found.some(f => f.id === id);

beforeAll(() => {
  try {
    ip('netns', 'add', namespace);
    ip('netns', 'exec', namespace, 'ip', 'link', 'set', 'lo', 'up');
  } catch (error) {
    missing = String(error);
    console.warn(`Multicast DNS is not tested: no network namespace can be made here (${missing}).`);
    return;
  }
  compile();
});

afterEach(async () => {
  for (const d of devices.splice(0)) {
    if (d.process.exitCode !== null || d.process.signalCode !== null) continue;
    const ended = new Promise(resolve => d.process.once('exit', resolve));
    d.process.stdin.end();
    await ended;
    expect(d.errors).toBe('');
    expect(d.process.exitCode).toBe(0);
  }
});

afterAll(() => {
  if (missing === null) ip('netns', 'delete', namespace);
});

describe('multicast DNS in a network namespace', () => {
  it('finds devices on one machine that has loopback alone', async ctx => {
    if (missing !== null) return ctx.skip();
    const a = device('aa', 4001);
    const b = device('bb', 4002, 'other');
    await until('each other', () => sees(a, 'bb') && sees(b, 'aa'));
    expect(a.found.at(-1)).toEqual({
      id: 'bb',
      host: '127.0.0.1',
      port: 4002,
      cluster: 'other',
      version: '0.1.0',
    });
    expect(sees(a, 'aa')).toBe(false);
    expect(a.notes.at(-1) ?? null).toBeNull();
  });

  it('finds a device again that was killed and came back on another port', async ctx => {
    if (missing !== null) return ctx.skip();
    const a = device('aa', 4001);
    const b = device('bb', 4002);
    await until('first', () => a.found.some(f => f.port === 4002));
    b.process.kill('SIGKILL');
    device('bb', 4005);
    await until('again', () => a.found.some(f => f.port === 4005));
  });

  it('survives an address that no interface has, and uses the others', async ctx => {
    if (missing !== null) return ctx.skip();
    const a = device('aa', 4001, 'home', '10.99.99.99');
    await until('the reason', () => a.notes.some(note => note?.includes('10.99.99.99') ?? false));
    // loopback is not used where another interface is said to be there
    ip('netns', 'exec', namespace, 'ip', 'link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth1');
    ip('netns', 'exec', namespace, 'ip', 'addr', 'add', '10.77.0.1/24', 'dev', 'veth0');
    ip('netns', 'exec', namespace, 'ip', 'link', 'set', 'veth0', 'up');
    ip('netns', 'exec', namespace, 'ip', 'link', 'set', 'veth1', 'up');
    const b = device('bb', 4002);
    await until('each other over the new interface', () => sees(a, 'bb') && sees(b, 'aa'));
    expect(a.found.at(-1)?.host).toBe('10.77.0.1');
    await until('no reason any more', () => a.notes.at(-1) === null);
  });
});
