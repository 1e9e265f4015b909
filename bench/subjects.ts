/**
 * The subjects: a plain directory, the kernel's overlayfs, the FUSE peers, and palimpsest; how each is
 * mounted over the lower tree and a fresh upper, and how it is taken down again.
 *
 * S1. Every subject of a table has the same lower tree, and its upper on the same filesystem.
 * S2. Whatever was mounted is unmounted by `unmount`, by force if need be; a FUSE daemon that answers
 *     no more has its connection aborted first, so that nothing of ours stays in D state.
 * S3. Peers run with the options that make them fastest while still a correct union: a slow peer
 *     would flatter us. mergerfs gets its caches, fuse-overlayfs its defaults (the cached ones).
 *
 * In the table "user" everything is mounted inside a user namespace with one mapped id: `Namespace`
 * holds it, and every command of the subject goes through nsenter.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { CommandFailed, processesWith, run } from './host.ts';
import type { RunOptions, RunResult } from './host.ts';

export const SUBJECTS = [
  'plain',
  'overlayfs',
  'fuse-overlayfs',
  'unionfs-fuse',
  'mergerfs',
  'palimpsest',
  'palimpsest-passthrough',
] as const;
export type SubjectId = (typeof SUBJECTS)[number];
export const FUSE_PEERS: readonly SubjectId[] = ['fuse-overlayfs', 'unionfs-fuse', 'mergerfs'];

export function isPalimpsest(id: SubjectId): boolean {
  return id.startsWith('palimpsest');
}

export const palimpsestProgram = join(import.meta.dirname, '..', 'bin', 'palimpsest.cjs');
const UNMOUNT_TIMEOUT_MS = 15_000;
/** How often, and how long apart, we look whether a daemon has gone after its mount. */
const EXIT_POLLS = 200;
const EXIT_POLL_SECONDS = '0.05';

/** A user namespace with its own mounts, held open by a sleeping process. */
export class Namespace {
  private readonly holder: ChildProcess;

  constructor() {
    this.holder = spawn('unshare', ['--user', '--map-root-user', '--mount', 'sleep', 'infinity'], {
      stdio: 'ignore',
    });
    const own = readlinkSync('/proc/self/ns/user');
    for (let polls = 0; polls < EXIT_POLLS; polls++) {
      // The map is the last thing unshare(1) writes before it starts the sleeper.
      if (
        existsSync(`/proc/${this.pid}/uid_map`) &&
        readlinkSync(`/proc/${this.pid}/ns/user`) !== own &&
        readFileSync(`/proc/${this.pid}/comm`, 'latin1').trim() === 'sleep'
      )
        return;
      run(['sleep', EXIT_POLL_SECONDS]);
    }
    throw new CommandFailed('unshare: no user namespace', false);
  }

  get pid(): number {
    if (this.holder.pid === undefined) throw new CommandFailed('unshare: did not start', false);
    return this.holder.pid;
  }

  get prefix(): readonly string[] {
    return ['nsenter', '--target', String(this.pid), '--user', '--mount', '--preserve-credentials'];
  }

  close(): void {
    this.holder.kill('SIGKILL');
  }
}

export interface Place {
  /** Where uppers, work directories and mount points go. */
  base: string;
  /** Read-only branches, topmost first. */
  lowers: readonly string[];
  namespace?: Namespace | undefined;
}

export class Subject {
  readonly id: SubjectId;
  readonly mountPoint: string;
  private readonly place: Place;
  private readonly dir: string;

  private upperNumber = 0;
  private mounted = false;
  /** Minor number of the mount's device: the name of its FUSE connection. */
  private connection: string | undefined;

  constructor(id: SubjectId, place: Place) {
    this.id = id;
    this.place = place;
    this.dir = join(place.base, id);
    this.mountPoint = join(this.dir, 'mnt');
    mkdirSync(this.mountPoint, { recursive: true });
  }

  get upper(): string {
    return this.id === 'plain' ? this.mountPoint : join(this.dir, `upper-${this.upperNumber}`);
  }

  /** The plain directory has no lower file; mergerfs writes to its read-only branch in place. */
  get copiesUp(): boolean {
    return this.id !== 'plain' && this.id !== 'mergerfs';
  }

  get daemons(): number[] {
    return processesWith(this.mountPoint).filter((pid) => pid !== this.place.namespace?.pid);
  }

  /** Whether there is something to measure: the bare mount point would answer, and wrongly. */
  ensureMounted(): void {
    if (this.id !== 'plain' && !this.mounted) this.mount();
  }

  /** Runs a command where the mount can be seen. */
  run(argv: readonly string[], options: RunOptions = {}): RunResult {
    return run([...(this.place.namespace?.prefix ?? []), ...argv], options);
  }

  /** Mounts over the present upper; milliseconds until the mount command came back. */
  mount(): number {
    if (this.id === 'plain') return this.fillPlain();
    const work = join(this.dir, `work-${this.upperNumber}`);
    mkdirSync(this.upper, { recursive: true });
    mkdirSync(work, { recursive: true });
    const log = openSync(join(this.dir, 'log'), 'a');
    try {
      const argv = this.mountCommand(work);
      const { ms } = this.run(argv, { logFd: log, timeoutMs: 30_000, env: this.environment() });
      this.mounted = true;
      const device = this.run(['stat', '-c', '%d', this.mountPoint]).stdout.trim();
      this.connection = this.id === 'overlayfs' ? undefined : device;
      return ms;
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      throw new CommandFailed(`${error.message}: ${this.lastWords()}`, error.timedOut);
    } finally {
      closeSync(log);
    }
  }

  remount(kind: 'again' | 'fresh'): void {
    if (this.id === 'plain') return;
    this.unmount();
    if (kind === 'fresh') {
      const old = this.dir;
      rmSync(join(old, `upper-${this.upperNumber}`), { recursive: true, force: true });
      rmSync(join(old, `work-${this.upperNumber}`), { recursive: true, force: true });
      this.upperNumber++;
    }
    this.mount();
  }

  unmount(): void {
    if (!this.mounted) return;
    const daemons = this.daemons;
    try {
      this.run(['umount', this.mountPoint], { timeoutMs: UNMOUNT_TIMEOUT_MS });
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      this.abort();
      this.run(['umount', '-l', this.mountPoint], { timeoutMs: UNMOUNT_TIMEOUT_MS });
    }
    this.mounted = false;
    waitForExit(daemons);
  }

  /** Cuts a hung daemon off: its callers get ECONNABORTED instead of waiting for ever. */
  abort(): void {
    if (this.connection === undefined) return;
    const file = `/sys/fs/fuse/connections/${this.connection}/abort`;
    if (existsSync(file)) writeFileSync(file, '1');
  }

  /** What the mount command said before it failed. */
  private lastWords(): string {
    return readFileSync(join(this.dir, 'log'), 'latin1').trim().split('\n').at(-1) ?? '';
  }

  private environment(): Record<string, string> {
    return { XDG_STATE_HOME: join(this.dir, 'state'), XDG_RUNTIME_DIR: join(this.dir, 'runtime') };
  }

  private mountCommand(work: string): string[] {
    const { upper, mountPoint } = this;
    const { lowers } = this.place;
    const layers = `lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${work}`;
    const branches = [`${upper}=RW`, ...lowers.map((lower) => `${lower}=RO`)].join(':');
    const palimpsest = [process.execPath, palimpsestProgram, 'mount', '--branch', `${upper}=rw`];
    palimpsest.push(...lowers.flatMap((lower) => ['--branch', `${lower}=ro`]));
    switch (this.id) {
      case 'plain':
        throw new TypeError('a plain directory is not mounted');
      case 'overlayfs': {
        const user = this.place.namespace === undefined ? '' : ',userxattr';
        return ['mount', '-t', 'overlay', 'overlay', '-o', `${layers}${user}`, mountPoint];
      }
      case 'fuse-overlayfs':
        return ['fuse-overlayfs', '-o', layers, mountPoint];
      case 'unionfs-fuse':
        return ['unionfs-fuse', '-o', 'cow,use_ino,max_files=15000', branches, mountPoint];
      case 'mergerfs':
        return [
          'mergerfs',
          '-o',
          'use_ino,cache.files=auto-full,cache.writeback=true,category.create=ff',
          branches,
          mountPoint,
        ];
      case 'palimpsest':
        return [...palimpsest, mountPoint];
      case 'palimpsest-passthrough':
        return [...palimpsest, '-o', 'passthrough', mountPoint];
      default:
        return this.id satisfies never;
    }
  }

  /** The plain directory has the lower tree's files as its own, so that every row has something to read. */
  private fillPlain(): number {
    for (const lower of this.place.lowers)
      run(['cp', '-a', '--sparse=auto', `${lower}/.`, this.mountPoint]);
    return 0;
  }
}

/** umount(2) comes back before the daemon has noticed; the next mount must not share the machine with it. */
function waitForExit(pids: readonly number[]): void {
  for (let polls = 0; polls < EXIT_POLLS; polls++) {
    if (pids.every((pid) => !existsSync(`/proc/${pid}`))) return;
    run(['sleep', EXIT_POLL_SECONDS]);
  }
  for (const pid of pids) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
}

/** Why a subject cannot take part here, or undefined if it can. */
export function absenceOf(id: SubjectId, table: string): string | undefined {
  if (isPalimpsest(id) && !existsSync(palimpsestProgram)) return 'not built yet';
  if (id === 'palimpsest-passthrough' && table === 'user') return 'passthrough needs root';
  const programs: Partial<Record<SubjectId, string>> = {
    'fuse-overlayfs': 'fuse-overlayfs',
    'unionfs-fuse': 'unionfs-fuse',
    mergerfs: 'mergerfs',
  };
  const program = programs[id];
  if (program === undefined) return undefined;
  const paths = (process.env['PATH'] ?? '').split(':');
  return paths.some((dir) => existsSync(join(dir, program))) ? undefined : 'not installed';
}
