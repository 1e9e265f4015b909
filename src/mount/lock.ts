/**
 * One writer an upper: an exclusive flock(2) on the branch's directory and on its work directory, for
 * as long as the process lives. Nothing is left behind, so nothing can be stale.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { Errno, errnoName } from '../abi/errno.ts';
import { tryFlockExclusive } from '../sys/lock.ts';
import { MountError } from './options.ts';
import type { BranchPlan } from './plan.ts';
import { isAlive, readRecords } from './state.ts';

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
    const result = tryFlockExclusive(fd);
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

function holderOf(path: string): string {
  const holder = readRecords().find(
    (record) =>
      isAlive(record) &&
      record.plan.branches.some((branch) => branch.path === path || branch.work === path),
  );
  if (holder === undefined) return 'another mount or command';
  if (holder.plan.workspace !== undefined) {
    return `palimpsest run of the workspace ${holder.plan.workspace} (process ${holder.pid})`;
  }
  return `the mount at ${holder.plan.target} (process ${holder.pid})`;
}
