/**
 * What is mounted, as files: one JSON record a daemon in the state directory, its control socket and
 * its log beside it. The commands find daemons by these.
 *
 * S1. A record is written whole (temporary name, then rename) by the daemon before it says ready, and
 *     removed by it as its last act. A record whose process is gone is stale, and nothing else.
 * S2. A process is known by its id *and* its start time: ids come round again.
 * S3. The directory is this user's alone (0700): who can write here can name any process as a daemon.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MountError } from './options.ts';
import type { MountPlan } from './plan.ts';

export interface MountRecord {
  version: 1;
  /** What is mounted, and all that is needed to mount it again. */
  plan: MountPlan;
  pid: number;
  /** Of the process, in clock ticks since boot: proc(5), stat, field 22. */
  pidStart: string;
  /** The inode of the mount namespace it is mounted in. */
  mountNamespace: string;
  socket: string;
  /** ISO 8601. */
  started: string;
}

/** A path that fits sockaddr_un.sun_path with its NUL. */
const SOCKET_PATH_BYTES_MAX = 107;

export function homeDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const home = env['HOME'];
  if (home === undefined || !home.startsWith('/')) {
    throw new MountError('failed', 'HOME is not set to an absolute path');
  }
  return home;
}

const absolute = (path: string | undefined): string | undefined =>
  path?.startsWith('/') === true ? path : undefined;

/** Where things live that outlast a boot: workspaces. */
export function stateHome(env: NodeJS.ProcessEnv = process.env): string {
  const xdg = absolute(env['XDG_STATE_HOME']);
  return join(xdg ?? join(homeDirectory(env), '.local/state'), 'palimpsest');
}

/**
 * Where mounts are recorded: gone after a boot, as they are. Root has one place whatever its session,
 * so that a mount of boot time is found from a shell, and the other way round.
 */
export function runtimeDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (process.geteuid?.() === 0 && env['PALIMPSEST_RUNTIME_DIR'] === undefined) {
    return '/run/palimpsest';
  }
  const given = absolute(env['PALIMPSEST_RUNTIME_DIR']);
  if (given !== undefined) return given;
  const xdg = absolute(env['XDG_RUNTIME_DIR']);
  return xdg === undefined ? join(stateHome(env), 'run') : join(xdg, 'palimpsest');
}

/** Where `run` records its mounts when the usual place lies in a tree that it covers. */
export const spareDirectory = (): string => `/var/tmp/palimpsest-${process.geteuid?.()}`;

const recordDirectories = (): string[] => [runtimeDirectory(), join(spareDirectory(), 'run')];

/** Make a directory that is this user's alone, or refuse one that is somebody else's (S3). */
export function ensurePrivateDirectory(path: string): string {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const stat = lstatSync(path);
  if (!stat.isDirectory() || stat.uid !== process.geteuid?.()) {
    throw new MountError('failed', `${path} is not a directory of this user's own`);
  }
  if ((stat.mode & 0o022) !== 0) chmodSync(path, 0o700);
  return path;
}

/** A short name for a mount point, the same every time. */
export const targetKey = (target: string): string =>
  createHash('sha256').update(target).digest('hex').slice(0, 12);

export function socketPath(directory: string, pid: number): string {
  const path = join(directory, `${pid}.sock`);
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return path;
  const short = join(tmpdir(), `palimpsest-${process.geteuid?.()}`);
  return join(ensurePrivateDirectory(short), `${pid}.sock`);
}

/** The start time of a process, or undefined if there is none of that id (a zombie is none). */
export function processStart(pid: number): string | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
  // The name, in parentheses, may hold anything: fields count from the last parenthesis.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return fields[19];
}

export const isAlive = (record: { pid: number; pidStart: string }): boolean =>
  processStart(record.pid) === record.pidStart;

const recordPath = (directory: string, pid: number): string => join(directory, `${pid}.json`);

export function writeRecord(record: MountRecord): void {
  const path = recordPath(record.plan.runtimeDirectory, record.pid);
  writeFileSync(`${path}.new`, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

export function removeRecord(record: MountRecord): void {
  rmSync(record.socket, { force: true });
  rmSync(recordPath(record.plan.runtimeDirectory, record.pid), { force: true });
}

/** All records, stale ones too. A file that is no record (torn by a crash, of a later version) is none. */
export function readRecords(): MountRecord[] {
  const records = recordDirectories().flatMap(readDirectory);
  return records.toSorted((a, b) => (a.started < b.started ? -1 : 1));
}

function readDirectory(directory: string): MountRecord[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  const records: MountRecord[] = [];
  for (const name of names) {
    if (!/^\d+\.json$/.test(name)) continue;
    const record = parseRecord(join(directory, name));
    if (record !== undefined) records.push(record);
  }
  return records;
}

function parseRecord(path: string): MountRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(path, 'utf8')) as MountRecord;
    return record.version === 1 && record.plan?.target !== undefined ? record : undefined;
  } catch (error) {
    // Removed since it was listed, or not JSON.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) {
      return undefined;
    }
    throw error;
  }
}
