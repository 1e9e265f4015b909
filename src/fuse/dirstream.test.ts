import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DirEntry, Name } from '../vfs/inode-operations.ts';
import { entryAt, firstAfter, keyedNameHash, type Listing, ListingCache, makeListing } from './dirstream.ts';
import { LISTINGS_MAX } from './limits.ts';
import { MemoryFs, MemoryInode } from './testing/memory-fs.ts';

const entriesOf = (names: Iterable<string>): DirEntry[] =>
  [...names].map((name, i) => ({ name: name as Name, ino: i + 10, type: 8 }));

const namesOf = (listing: Listing): string[] =>
  Array.from({ length: listing.count }, (_, i) => entryAt(listing, i).name);

const hash = keyedNameHash(0x1234_5678, 0x9abc_def0);

/** Read a directory in chunks of `size`, while `between` changes it. */
function readInChunks(names: () => Iterable<string>, size: number, between: () => void): string[] {
  const given: string[] = [];
  for (let cookie = 2; ;) {
    const listing = makeListing(entriesOf(names()), hash);
    const first = firstAfter(listing, cookie);
    const chunk = namesOf(listing).slice(first, first + size);
    if (chunk.length === 0) return given;
    given.push(...chunk);
    cookie = listing.cookies[first + chunk.length - 1]!;
    between();
  }
}

test('cookies are ascending, distinct, above the dots and below 2^52', () => {
  const names = Array.from({ length: 100_000 }, (_, i) => `file${i}`);
  const { cookies } = makeListing(entriesOf(names), hash);
  let last = 63;
  for (const cookie of cookies) {
    assert.ok(cookie > last && cookie < 2 ** 52 && Number.isInteger(cookie));
    last = cookie;
  }
});

test('every name that is there all the time is given once, without any cache', () => {
  const stay = Array.from({ length: 1000 }, (_, i) => `stay${i}`);
  const here = new Set([...stay, ...Array.from({ length: 1000 }, (_, i) => `go${i}`)]);
  let round = 0;
  const given = readInChunks(
    () => here,
    7,
    () => {
      for (let i = 0; i < 5; i++) here.delete(`go${(round * 31 + i * 7) % 1000}`);
      here.add(`new${round++}`);
    },
  );
  const counts = new Map<string, number>();
  for (const name of given) counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const name of stay) assert.equal(counts.get(name), 1, name);
  for (const [name, count] of counts) assert.equal(count, 1, name);
});

test('names of equal hash are told apart and can be split over replies', () => {
  const same = (): number => 5;
  const names = Array.from({ length: 60 }, (_, i) => `n${String(i).padStart(2, '0')}`);
  const listing = makeListing(entriesOf(names.toReversed()), same);
  assert.deepEqual(namesOf(listing), names);
  // The other columns go along: the last name was the first entry.
  assert.deepEqual(entryAt(listing, 59), { name: 'n59', ino: 10, type: 8 });
  assert.equal(new Set(listing.cookies).size, 60);
  for (let i = 0; i < 60; i++) assert.equal(firstAfter(listing, listing.cookies[i]!), i + 1);
});

test('the hash depends on its key and on every byte', () => {
  const other = keyedNameHash(1, 2);
  assert.notEqual(hash('abc'), other('abc'));
  assert.notEqual(hash('abc'), hash('acb'));
  assert.notEqual(hash('a'), hash('a\x00'));
  assert.notEqual(hash('\xff'), hash('\xfe'));
});

test('the cache of listings has a limit and drops the one used longest ago', () => {
  const fs = new MemoryFs();
  const cache = new ListingCache();
  const dirs = Array.from(
    { length: LISTINGS_MAX + 1 },
    () => new MemoryInode(fs, 0o040755, { uid: 0, gid: 0 }),
  );
  const listing = makeListing(entriesOf(['a']), hash);
  for (const dir of dirs.slice(0, LISTINGS_MAX)) cache.put(dir, listing);
  assert.ok(cache.find(dirs[0]!) !== undefined);
  cache.put(dirs[LISTINGS_MAX]!, listing);
  assert.equal(cache.size, LISTINGS_MAX);
  assert.ok(cache.find(dirs[0]!) !== undefined, 'just used');
  assert.equal(cache.find(dirs[1]!), undefined, 'oldest');
});
