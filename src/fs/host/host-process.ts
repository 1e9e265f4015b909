/**
 * What this process is to the host: its ids, its umask, its budget of descriptors. One a thread, for
 * these belong to the process and every HostFs of it must count them together.
 */
import { Errno } from '../../abi/errno.ts';
import { errnoOf } from '../../kernel/error.ts';
import type { Closer } from '../../sys/closer.ts';
import { getegid, geteuid, raiseDescriptorLimit } from '../../sys/process.ts';
import { umask } from '../../sys/open.ts';
import { DescriptorCache } from './descriptor-cache.ts';

export class HostProcess {
  readonly uid: number = geteuid();
  readonly gid: number = getegid();
  readonly descriptors: DescriptorCache;
  /** The umask as we set it last; -1 before. */
  #umask = -1;

  readonly #closer: Closer | undefined;

  constructor(descriptorLimit: number, closer?: Closer) {
    this.#closer = closer;
    this.descriptors = new DescriptorCache(descriptorLimit, closer);
  }

  /** What has been removed gives its space back now. False: all of it had already. */
  settle(): boolean {
    return this.#closer?.settle() ?? false;
  }

  /**
   * Make a call, and once more if it lacked what removed files had not given back yet. A call that fails
   * half done, as setattr can, must come to the same when it is made again.
   */
  withSpace<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      if (!isLackOfSpace(errnoOf(error)) || !this.settle()) throw error;
      return call();
    }
  }

  /** May give objects to others. In a user namespace: to those that it maps. */
  get privileged(): boolean {
    return this.uid === 0;
  }

  /** Let the host apply a requester's umask: it knows when a default ACL overrides it. */
  applyUmask(mask: number): void {
    if (mask === this.#umask) return;
    umask(mask);
    this.#umask = mask;
  }
}

/** Blocks, inodes or quota; or descriptors, for those that wait to be closed count too. */
export function isLackOfSpace(errno: number | undefined): boolean {
  switch (errno) {
    case Errno.ENOSPC:
    case Errno.EDQUOT:
    case Errno.EMFILE:
    case Errno.ENFILE:
      return true;
    default:
      return false;
  }
}

let current: HostProcess | undefined;

/** The one of this thread. Whoever is first may give it a closer. */
export function hostProcess(closer?: Closer): HostProcess {
  current ??= new HostProcess(raiseDescriptorLimit(), closer);
  return current;
}
