/**
 * One writer an upper: an exclusive flock(2) on the branch's directory and on its work directory, for
 * as long as the process lives. Nothing is left behind, so nothing can be stale.
 */
import { closeSync, constants, openSync, readlinkSync } from 'node:fs';
import { Errno, errnoName } from '../abi/errno.ts';
import { tryFlockExclusive } from '../sys/lock.ts';
import { mountAt, readMountinfo } from './mountinfo.ts';
import { MountError } from './options.ts';
import type { BranchPlan } from './plan.ts';
import { isAlive, readRecords } from './state.ts';
import type { MountRecord } from './state.ts';

export class BranchLocks implements Disposable {
  readonly #fds: number[] = [];

  /** Errors: MountError `refused`, with who has it; then nothing is held. */
  constructor(branches: readonly BranchPlan[]) {
    const paths = branches.flatMap((branch) =>
      branch.mode === 'rw' ? [branch.path, branch.work!] : [],
    );
    try {
      for (const path of paths) this.#take(path);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  #take(path: string): void {
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    this.#fds.push(fd);
    let result = tryFlockExclusive(fd);
    // umount(8) returns before the daemon has flushed and gone: who mounts again at once waits for it.
    for (let waited = 0; result === -Errno.EAGAIN && waited < ENDING_MS_MAX && isEnding(path); ) {
      Atomics.wait(pause, 0, 0, POLL_MS);
      waited += POLL_MS;
      result = tryFlockExclusive(fd);
    }
    if (result === -Errno.EAGAIN) {
      throw new MountError('refused', `${path} is in use by ${holderOf(path)}`);
    }
    // A network filesystem may have no locks: then it is the user's word that nobody else writes.
    const lockless = result === -Errno.ENOLCK || result === -Errno.EOPNOTSUPP;
    if (result < 0 && !lockless) {
      throw new MountError('failed', `cannot lock ${path}: ${errnoName(-result)}`);
    }
  }

  release(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

const POLL_MS = 20;
/** How long a daemon whose mount has gone may take to flush before it counts as somebody else's. */
const ENDING_MS_MAX = 10_000;
const pause = new Int32Array(new SharedArrayBuffer(4));

function findHolder(path: string): MountRecord | undefined {
  return readRecords().find(
    (record) =>
      isAlive(record) &&
      record.plan.branches.some((branch) => branch.path === path || branch.work === path),
  );
}

/** Is it held by a daemon, of this mount namespace, that is not mounted any more? */
function isEnding(path: string): boolean {
  const holder = findHolder(path);
  if (holder === undefined) return true; // Between the record's end and the process's.
  if (`mnt:[${holder.mountNamespace}]` !== readlinkSync('/proc/self/ns/mnt')) return false;
  return mountAt(readMountinfo(), holder.plan.target) === undefined;
}

function holderOf(path: string): string {
  const holder = findHolder(path);
  if (holder === undefined) return 'another mount or command';
  if (holder.plan.workspace !== undefined) {
    return `palimpsest run of the workspace ${holder.plan.workspace} (process ${holder.pid})`;
  }
  return `the mount at ${holder.plan.target} (process ${holder.pid})`;
}
