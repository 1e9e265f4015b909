/**
 * Node ids: which number the kernel knows an inode by, and how often it has been told.
 *
 * A *slot* is an index into the arrays of this table; a *node id* is slot + epoch * 2^32, where the
 * epoch of a slot grows each time it is given to another inode. So a node id is never used twice,
 * finding it needs no map, and a known inode costs 16 bytes here.
 *
 * N1. inodes[slot] is set exactly while lookups[slot] > 0, or slot is the root's.
 * N2. inode.doorNode === slot exactly while inodes[slot] === inode: one inode object, one node id.
 * N3. An inode is forgotten once, when the kernel has given back all lookups; the root never.
 * N4. Free slots form a list through `lookups`; an id of an older epoch finds nothing.
 * N5. Slots that were given back to the host (trim) come again with an epoch that none of them has
 *     had, so N4 holds for their old ids too.
 *
 * cf. fs/fuse/inode.c, fuse_iget() and fuse_queue_forget()
 */
import { assert } from '../lib/assert.ts';
import type { Inode } from '../vfs/inode-operations.ts';
import { FUSE_ROOT_ID } from './abi.ts';

const EPOCH = 0x1_0000_0000;
const ROOT_SLOT = FUSE_ROOT_ID;
const FIRST_CAPACITY = 1024;
/** A slot whose epoch has come to this is not used again: ids must stay below 2^53. */
const EPOCH_MAX = 0x1f_fff0;
/** A slot beyond this epoch is not trimmed: all that come again would begin where it has ended. */
const TRIM_EPOCH_MAX = 0x10_0000;

export class NodeTable {
  readonly #inodes: (Inode | undefined)[];
  readonly #dropped: (inode: Inode) => void;
  /** Lookup counts of used slots; the next free slot of free ones. */
  #lookups: Float64Array;
  #epochs: Uint32Array;
  /** First free slot, 0 if none. */
  #free = 0;
  /** Slots from here on were never used, or were trimmed. */
  #top = ROOT_SLOT + 1;
  /** Epoch that the slots from there on begin with. */
  #freshEpoch = 0;
  #known = 1;
  #forgotten = 0;

  /** `dropped` is called with each inode that the kernel has given back, before its `forget()`. */
  constructor(root: Inode, dropped: (inode: Inode) => void) {
    this.#dropped = dropped;
    this.#inodes = [undefined, root];
    this.#lookups = new Float64Array(FIRST_CAPACITY);
    this.#epochs = new Uint32Array(FIRST_CAPACITY);
    this.#lookups[ROOT_SLOT] = 1;
    root.doorNode = ROOT_SLOT;
  }

  /** Inodes that the kernel knows, the root included. */
  get size(): number {
    return this.#known;
  }

  /** Inodes that the kernel has given back, ever. */
  get forgottenCount(): number {
    return this.#forgotten;
  }

  find(nodeid: number): Inode | undefined {
    const slot = nodeid % EPOCH;
    if (slot >= this.#top || this.#epochs[slot] !== Math.floor(nodeid / EPOCH)) return undefined;
    return this.#inodes[slot];
  }

  /** The node id of an inode that the kernel knows, or undefined. */
  idOf(inode: Inode): number | undefined {
    const slot = inode.doorNode;
    if (slot === undefined || slot < 0 || this.#inodes[slot] !== inode) return undefined;
    return slot + this.#epochs[slot]! * EPOCH;
  }

  /** The kernel is told of this inode once more. Its node id. */
  remember(inode: Inode): number {
    let slot = inode.doorNode;
    if (slot === undefined || slot < 0 || this.#inodes[slot] !== inode) {
      slot = this.#takeSlot();
      this.#inodes[slot] = inode;
      this.#lookups[slot] = 0;
      inode.doorNode = slot;
      this.#known++;
    }
    this.#lookups[slot]!++;
    return slot + this.#epochs[slot]! * EPOCH;
  }

  /** The kernel gives back `count` lookups. False: it does not know that node, or had fewer. */
  forget(nodeid: number, count: number): boolean {
    const inode = this.find(nodeid);
    if (inode === undefined) return false;
    const slot = nodeid % EPOCH;
    if (slot === ROOT_SLOT) return true;
    const had = this.#lookups[slot]!;
    if (count < had) {
      this.#lookups[slot] = had - count;
      return true;
    }
    this.#drop(slot, inode);
    return count === had;
  }

  /** Let go of everything but the root: the mount is gone, no more FORGET will come. */
  clear(): void {
    for (let slot = ROOT_SLOT + 1; slot < this.#top; slot++) {
      const inode = this.#inodes[slot];
      if (inode !== undefined) this.#drop(slot, inode);
    }
  }

  #drop(slot: number, inode: Inode): void {
    this.#inodes[slot] = undefined;
    inode.doorNode = -1;
    this.#known--;
    this.#forgotten++;
    this.#epochs[slot]!++;
    if (this.#epochs[slot]! < EPOCH_MAX) {
      this.#lookups[slot] = this.#free;
      this.#free = slot;
    } else {
      this.#lookups[slot] = 0;
    }
    this.#dropped(inode);
    inode.forget();
  }

  #takeSlot(): number {
    const free = this.#free;
    if (free !== 0) {
      // An integer for V8 too: a double would be boxed in every inode that is given such a slot.
      this.#free = this.#lookups[free]! | 0;
      assert(this.#inodes[free] === undefined, 'a free slot has no inode');
      return free;
    }
    const slot = this.#top++;
    if (slot === this.#epochs.length) this.#resize(slot * 2);
    this.#epochs[slot] = this.#freshEpoch;
    return slot;
  }

  #resize(capacity: number): void {
    const used = Math.min(this.#top, capacity);
    const lookups = new Float64Array(capacity);
    const epochs = new Uint32Array(capacity);
    lookups.set(this.#lookups.subarray(0, used));
    epochs.set(this.#epochs.subarray(0, used));
    this.#lookups = lookups;
    this.#epochs = epochs;
  }

  /** Give the memory of free slots at the end back, if half of it or more is theirs. */
  trim(): void {
    let top = this.#top;
    let epoch = this.#freshEpoch;
    for (; top > ROOT_SLOT + 1 && this.#inodes[top - 1] === undefined; top--) {
      const had = this.#epochs[top - 1]!;
      if (had > TRIM_EPOCH_MAX) break;
      epoch = Math.max(epoch, had);
    }
    let capacity = this.#epochs.length;
    while (capacity > FIRST_CAPACITY && capacity >= top * 2) capacity /= 2;
    if (capacity === this.#epochs.length) return;
    this.#top = top;
    this.#freshEpoch = epoch;
    this.#inodes.length = top;
    this.#resize(capacity);
    this.#relistFree();
  }

  /** The lowest first: what is at the end can then be trimmed the next time. */
  #relistFree(): void {
    this.#free = 0;
    for (let slot = this.#top - 1; slot > ROOT_SLOT; slot--) {
      if (this.#inodes[slot] !== undefined || this.#epochs[slot]! >= EPOCH_MAX) continue;
      this.#lookups[slot] = this.#free;
      this.#free = slot;
    }
  }

  /** N1, N2 and N4. For tests. */
  check(): void {
    let known = 0;
    for (let slot = ROOT_SLOT; slot < this.#top; slot++) {
      const inode = this.#inodes[slot];
      if (inode === undefined) continue;
      known++;
      assert(inode.doorNode === slot, 'an inode knows its slot');
      assert(this.#lookups[slot]! > 0, 'a known inode has lookups');
    }
    assert(known === this.#known, 'the count of known inodes is right');
    assert(this.#inodes.length <= this.#top, 'no inode is above the top');
    for (let slot = this.#free; slot !== 0; slot = this.#lookups[slot]!) {
      assert(slot < this.#top, 'a free slot is below the top');
      assert(this.#inodes[slot] === undefined, 'a free slot has no inode');
    }
  }
}
