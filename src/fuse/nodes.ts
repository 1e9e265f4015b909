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

export class NodeTable {
  readonly #inodes: (Inode | undefined)[];
  readonly #dropped: (inode: Inode) => void;
  /** Lookup counts of used slots; the next free slot of free ones. */
  #lookups: Float64Array;
  #epochs: Uint32Array;
  /** First free slot, 0 if none. */
  #free = 0;
  /** Slots from here on were never used. */
  #top = ROOT_SLOT + 1;
  #known = 1;

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
      this.#free = this.#lookups[free]!;
      assert(this.#inodes[free] === undefined, 'a free slot has no inode');
      return free;
    }
    const slot = this.#top++;
    if (slot === this.#epochs.length) this.#grow();
    return slot;
  }

  #grow(): void {
    const capacity = this.#epochs.length * 2;
    const lookups = new Float64Array(capacity);
    const epochs = new Uint32Array(capacity);
    lookups.set(this.#lookups);
    epochs.set(this.#epochs);
    this.#lookups = lookups;
    this.#epochs = epochs;
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
    for (let slot = this.#free; slot !== 0; slot = this.#lookups[slot]!) {
      assert(this.#inodes[slot] === undefined, 'a free slot has no inode');
    }
  }
}
