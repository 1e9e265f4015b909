/**
 * The test's side of the caller process (calls.ts): typed, asynchronous, with a time limit.
 *
 * The limit is not a measure of speed: it only turns a hang into a failure. What hangs is the caller,
 * so the owner is told (`onHang`, which aborts the FUSE connection) and the caller is killed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import { errnoName } from '../../src/abi/errno.ts';
import { killPid, registerProcess, type Registration } from './cleanup.ts';
import type { Call, CallName, Calls, Outcome } from './calls.ts';

const CALLS = path.join(import.meta.dirname, 'calls.ts');
const HANG_MS = 60_000;

export type { Call, CallName, Calls, Outcome };

/** A call answered with an errno. `code` is its name. */
export class CallFailed extends Error {
  readonly errno: number;
  readonly code: string;
  constructor(call: Call, errno: number) {
    super(`${describe(call)}: ${errnoName(errno)}`);
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

export function describe(call: Call): string {
  const [name, ...args] = call;
  const shown = args.map((a) => {
    const text = JSON.stringify(a) ?? 'undefined';
    return text.length > 120 ? `${text.slice(0, 100)}…(${text.length})` : text;
  });
  return `${name}(${shown.join(', ')})`;
}

type Result<K extends CallName> = ReturnType<Calls[K]>;

export class Caller {
  readonly #child: ChildProcess;
  readonly #registration: Registration;
  readonly #onHang: () => void;
  readonly #waiting: { resolve: (o: Outcome[]) => void; reject: (e: Error) => void }[] = [];
  #chunks: Buffer[] = [];
  #stderr = '';
  #ended: Error | undefined;

  constructor(onHang: () => void = () => {}) {
    this.#onHang = onHang;
    this.#child = spawn(process.execPath, [CALLS], { stdio: ['pipe', 'pipe', 'pipe'], cwd: '/' });
    this.#registration = registerProcess(this.#child.pid!);
    this.#child.stdout!.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#child.stderr!.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#child.stdin!.on('error', () => this.#end('closed its input'));
    this.#child.on('exit', (code, signal) => this.#end(`ended with ${signal ?? code}`));
  }

  get pid(): number {
    return this.#child.pid!;
  }

  #receive(chunk: Buffer): void {
    this.#chunks.push(chunk);
    if (chunk[chunk.length - 1] !== 10) return;
    const text = Buffer.concat(this.#chunks).toString('utf8');
    this.#chunks = [];
    for (const line of text.trimEnd().split('\n')) {
      this.#waiting.shift()!.resolve(JSON.parse(line) as Outcome[]);
    }
  }

  #end(how: string): void {
    this.#registration.release();
    this.#ended ??= new Error(`the caller ${how}\n${this.#stderr}`);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }

  /** All of them in one go; an errno stops nothing. */
  async batch(calls: readonly Call[]): Promise<Outcome[]> {
    if (this.#ended !== undefined) throw this.#ended;
    const answer = new Promise<Outcome[]>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
    this.#child.stdin!.write(JSON.stringify(calls) + '\n');
    const timer = setTimeout(() => this.#hung(calls), HANG_MS);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  #hung(calls: readonly Call[]): void {
    this.#ended = new Error(`hung for ${HANG_MS} ms in: ${calls.slice(0, 8).map(describe).join('; ')}`);
    this.#onHang();
    killPid(this.pid, 'SIGKILL');
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }

  /** The value, or CallFailed. */
  async do<K extends CallName>(name: K, ...args: Parameters<Calls[K]>): Promise<Result<K>> {
    const call: Call = [name, ...args];
    const [outcome] = await this.batch([call]);
    if ('errno' in outcome!) throw new CallFailed(call, outcome.errno);
    return outcome!.value as Result<K>;
  }

  /** `OK` or the name of the errno. */
  async code<K extends CallName>(name: K, ...args: Parameters<Calls[K]>): Promise<string> {
    const [outcome] = await this.batch([[name, ...args]]);
    return 'errno' in outcome! ? errnoName(outcome.errno) : 'OK';
  }

  /** Runs `body` as another user, then is root again. */
  async as<T>(uid: number, gid: number, groups: number[], body: () => Promise<T>): Promise<T> {
    await this.do('as', uid, gid, groups);
    try {
      return await body();
    } finally {
      await this.do('as', 0, 0, []);
    }
  }

  /** kill -9: what it had open is closed by the kernel. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    killPid(this.pid, 'SIGKILL');
    await gone;
  }

  /** Lets go of whatever it holds in the tree. A caller that has ended holds nothing. */
  async closeAll(): Promise<void> {
    if (this.#ended === undefined) await this.do('closeAll');
  }
}
