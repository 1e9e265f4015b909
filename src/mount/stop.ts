/**
 * Unmount, and wait until everything is flushed and the daemon has gone.
 *
 * umount(2) returns before the daemon has noticed: what was written may still be on its way to the
 * branches. So we connect to the daemon before, and wait for its last words and its end after.
 *
 * A dead mount (the daemon was killed: ENOTCONN) is detached and its record removed: that is all
 * there is to do; what had been flushed is in the branches.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Errno, errnoName } from '../abi/errno.ts';
import { MNT_DETACH, MNT_FORCE, tryUmount2, UMOUNT_NOFOLLOW } from '../sys/mount.ts';
import { ControlClient } from './control.ts';
import { livenessOf } from './liveness.ts';
import { FS_TYPE, isInside, mountAt, readMountinfo } from './mountinfo.ts';
import { MountError } from './options.ts';
import { bytesPath } from './paths.ts';
import { type MountRecord, isAlive, readRecords, removeRecord } from './state.ts';

export interface StopOptions {
  /** Detach now; the daemon goes when its last user has. Not waited for. */
  lazy: boolean;
  /** End the connection: programs in the mount get errors. */
  force: boolean;
  /** Give up waiting for the flush after this. 0: never. */
  timeoutMs: number;
}

export interface Stopped {
  target: string;
  /** `flushed`: the daemon has gone, all is on the branches; `dead`: it was gone before. */
  outcome: 'flushed' | 'dead' | 'detached';
}

const POLL_MS_MIN = 2;
const POLL_MS_MAX = 50;
/** Users named in a refusal: enough to know what to stop. */
const USERS_NAMED_MAX = 3;

/** The real path of a mount point. One of ours is not touched itself: it may be dead, or hang. */
export function realTarget(path: string): string {
  const absolute = resolve(path);
  try {
    const inParent = join(realpathSync(dirname(absolute)), basename(absolute));
    if (mountAt(readMountinfo(), inParent)?.fsType === FS_TYPE) return inParent;
    return realpathSync(absolute);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTCONN' || code === 'EACCES' || code === 'EIO' || code === 'ECONNABORTED') {
      return join(realpathSync(dirname(absolute)), basename(absolute));
    }
    if (code === 'ENOENT') {
      throw new MountError('failed', `${path} does not exist`);
    }
    throw error;
  }
}

export function recordOfTarget(target: string): MountRecord | undefined {
  const namespace = String(statSync('/proc/self/ns/mnt').ino);
  const records = readRecords().filter((record) => record.plan.target === target);
  const here = records.findLast((record) => record.mountNamespace === namespace);
  // Made in another namespace, and propagated to this one. What `run` mounts never is.
  return (
    here ?? records.findLast((record) => record.plan.workspace === undefined && isAlive(record))
  );
}

/** "bash (812), vim (900) and 2 more": who has a file or a working directory there. */
function usersOf(target: string): string {
  const users: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (/^\d+$/.test(pid) && usesTarget(pid, target)) users.push(pid);
  }
  if (users.length === 0) return '';
  const named = users.slice(0, USERS_NAMED_MAX).map((pid) => `${programName(pid)} (${pid})`);
  const more = users.length - named.length;
  return ` by ${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function linksOf(pid: string): string[] {
  try {
    const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `fd/${fd}`);
    return ['cwd', 'root', 'exe', ...fds].map((name) => `/proc/${pid}/${name}`);
  } catch (error) {
    // Gone, or another user's: it cannot be named then.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return [];
  }
}

function usesTarget(pid: string, target: string): boolean {
  return linksOf(pid).some((link) => {
    try {
      return isInside(readlinkSync(link), target);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
      return false;
    }
  });
}

function programName(pid: string): string {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return 'process';
  }
}

/** umount2(2), or fusermount3 for a user who may not. Errors: MountError `failed`. */
function unmountTarget(target: string, flags: number): void {
  let result = tryUmount2(bytesPath(target), flags | UMOUNT_NOFOLLOW);
  if (result === -Errno.EPERM && process.geteuid?.() !== 0) {
    const args = (flags & MNT_DETACH) === 0 ? ['-u', target] : ['-u', '-z', target];
    const fusermount = spawnSync('fusermount3', args, { encoding: 'utf8' });
    if (fusermount.status === 0) return;
    if (/busy/i.test(fusermount.stderr ?? '')) result = -Errno.EBUSY;
  }
  if (result >= 0) return;
  if (result === -Errno.EBUSY) {
    throw new MountError(
      'failed',
      `${target} is in use${usersOf(target)}; stop that first, or use umount --lazy`,
    );
  }
  if (result === -Errno.EPERM) {
    throw new MountError('failed', `no permission to unmount ${target}: it is another user's`);
  }
  throw new MountError('failed', `cannot unmount ${target}: ${errnoName(-result)}`);
}

/** Wait for a process to be gone. False: the time is over. */
export async function waitGone(record: MountRecord, timeoutMs: number): Promise<boolean> {
  const started = performance.now();
  let pause = POLL_MS_MIN;
  while (isAlive(record)) {
    if (timeoutMs > 0 && performance.now() - started > timeoutMs) return false;
    await sleep(pause);
    pause = Math.min(pause * 2, POLL_MS_MAX);
  }
  return true;
}

/** Remove what a daemon that was killed left behind: its mount and its record. */
export function cleanDead(target: string): void {
  while (mountAt(readMountinfo(), target)?.fsType === FS_TYPE) unmountTarget(target, MNT_DETACH);
  for (const record of readRecords()) {
    if (record.plan.target === target && !isAlive(record)) removeRecord(record);
  }
}

/** Errors: MountError `failed`: not ours, in use, not permitted, not flushed in time, flush failed. */
export async function unmount(path: string, options: StopOptions): Promise<Stopped> {
  const target = realTarget(path);
  const entry = mountAt(readMountinfo(), target);
  const record = recordOfTarget(target);
  const alive = record !== undefined && isAlive(record);
  if (entry?.fsType !== FS_TYPE) {
    if (alive) return waitFlushed(target, record, undefined, options);
    if (record !== undefined) {
      cleanDead(target);
      return { target, outcome: 'dead' };
    }
    throw new MountError('failed', `nothing of palimpsest is mounted at ${path}`);
  }
  if (!alive && (await isOver(target, options))) {
    cleanDead(target);
    return { target, outcome: 'dead' };
  }
  const client = record === undefined ? undefined : await ControlClient.connect(record.socket);
  try {
    const flags = (options.lazy ? MNT_DETACH : 0) | (options.force ? MNT_FORCE : 0);
    unmountTarget(target, flags);
    if (options.lazy || record === undefined) return { target, outcome: 'detached' };
    return await waitFlushed(target, record, client, options);
  } finally {
    client?.close();
  }
}

/** Of a mount without a daemon of ours: force ends its connection first, even if it is in use and stays. */
async function isOver(target: string, options: StopOptions): Promise<boolean> {
  const flags = MNT_FORCE | UMOUNT_NOFOLLOW;
  if (options.force && tryUmount2(bytesPath(target), flags) >= 0) return true;
  return (await livenessOf(target)) === 'dead';
}

async function waitFlushed(
  target: string,
  record: MountRecord,
  client: ControlClient | undefined,
  options: StopOptions,
): Promise<Stopped> {
  if (!(await waitGone(record, options.timeoutMs))) {
    throw new MountError(
      'failed',
      `${target} is unmounted, but its daemon (process ${record.pid}) is still flushing`,
    );
  }
  await client?.closed;
  if (client?.endedError !== undefined) {
    throw new MountError(
      'failed',
      `${target} is unmounted, but not everything could be written: ${client.endedError}`,
    );
  }
  return { target, outcome: 'flushed' };
}
