/**
 * READDIR and READDIRPLUS, without a handle: see dirstream.ts for what a cookie is.
 *
 * R1. Reading from the start reads the directory anew; going on uses the listing of the start if it is
 *     still there. A listing is not changed by what happens meanwhile: an entry that is gone may still
 *     be given by READDIR, as POSIX allows, but READDIRPLUS looks each up and gives only what is there.
 */
import { errnoOf } from '../kernel/error.ts';
import { DT_DIR } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import type { DirEntry, Inode, Name } from '../vfs/inode-operations.ts';
import { DIRENT, DIRENTPLUS, ENTRY_OUT, READ_IN } from './abi.ts';
import { putEntry } from './attr.ts';
import {
  COOKIE_DOT,
  COOKIE_DOTDOT,
  entryAt,
  firstAfter,
  type Listing,
  makeListing,
} from './dirstream.ts';
import type { Door } from './door.ts';
import { PLUS_ENTRIES_MAX } from './limits.ts';
import type { Request } from './request.ts';

/** What libfuse calls FUSE_UNKNOWN_INO: a number that is not 0, which would hide the entry. */
const UNKNOWN_INO = 0xffff_ffff;
const align8 = (bytes: number): number => (bytes + 7) & ~7;

/** An inode whose lookup is counted, and its attributes. */
interface Known {
  readonly nodeid: number;
  readonly stat: Stat;
}

/** A reply being filled. */
interface Chunk {
  readonly door: Door;
  readonly request: Request;
  readonly plus: boolean;
  /** Bytes the reader has room for. */
  readonly room: number;
}

export function* readdir(door: Door, request: Request): Task<number> {
  return yield* list(door, request, false);
}

export function* readdirplus(door: Door, request: Request): Task<number> {
  return yield* list(door, request, true);
}

function* list(door: Door, request: Request, plus: boolean): Task<number> {
  const dir = door.node(request);
  const cookie = request.u64Capped(READ_IN.at.offset);
  const room = Math.min(request.u32(READ_IN.at.size), request.replyRoom);
  const chunk: Chunk = { door, request, plus, room };
  const listing = yield* listingFor(door, dir, cookie);
  if (cookie < COOKIE_DOTDOT) yield* putDots(chunk, dir, cookie);
  yield* putEntries(chunk, dir, listing, firstAfter(listing, cookie));
  // The reader has come to the end and will not come back for this listing.
  if (request.replyBytes === 0) door.listings.drop(dir);
  return 0;
}

function* listingFor(door: Door, dir: Inode, cookie: number): Task<Listing> {
  if (cookie > 0) {
    const kept = door.listings.find(dir);
    if (kept !== undefined) return kept;
  }
  const listing = makeListing(yield* dir.readdir(), door.nameHash);
  door.listings.put(dir, listing);
  return listing;
}

/** Look a name up and count the lookup before anything else can run (serve-names.ts, S1). */
function* rememberEntry(door: Door, dir: Inode, name: Name): Task<Known | undefined> {
  if (dir.lookupWithStat !== undefined) {
    const entry = yield* dir.lookupWithStat(name);
    if (entry === undefined) return undefined;
    return { nodeid: door.nodes.remember(entry.inode), stat: entry.stat };
  }
  const inode = yield* dir.lookup(name);
  if (inode === undefined) return undefined;
  const nodeid = door.nodes.remember(inode);
  try {
    return { nodeid, stat: yield* inode.getattr() };
  } catch (error) {
    door.nodes.forget(nodeid, 1);
    throw error;
  }
}

function* putDots(chunk: Chunk, dir: Inode, cookie: number): Task<void> {
  const { ino } = yield* dir.getattr();
  if (cookie < COOKIE_DOT) putEntryAt(chunk, { name: '.', ino, type: DT_DIR }, COOKIE_DOT);
  putEntryAt(chunk, { name: '..', ino: dir.parentIno ?? ino, type: DT_DIR }, COOKIE_DOTDOT);
}

function* putEntries(chunk: Chunk, dir: Inode, listing: Listing, first: number): Task<void> {
  for (let i = first; i < listing.count; i++) {
    const entry = entryAt(listing, i);
    if (!fits(chunk, entry.name)) return;
    const cookie = listing.cookies[i]!;
    if (!chunk.plus || i >= PLUS_ENTRIES_MAX) putEntryAt(chunk, entry, cookie);
    else yield* putEntryPlus(chunk, dir, entry, cookie);
  }
}

function entryBytes(chunk: Chunk, name: string): number {
  return align8((chunk.plus ? DIRENTPLUS.bytes : DIRENT.bytes) + name.length);
}

function fits(chunk: Chunk, name: string): boolean {
  return chunk.request.replyBytes + entryBytes(chunk, name) <= chunk.room;
}

/** One entry without a lookup, if there is room. */
function putEntryAt(
  chunk: Chunk,
  entry: Omit<DirEntry, 'name'> & { name: string },
  cookie: number,
): void {
  const { request } = chunk;
  if (!fits(chunk, entry.name)) return;
  let at = request.replyBytes;
  if (chunk.plus) {
    request.clear(at, ENTRY_OUT.bytes);
    at += ENTRY_OUT.bytes;
  }
  putDirent(request, at, entry, cookie);
  request.replyBytes += entryBytes(chunk, entry.name);
}

function putDirent(
  request: Request,
  at: number,
  entry: Omit<DirEntry, 'name'> & { name: string },
  cookie: number,
): void {
  const count = entry.name.length;
  request.put64(at + DIRENT.at.ino, entry.ino === 0 ? UNKNOWN_INO : entry.ino);
  request.put64(at + DIRENT.at.off, cookie);
  request.put32(at + DIRENT.at.namelen, count);
  request.put32(at + DIRENT.at.type, entry.type);
  // The padding up to the next entry: the arena holds bytes of older replies.
  const end = at + DIRENT.bytes + count;
  if (align8(end) !== end) request.put64(align8(end) - 8, 0);
  request.putText(at + DIRENT.bytes, entry.name);
}

/** One entry with its lookup; nothing if it is gone. The kernel then knows the inode once more. */
function* putEntryPlus(chunk: Chunk, dir: Inode, entry: DirEntry, cookie: number): Task<void> {
  const { door, request } = chunk;
  let known: Known | undefined;
  try {
    known = yield* rememberEntry(door, dir, entry.name);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    // The name is there, the object cannot be read: the name is shown, a lookup will say why.
    putEntryAt(chunk, entry, cookie);
    return;
  }
  if (known === undefined) return;
  const { nodeid, stat } = known;
  const at = request.replyBytes;
  const attrSeconds = door.attrSeconds(request, door.nodes.find(nodeid));
  putEntry(request, at, nodeid, stat, attrSeconds);
  const { ino } = stat;
  putDirent(request, at + ENTRY_OUT.bytes, { name: entry.name, ino, type: entry.type }, cookie);
  request.replyBytes += entryBytes(chunk, entry.name);
  request.handedOut.push(nodeid);
}
