/**
 * A world: a scratch directory with branches, a mountpoint, and a *subject* mounted on it.
 *
 * Words: a *subject* is a way to show `lower` (and what was written above it) as one writable tree:
 *  - `plain`: a copy of the lower directory, the oracle of every test;
 *  - `overlay`: kernel overlayfs, which shares its format with
 *  - `palimpsest`: the product, run as a user would, `bin/palimpsest.cjs mount …`.
 *
 * W1. Everything a world makes is registered for clean-up before it can be lost.
 * W2. The test process makes no call inside a mounted tree; the caller does (calls.ts).
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { Caller } from './caller.ts';
import {
  abortConnection,
  forceUnmount,
  mountTable,
  registerDirectory,
  registerMount,
  registerProcess,
  type Registration,
} from './cleanup.ts';

export const REPOSITORY = path.join(import.meta.dirname, '../..');
const PALIMPSEST = path.join(REPOSITORY, 'bin/palimpsest.cjs');

export type SubjectKind = 'plain' | 'overlay' | 'palimpsest';

/** Why whole-system tests cannot run here; undefined if they can. */
export function unable(): string | undefined {
  if (process.getuid!() !== 0) return 'mounting needs root';
  if (!fs.existsSync('/dev/fuse')) return 'no /dev/fuse';
  return undefined;
}

/** Further words for `-o` of every mount of the product: `PALIMPSEST_MOUNT_OPTIONS=passthrough`. */
const EXTRA_OPTIONS = process.env['PALIMPSEST_MOUNT_OPTIONS']?.split(',') ?? [];

/** The subjects to test, `palimpsest` unless PALIMPSEST_SUBJECTS names others (comma between). */
export function subjects(): SubjectKind[] {
  const wanted = process.env['PALIMPSEST_SUBJECTS'];
  return wanted === undefined ? ['palimpsest'] : (wanted.split(',') as SubjectKind[]);
}

export interface Finished {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  input?: string;
  uid?: number;
  gid?: number;
  /** After this long it is killed, and the run fails. */
  limitMs?: number;
  onStart?: (pid: number) => void;
}

/** Runs a program to its end. Output is latin1. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const { input, limitMs = 120_000, onStart, ...spawnOptions } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...spawnOptions, stdio: ['pipe', 'pipe', 'pipe'] });
    const registration = child.pid === undefined ? undefined : registerProcess(child.pid);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString('latin1')));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('latin1')));
    const timer = setTimeout(() => {
      stderr += `\n(killed after ${limitMs} ms)`;
      child.kill('SIGKILL');
    }, limitMs);
    child.on('error', (e) => (clearTimeout(timer), registration?.release(), reject(e)));
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      registration?.release();
      resolve({ status, signal, stdout, stderr });
    });
    child.stdin.on('error', () => {}); // A program may end before it has read its input.
    child.stdin.end(input ?? '');
    if (child.pid !== undefined) onStart?.(child.pid);
  });
}

/** `run`, and any status but 0 is an error that shows what the program said. */
export async function runOk(command: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const result = await run(command, args, options);
  if (result.status !== 0) {
    const said = (result.stderr + result.stdout).slice(-3000);
    throw new Error(`${command} ${args.join(' ')}: ${result.signal ?? result.status}\n${said}`);
  }
  return result;
}

export function palimpsest(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  return run(process.execPath, [PALIMPSEST, ...args], options);
}

export interface WorldOptions {
  /** Where the scratch directory lies. tmpfs never gives an inode number twice: the oracle's place. */
  on?: 'tmpfs' | 'disk';
  /** Further words for `-o`, `metacopy=off` say. */
  mountOptions?: string[];
}

export interface Scratch {
  readonly dir: string;
  dispose(): void;
}

/** A tmpfs of its own, or a directory on the disk; removed at the end. */
export function scratch(on: 'tmpfs' | 'disk', size = '2g'): Scratch {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'palimpsest-test-'));
  fs.chmodSync(dir, 0o755);
  const directory = registerDirectory(dir);
  let mount: Registration | undefined;
  if (on === 'tmpfs') {
    mount = registerMount(dir);
    const made = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'palimpsest-test', dir]);
    if (made.status !== 0) throw new Error(`cannot mount a tmpfs: ${String(made.stderr)}`);
  }
  const dispose = (): void => {
    if (mount !== undefined) forceUnmount(dir);
    mount?.release();
    fs.rmSync(dir, { recursive: true, force: true });
    directory.release();
  };
  return { dir, dispose };
}

export class World {
  readonly dir: string;
  readonly lower: string;
  readonly upper: string;
  readonly work: string;
  readonly mountpoint: string;
  readonly caller: Caller;
  /** The oracle's directory. On a tmpfs always: an inode number is never given twice there. */
  readonly plain: string;
  /** Words for `-o` of the next mount of palimpsest, after the directories. */
  mountOptions: string[];
  /** Branches for palimpsest, topmost first, in place of lower and upper: `DIR=rw`, `DIR=ro`. */
  branches: string[] | undefined;
  #mounted: { kind: SubjectKind; registration: Registration } | undefined;
  readonly #scratch: Scratch;
  readonly #plainScratch: Scratch | undefined;

  constructor(options: WorldOptions = {}) {
    this.#scratch = scratch(options.on ?? 'tmpfs');
    const { dir } = this.#scratch;
    this.#plainScratch = options.on === 'disk' ? scratch('tmpfs') : undefined;
    this.plain = path.join(this.#plainScratch?.dir ?? dir, 'plain');
    this.dir = dir;
    this.lower = path.join(dir, 'lower');
    this.upper = path.join(dir, 'upper');
    this.work = path.join(dir, 'work');
    this.mountpoint = path.join(dir, 'merged');
    this.mountOptions = [...EXTRA_OPTIONS, ...(options.mountOptions ?? [])];
    for (const d of [this.lower, this.upper, this.work, this.mountpoint]) fs.mkdirSync(d, { mode: 0o755 });
    this.caller = new Caller(() => abortConnection(this.mountpoint));
  }

  get mounted(): SubjectKind | undefined {
    return this.#mounted?.kind;
  }

  /** Where the tree is to be seen. */
  get root(): string {
    return this.#mounted?.kind === 'plain' ? this.plain : this.mountpoint;
  }

  async mount(kind: SubjectKind): Promise<void> {
    if (this.#mounted !== undefined) throw new Error(`already mounted: ${this.#mounted.kind}`);
    const registration = kind === 'plain' ? { release() {} } : registerMount(this.mountpoint);
    if (kind === 'plain') await this.#copyPlain();
    if (kind === 'overlay') await this.#mountOverlay();
    if (kind === 'palimpsest') await this.#mountPalimpsest();
    this.#mounted = { kind, registration };
  }

  async #copyPlain(): Promise<void> {
    if (!fs.existsSync(this.plain)) await runOk('cp', ['-a', this.lower, this.plain]);
  }

  async #mountOverlay(): Promise<void> {
    const metacopy = this.mountOptions.includes('metacopy=off') ? 'off' : 'on';
    const options =
      `lowerdir=${this.lower},upperdir=${this.upper},workdir=${this.work},` +
      `redirect_dir=on,index=on,metacopy=${metacopy}`;
    await runOk('mount', ['-t', 'overlay', 'overlay', '-o', options, this.mountpoint]);
  }

  /** The arguments of `palimpsest mount` for this world. */
  mountArguments(): string[] {
    const words = ['allow_other', ...this.mountOptions];
    if (this.branches !== undefined) {
      return [...this.branches.flatMap((b) => ['--branch', b]), '-o', words.join(','), this.mountpoint];
    }
    const dirs = `lowerdir=${this.lower},upperdir=${this.upper},workdir=${this.work}`;
    return ['-o', [dirs, ...words].join(','), this.mountpoint];
  }

  async #mountPalimpsest(): Promise<void> {
    const result = await palimpsest(['mount', ...this.mountArguments()], { cwd: '/', limitMs: 60_000 });
    if (result.status === 0) return;
    forceUnmount(this.mountpoint);
    throw new Error(`palimpsest mount: ${result.signal ?? result.status}\n${result.stderr}${result.stdout}`);
  }

  async unmount(): Promise<void> {
    const mounted = this.#mounted;
    if (mounted === undefined) return;
    this.#mounted = undefined;
    await this.caller.closeAll();
    if (mounted.kind === 'overlay') await runOk('umount', [this.mountpoint]);
    if (mounted.kind === 'palimpsest') {
      const result = await palimpsest(['umount', this.mountpoint], { cwd: '/', limitMs: 120_000 });
      if (result.status !== 0) {
        forceUnmount(this.mountpoint);
        throw new Error(`palimpsest umount: ${result.signal ?? result.status}\n${result.stderr}`);
      }
      if (mountTable().some((m) => m.mountpoint === this.mountpoint)) {
        throw new Error('palimpsest umount said 0 and left the mount');
      }
    }
    mounted.registration.release();
  }

  async remount(kind: SubjectKind | undefined = this.mounted): Promise<void> {
    await this.unmount();
    await this.mount(kind!);
  }

  /** The mount is taken down whatever state it is in: after a kill of the daemon, or a failure. */
  forceDown(): void {
    forceUnmount(this.mountpoint);
    this.#mounted?.registration.release();
    this.#mounted = undefined;
  }

  async dispose(): Promise<void> {
    try {
      await this.unmount();
    } finally {
      this.forceDown();
      await this.caller.kill();
      this.#scratch.dispose();
      this.#plainScratch?.dispose();
    }
  }
}

/** A world that goes with the test. */
export function makeWorld(t: TestContext, options: WorldOptions = {}): World {
  const world = new World(options);
  t.after(() => world.dispose());
  return world;
}
