/**
 * What few inodes have, and so is no part of the many: a descriptor that is or was open, and further
 * names. A tree that is only looked at needs neither, and a million of its inodes may be known.
 */
import { Descriptor } from './descriptor-cache.ts';
import type { HostFs } from './host-fs.ts';
import type { Location } from './namespace.ts';

export class InodeDescriptor extends Descriptor {
  readonly owner: HostFs;
  /** Not all still true (namespace.ts, L1). */
  others: Location[] | undefined = undefined;

  constructor(owner: HostFs) {
    super();
    this.owner = owner;
  }
}
