import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { PotluckError } from '../../errors/errors.ts';
import { readErrorText } from '../print-error.ts';
import { compiledMain } from '../project.ts';
import type { Announcement } from '../up.ts';

const STDERR_LINES = 20;
const STOP_MILLISECONDS = 10_000;

/** A real daemon in a process of its own. It ends when this process does, because its standard input then closes. */
export class ChildDaemon {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #stderr: string[] = [];
  readonly #exited: Promise<void>;
  /** How it ended; null while it runs. */
  #exit: string | null = null;
  #announcement: Announcement | null = null;

  /** @param args of `potluck up` @param home its POTLUCK_HOME: it serves no models of the user's that it was not given */
  constructor(name: string, args: readonly string[], home: string) {
    this.name = name;
    this.#child = spawn(process.execPath, [compiledMain(), 'up', '--child', ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, POTLUCK_HOME: home },
      // Ctrl-C reaches the whole group of a terminal; children are stopped by their parent, in order.
      detached: true,
    });
    this.#child.stdin?.on('error', error => this.#remember(`stdin: ${error.message}`));
    createInterface({ input: this.#child.stderr! }).on('line', line => this.#remember(line));
    this.#exited = new Promise(resolve => {
      this.#child.once('error', error => {
        this.#exit = error.message;
        resolve();
      });
      this.#child.once('exit', (code, signal) => {
        this.#exit = signal === null ? `exit code ${code}` : `signal ${signal}`;
        resolve();
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get exit(): string | null {
    return this.#exit;
  }

  /** Where it listens; only after `listening`. */
  get announcement(): Announcement {
    if (this.#announcement === null) throw new PotluckError('INTERNAL', `${this.name} was not waited for`);
    return this.#announcement;
  }

  /** Waits for its ports. Rejects with what it failed by when it ends before, and with NOT_READY when `signal` aborts. */
  async listening(signal: AbortSignal): Promise<Announcement> {
    let late = (): void => undefined;
    const line = new Promise<string>((resolve, reject) => {
      const lines = createInterface({ input: this.#child.stdout! });
      lines.once('line', resolve);
      late = () => reject(this.failure('does not listen in time'));
      signal.addEventListener('abort', late);
      // Standard error may still have lines under way when the process ends; 'close' comes after them.
      this.#child.once('close', () => reject(this.failure('ended')));
      this.#child.once('error', () => reject(this.failure('did not start')));
    });
    this.#announcement = JSON.parse(
      await line.finally(() => signal.removeEventListener('abort', late)),
    ) as Announcement;
    return this.#announcement;
  }

  /** Its own error, where it ended with one; else one that shows what it said last. */
  failure(what: string): PotluckError {
    const own = this.#exit === null ? null : readErrorText(this.#stderr.at(-1) ?? '');
    if (own !== null) return new PotluckError(own.code, `Device ${this.name} ${what}: ${own.message}`);
    const said = this.#stderr.length === 0 ? 'it said nothing' : this.#stderr.join(' | ');
    const how = this.#exit === null ? '' : ` (${this.#exit})`;
    return new PotluckError('NOT_READY', `Device ${this.name} ${what}${how}; its last words: ${said}`);
  }

  get lastWords(): string {
    return this.#stderr.join(' | ');
  }

  /** Ends it as a power cut would. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** Asks it to end; after ten seconds, ends it. Resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.#exit !== null) return;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MILLISECONDS);
    await this.#exited;
    clearTimeout(timer);
  }

  #remember(line: string): void {
    this.#stderr.push(line.slice(0, 500));
    if (this.#stderr.length > STDERR_LINES) this.#stderr.shift();
  }
}
