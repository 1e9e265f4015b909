/**
 * Directory streams without a handle: an order of names that a cookie alone can continue.
 *
 * OPENDIR never comes, so a READDIR brings nothing but the directory and the *cookie* of the last
 * entry the reader took. The cookie of an entry is made from its name: a keyed hash of 46 bits, and 6
 * bits that count entries of equal hash. Entries are given in the order of their cookies; reading
 * goes on with the first cookie above the given one.
 *
 * D1. An entry that is there all the time is given exactly once, whatever is created or removed
 *     meanwhile, with or without the listing cache: its cookie depends on its name, not its place.
 * D2. Cookies 0, 1 and 2 are the start, `.` and `..`; a name's cookie is at least 64 and below 2^52.
 * D3. A listing is immutable. The cache only saves reading a directory again for each chunk of it.
 *     It keeps columns of bytes, not entries: objects that live for as long as a directory is worked
 *     through come to lie between the inodes that are made meanwhile, and leave holes there.
 * D4. More than 64 names of equal hash share the last cookie and could be lost between two replies;
 *     the hash is keyed by a number of this mount, so that nobody can make such names on purpose.
 *     Two names of equal hash swap counts when one goes or comes: then D1 is broken for the pair, once
 *     in 2^46 pairs and only if that happens between two chunks.
 *
 * See docs/decisions/0002-readdir-cookies.md. cf. fs/ext4/hash.c
 */
import { assert } from '../lib/assert.ts';
import { latin1Buffer, type Latin1Buffer } from '../sys/memory.ts';
import type { DirEntry, Inode, Name } from '../vfs/inode-operations.ts';
import { LISTING_ENTRIES_MAX, LISTINGS_MAX } from './limits.ts';

export const COOKIE_DOT = 1;
export const COOKIE_DOTDOT = 2;
/** Counts of equal hashes: 6 bits. */
const EQUAL_MAX = 64;
const HIGH_BITS_MASK = 0x3fff;

export type NameHash = (name: string) => number;

/** A hash of 46 bits, never 0, keyed by two 32-bit numbers: two multiplicative streams, then mixed. */
export function keyedNameHash(key0: number, key1: number): NameHash {
  return (name) => {
    let a = key0 | 0;
    let b = key1 | 0;
    for (let i = 0; i < name.length; i++) {
      const c = name.charCodeAt(i);
      a = Math.imul(a ^ c, 0x9e37_79b1);
      a ^= a >>> 15;
      b = Math.imul(b + c, 0x85eb_ca77);
      b ^= b >>> 13;
    }
    a = Math.imul(a ^ (b >>> 16) ^ name.length, 0x85eb_ca6b);
    a ^= a >>> 13;
    b = Math.imul(b ^ a, 0xc2b2_ae35);
    b ^= b >>> 16;
    const hash = (a >>> 0) + (b & HIGH_BITS_MASK) * 0x1_0000_0000;
    return hash === 0 ? 1 : hash;
  };
}

/** A directory's entries as of one moment, in the order of their cookies. */
export interface Listing {
  readonly count: number;
  /** The names one after the other, and where each ends. */
  readonly text: Latin1Buffer;
  readonly ends: Uint32Array;
  readonly inos: Float64Array;
  /** DT_ values. */
  readonly types: Uint8Array;
  /** Ascending. */
  readonly cookies: Float64Array;
}

export function entryAt(listing: Listing, index: number): DirEntry {
  const { text, ends, inos, types } = listing;
  const start = index === 0 ? 0 : ends[index - 1]!;
  const name = text.latin1Slice(start, ends[index]!) as Name;
  return { name, ino: inos[index]!, type: types[index]! };
}

/** Sort entries by cookie. */
export function makeListing(entries: DirEntry[], hash: NameHash): Listing {
  const count = entries.length;
  const hashes = new Float64Array(count);
  const order = new Uint32Array(count);
  let textBytes = 0;
  for (let i = 0; i < count; i++) {
    textBytes += entries[i]!.name.length;
    hashes[i] = hash(entries[i]!.name);
    order[i] = i;
  }
  order.sort((a, b) => hashes[a]! - hashes[b]! || (entries[a]!.name < entries[b]!.name ? -1 : 1));
  const cookies = new Float64Array(count);
  const ends = new Uint32Array(count);
  const text = latin1Buffer(new ArrayBuffer(textBytes));
  const inos = new Float64Array(count);
  const types = new Uint8Array(count);
  let equal = 0;
  let end = 0;
  for (let i = 0; i < count; i++) {
    const from = order[i]!;
    const { name, ino, type } = entries[from]!;
    for (let at = 0; at < name.length; at++) text[end++] = name.charCodeAt(at);
    ends[i] = end;
    inos[i] = ino;
    types[i] = type;
    equal = i > 0 && hashes[order[i - 1]!] === hashes[from] ? equal + 1 : 0;
    cookies[i] = hashes[from]! * EQUAL_MAX + Math.min(equal, EQUAL_MAX - 1);
  }
  return { count, text, ends, inos, types, cookies };
}

/** The index of the first entry whose cookie is above the given one. */
export function firstAfter(listing: Listing, cookie: number): number {
  const { cookies } = listing;
  let low = 0;
  let high = cookies.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (cookies[middle]! > cookie) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The listings read last, one a directory. */
export class ListingCache {
  /** In order of use, the oldest first. */
  readonly #listings = new Map<Inode, Listing>();
  #entries = 0;

  find(dir: Inode): Listing | undefined {
    const listing = this.#listings.get(dir);
    if (listing === undefined) return undefined;
    this.#listings.delete(dir);
    this.#listings.set(dir, listing);
    return listing;
  }

  put(dir: Inode, listing: Listing): void {
    this.drop(dir);
    this.#listings.set(dir, listing);
    this.#entries += listing.count;
    for (const oldest of this.#listings.keys()) {
      if (this.#listings.size <= LISTINGS_MAX && this.#entries <= LISTING_ENTRIES_MAX) break;
      this.drop(oldest);
    }
    assert(this.#entries >= 0, 'entries are counted right');
  }

  /** The directory has changed, is forgotten, or was read to its end. */
  drop(dir: Inode): void {
    const listing = this.#listings.get(dir);
    if (listing === undefined) return;
    this.#listings.delete(dir);
    this.#entries -= listing.count;
  }

  /** Everything has changed. */
  clear(): void {
    this.#listings.clear();
    this.#entries = 0;
  }

  get size(): number {
    return this.#listings.size;
  }
}
