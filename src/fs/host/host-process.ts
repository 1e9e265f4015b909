/**
 * What this process is to the host: its ids, its umask, its budget of descriptors. One a thread, for
 * these belong to the process and every HostFs of it must count them together.
 */
import { getegid, geteuid, raiseDescriptorLimit } from '../../sys/process.ts';
import { umask } from '../../sys/open.ts';
import { DescriptorCache } from './descriptor-cache.ts';

export class HostProcess {
  readonly uid: number = geteuid();
  readonly gid: number = getegid();
  readonly descriptors: DescriptorCache;
  /** The umask as we set it last; -1 before. */
  #umask = -1;

  constructor(descriptorLimit: number) {
    this.descriptors = new DescriptorCache(descriptorLimit);
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

let current: HostProcess | undefined;

/** The one of this thread. */
export function hostProcess(): HostProcess {
  current ??= new HostProcess(raiseDescriptorLimit());
  return current;
}
