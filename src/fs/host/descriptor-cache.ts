/**
 * Open descriptors of the host, at most as many as the process may have.
 *
 * A *descriptor* is a slot in an object (a directory, a file) that may hold an open descriptor. It is
 * in one of these states:
 *   empty   nothing open
 *   cached  open, in the list, closed when others are wanted more
 *   held    open, out of the list: in use by a call that waits (`holds`), or pinned
 *
 * D1. A descriptor's number is good until the next call that may open another: opening may evict.
 *     Who needs it over that, or over a yield, holds it.
 * D2. A pinned descriptor is the only way to its object (the last name is gone): never evicted.
 * D3. Drop closes at once, or when the last hold ends. With a pinned one its object ends too, and gives
 *     its blocks back: that is handed to `lastClose`, if there is one.
 */
import { Errno } from '../../abi/errno.ts';
import { assert } from '../../lib/assert.ts';
import { tryClose, tryOpenat } from '../../sys/open.ts';
import { CACHED_DESCRIPTORS_MAX, CACHED_DESCRIPTORS_MIN, RESERVED_DESCRIPTORS } from './limits.ts';

/** What a descriptor of an inode is good for; each is good for what those before it are. */
export const FdAccess = {
  /** O_PATH: it leads to the object. */
  Path: 0,
  Read: 1,
  /** Read and write. */
  Write: 2,
} as const;
export type FdAccess = (typeof FdAccess)[keyof typeof FdAccess];

const PINNED = 4;
const DROPPED = 8;

export class Descriptor {
  /** The open descriptor, or -1. */
  fd = -1;
  /** Calls that wait and need it open. */
  holds = 0;
  /** FdAccess in the lowest two bits, then what the accessors below say. */
  #flags = 0;
  /** Neighbours in the list, while cached. */
  older: Descriptor | undefined = undefined;
  newer: Descriptor | undefined = undefined;

  /** What the open descriptor is good for. */
  get access(): FdAccess {
    return (this.#flags & 3) as FdAccess;
  }
  set access(access: FdAccess) {
    this.#flags = (this.#flags & ~3) | access;
  }

  /** The only way to its object: not evicted. */
  get pinned(): boolean {
    return this.#has(PINNED);
  }
  set pinned(on: boolean) {
    this.#put(PINNED, on);
  }

  /** To be closed at the end of the last hold. */
  get dropped(): boolean {
    return this.#has(DROPPED);
  }
  set dropped(on: boolean) {
    this.#put(DROPPED, on);
  }

  #has(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }
  #put(flag: number, on: boolean): void {
    this.#flags = on ? this.#flags | flag : this.#flags & ~flag;
  }
}

/** Takes over descriptors that may take long to close; false where it takes no more. */
export interface LastClose {
  submit(fd: number): boolean;
}

export class DescriptorCache {
  readonly #budget: number;
  readonly #lastClose: LastClose | undefined;

  /** The ends of a ring: `#ring.newer` is the oldest, `#ring.older` the newest. */
  readonly #ring = new Descriptor();
  #cachedCount = 0;
  readonly #held = new Set<Descriptor>();

  /**
   * `descriptorLimit`: how many the process may have open. `lastClose` closes those whose objects end
   * with them; without it that is done on the spot.
   */
  constructor(descriptorLimit: number, lastClose?: LastClose) {
    this.#lastClose = lastClose;
    const budget = Math.min(descriptorLimit - RESERVED_DESCRIPTORS, CACHED_DESCRIPTORS_MAX);
    this.#budget = Math.max(budget, CACHED_DESCRIPTORS_MIN);
    this.#ring.older = this.#ring;
    this.#ring.newer = this.#ring;
  }

  get cachedCount(): number {
    return this.#cachedCount;
  }

  /** Put a just opened descriptor into an empty slot and cache it. */
  adopt(descriptor: Descriptor, fd: number): void {
    assert(descriptor.fd < 0, 'the slot of a descriptor is taken');
    descriptor.fd = fd;
    this.#insert(descriptor);
    this.#shrink(Math.max(this.#budget - this.#held.size, CACHED_DESCRIPTORS_MIN));
  }

  /** It was used: evict it later. */
  touch(descriptor: Descriptor): void {
    if (descriptor.older === undefined || descriptor.newer === this.#ring) return;
    this.#unlink(descriptor);
    this.#insert(descriptor);
  }

  /** Keep it open over an opening of others, or over a wait. */
  hold(descriptor: Descriptor): void {
    assert(descriptor.fd >= 0, 'only an open descriptor can be held');
    descriptor.holds++;
    this.#takeOut(descriptor);
  }

  /** The end of a hold. */
  release(descriptor: Descriptor): void {
    assert(descriptor.holds > 0, 'a hold ended twice');
    descriptor.holds--;
    if (descriptor.holds > 0) return;
    if (descriptor.dropped) this.#close(descriptor);
    else if (!descriptor.pinned) this.#putBack(descriptor);
  }

  /** Keep it open until dropped: nothing else leads to its object any more. */
  pin(descriptor: Descriptor): void {
    assert(descriptor.fd >= 0, 'only an open descriptor can be pinned');
    descriptor.pinned = true;
    this.#takeOut(descriptor);
  }

  /** Its object has a name again. */
  unpin(descriptor: Descriptor): void {
    if (!descriptor.pinned) return;
    descriptor.pinned = false;
    if (descriptor.holds === 0) this.#putBack(descriptor);
  }

  /** Close it, now or when the last hold ends. */
  drop(descriptor: Descriptor): void {
    if (descriptor.fd < 0) return;
    if (descriptor.holds > 0) descriptor.dropped = true;
    else this.#close(descriptor);
  }

  /** openat(2), with room made if the process has no descriptor left. A descriptor or -errno. */
  openat(dir: number, name: string, flags: number, mode = 0): number {
    const fd = tryOpenat(dir, name, flags, mode);
    if (fd !== -Errno.EMFILE && fd !== -Errno.ENFILE) return fd;
    // Someone else in this process uses more than was left to them. `dir` is among the newest.
    if (this.#cachedCount <= CACHED_DESCRIPTORS_MIN) return fd;
    this.#shrink(Math.max(this.#cachedCount >>> 1, CACHED_DESCRIPTORS_MIN));
    return tryOpenat(dir, name, flags, mode);
  }

  /** Every open descriptor that `chosen` says yes to is closed. */
  dropWhere(chosen: (descriptor: Descriptor) => boolean): void {
    // A set may lose what is being visited.
    for (const descriptor of this.#held) if (chosen(descriptor)) this.drop(descriptor);
    for (let at = this.#ring.newer!; at !== this.#ring;) {
      const next = at.newer!;
      if (chosen(at)) this.drop(at);
      at = next;
    }
  }

  /** The list is a ring, it is counted right, and what is in it is open. For tests. */
  check(): void {
    let count = 0;
    for (let at = this.#ring.newer!; at !== this.#ring; at = at.newer!) {
      assert(at.fd >= 0 && at.holds === 0 && !at.pinned);
      assert(at.newer!.older === at);
      count++;
    }
    assert(count === this.#cachedCount);
    for (const held of this.#held) assert(held.fd >= 0 && (held.holds > 0 || held.pinned));
  }

  #shrink(count: number): void {
    while (this.#cachedCount > count) this.#close(this.#ring.newer!);
  }

  #takeOut(descriptor: Descriptor): void {
    if (descriptor.older !== undefined) this.#unlink(descriptor);
    this.#held.add(descriptor);
  }

  #putBack(descriptor: Descriptor): void {
    this.#held.delete(descriptor);
    this.#insert(descriptor);
  }

  #insert(descriptor: Descriptor): void {
    const newest = this.#ring.older!;
    descriptor.older = newest;
    descriptor.newer = this.#ring;
    newest.newer = descriptor;
    this.#ring.older = descriptor;
    this.#cachedCount++;
  }

  #unlink(descriptor: Descriptor): void {
    descriptor.older!.newer = descriptor.newer;
    descriptor.newer!.older = descriptor.older;
    descriptor.older = undefined;
    descriptor.newer = undefined;
    this.#cachedCount--;
  }

  #close(descriptor: Descriptor): void {
    if (descriptor.older !== undefined) this.#unlink(descriptor);
    else this.#held.delete(descriptor);
    const isLast = descriptor.pinned && this.#lastClose !== undefined;
    if (!isLast || !this.#lastClose.submit(descriptor.fd)) tryClose(descriptor.fd);
    descriptor.fd = -1;
    descriptor.pinned = false;
    descriptor.dropped = false;
  }
}
