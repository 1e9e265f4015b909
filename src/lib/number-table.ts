/**
 * A table of objects by the number that each carries as `ino`: what a Map<number, T> does, at 11 to 16
 * bytes an entry where that takes 28 to 56.
 *
 * Open addressing, linear probing. T is its own key, so a slot is one reference.
 *
 * T1. An object is entered once, under the number it has; that number does not change meanwhile.
 * T2. From an object's home slot to its own there is no empty slot: removal closes the gap it makes.
 * T3. Between an eighth and three quarters of the slots are used, but of the least capacity.
 */
import { assert } from './assert.ts';

export interface Numbered {
  /** An integer from 0 to 2^53. */
  readonly ino: number;
}

const CAPACITY_MIN = 64;
const WORD = 0x1_0000_0000;

export class NumberTable<T extends Numbered> {
  #slots: (T | undefined)[] = emptySlots(CAPACITY_MIN);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(ino: number): T | undefined {
    return this.#slots[this.#find(ino)];
  }

  has(ino: number): boolean {
    return this.get(ino) !== undefined;
  }

  /** In the place of what has the same number, if anything has. */
  set(object: T): void {
    let slot = this.#find(object.ino);
    if (this.#slots[slot] === undefined) {
      if ((this.#size + 1) * 4 > this.#slots.length * 3) {
        this.#resize(this.#slots.length + (this.#slots.length >>> 1));
        slot = this.#find(object.ino);
      }
      this.#size++;
    }
    this.#slots[slot] = object;
  }

  /** True if there was one. */
  delete(ino: number): boolean {
    const slot = this.#find(ino);
    if (this.#slots[slot] === undefined) return false;
    this.#close(slot);
    this.#size--;
    const capacity = this.#slots.length;
    if (capacity > CAPACITY_MIN && this.#size * 8 < capacity) this.#resize(capacity >>> 1);
    return true;
  }

  /** All, in no order. The table must not change meanwhile. */
  *values(): Generator<T> {
    for (const object of this.#slots) if (object !== undefined) yield object;
  }

  /** The slot of that number, or the empty one where it would be. */
  #find(ino: number): number {
    const slots = this.#slots;
    for (let slot = homeOf(ino, slots.length); ; slot = slot + 1 === slots.length ? 0 : slot + 1) {
      const object = slots[slot];
      if (object === undefined || object.ino === ino) return slot;
    }
  }

  /** Empty a slot, and move what follows and would not be found any more (T2). */
  #close(slot: number): void {
    const slots = this.#slots;
    const capacity = slots.length;
    let gap = slot;
    for (let at = gap; ;) {
      at = at + 1 === capacity ? 0 : at + 1;
      const object = slots[at];
      if (object === undefined) break;
      const home = homeOf(object.ino, capacity);
      // Its way from home leads over the gap: measured backwards from where it is, around the end.
      const wayHome = at >= home ? at - home : at - home + capacity;
      const wayToGap = at >= gap ? at - gap : at - gap + capacity;
      if (wayHome < wayToGap) continue;
      slots[gap] = object;
      gap = at;
    }
    slots[gap] = undefined;
  }

  #resize(capacity: number): void {
    const before = this.#slots;
    this.#slots = emptySlots(Math.max(capacity, CAPACITY_MIN));
    for (const object of before) {
      if (object !== undefined) this.#slots[this.#find(object.ino)] = object;
    }
  }

  /** T1 to T3. For tests. */
  check(): void {
    const slots = this.#slots;
    let count = 0;
    for (const [slot, object] of slots.entries()) {
      if (object === undefined) continue;
      count++;
      assert(this.#find(object.ino) === slot, 'an object is found where it is');
    }
    assert(count === this.#size, 'the size is right');
    assert(count * 4 <= slots.length * 3, 'a quarter of the slots is empty');
    assert(slots.length <= CAPACITY_MIN * 2 || count * 8 >= slots.length >>> 1, 'it has shrunk');
  }
}

/** Of the wanted length at once: an array that is grown leaves its smaller forms as garbage. */
function emptySlots<T>(capacity: number): (T | undefined)[] {
  return new Array<T | undefined>(capacity).fill(undefined);
}

/** The numbers of neighbours in a directory are neighbours: multiplied, they come to lie far apart. */
function homeOf(ino: number, capacity: number): number {
  const high = (ino / WORD) | 0;
  const hash = Math.imul((ino | 0) ^ Math.imul(high, 0x85eb_ca6b), 0x9e37_79b1) >>> 0;
  return Math.floor((hash / WORD) * capacity);
}
