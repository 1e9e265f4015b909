/**
 * Requests about the bytes of files: OPEN, READ, WRITE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE.
 *
 * W1. A WRITE that the page cache sends (FUSE_WRITE_CACHE) is never answered short: the kernel would
 *     believe that the rest was written too. It is written whole, or it fails.
 */
import { Errno } from '../abi/errno.ts';
import { SEEK_DATA, SEEK_HOLE } from '../abi/fcntl.ts';
import { errnoOf } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import type { Stat } from '../abi/stat.ts';
import { now } from '../sys/clock.ts';
import type { Inode } from '../vfs/inode-operations.ts';
import {
  COPY_FILE_RANGE_IN,
  COPY_FILE_RANGE_OUT,
  FALLOCATE_IN,
  FOPEN_KEEP_CACHE,
  FOPEN_PASSTHROUGH,
  FSYNC_IN,
  FUSE_FSYNC_FDATASYNC,
  FUSE_WRITE_CACHE,
  FUSE_WRITE_KILL_SUIDGID,
  IN_HEADER,
  LSEEK_IN,
  LSEEK_OUT,
  OPEN_OUT,
  READ_IN,
  WRITE_IN,
  WRITE_OUT,
} from './abi.ts';
import type { Door } from './door.ts';
import { flushRangeRecord, invalidateAttributesRecord } from './notify.ts';
import { REPLY_BODY, type Request } from './request.ts';

/** Where the data of a WRITE begins in the request arena. */
const WRITE_DATA = IN_HEADER.bytes + WRITE_IN.bytes;
/** The coarse clock that stamps files moves every 10 ms at HZ=100, and a request takes its time to come. */
const CLOCK_TICK_NSEC_MAX = 50_000_000;
/** More than one copy_file_range(2) copies at a time: MAX_RW_COUNT. */
const COPY_MAX = 0x7fff_f000;

/** OPEN and OPENDIR: never again, where the kernel knows how to do without. */
export function open(door: Door, request: Request): Task<number> | number {
  if (door.agreed('NO_OPEN_SUPPORT')) return -Errno.ENOSYS;
  return openFile(door, request);
}

function* openFile(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const known = door.openFiles.wasPassed(inode);
  yield* putOpen(door, request, 0, inode);
  request.replyBytes = OPEN_OUT.bytes;
  // What it has of the attributes was to be kept for ever, and stores in a map would not show.
  if (!known && door.openFiles.wasPassed(inode)) {
    door.options.notify(invalidateAttributesRecord(request.nodeid));
  }
  return 0;
}

/** Open a file and write the open part of a reply: there is no handle, the node is enough. */
export function* putOpen(door: Door, request: Request, at: number, inode: Inode): Task<void> {
  let backingId = 0;
  if (door.agreed('PASSTHROUGH')) {
    backingId = yield* door.openFiles.open(inode);
    request.opened = inode;
  }
  if (backingId !== 0) door.counters.passedOpens++;
  // What was written past our pages is not in them.
  const keep = door.openFiles.wasPassed(inode) ? 0 : FOPEN_KEEP_CACHE;
  const mode = backingId === 0 ? keep : FOPEN_PASSTHROUGH;
  request.put64(at + OPEN_OUT.at.fh, 0);
  request.put32(at + OPEN_OUT.at.openFlags, mode);
  request.put32(at + OPEN_OUT.at.backingId, backingId);
}

export function release(door: Door, request: Request): number {
  const inode = door.nodes.find(request.nodeid);
  if (inode !== undefined) door.openFiles.release(inode);
  return 0;
}

export function opendir(door: Door, request: Request): number {
  if (door.agreed('NO_OPENDIR_SUPPORT')) return -Errno.ENOSYS;
  request.put64(OPEN_OUT.at.fh, 0);
  request.put32(OPEN_OUT.at.openFlags, FOPEN_KEEP_CACHE);
  request.put32(OPEN_OUT.at.backingId, 0);
  request.replyBytes = OPEN_OUT.bytes;
  return 0;
}

export function* read(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const length = request.u32(READ_IN.at.size);
  if (length > request.replyRoom) return -Errno.EINVAL;
  const position = request.u64(READ_IN.at.offset);
  const buffer = { bytes: request.reply.bytes, offset: REPLY_BODY, length };
  const bytes = yield* inode.read(buffer, position);
  request.replyBytes = bytes;
  door.counters.bytesRead += bytes;
  return 0;
}

export function* write(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const length = request.u32(WRITE_IN.at.size);
  if (WRITE_DATA + length > request.length) return -Errno.EINVAL;
  const position = request.u64(WRITE_IN.at.offset);
  const flags = request.u32(WRITE_IN.at.writeFlags);
  if ((flags & FUSE_WRITE_KILL_SUIDGID) !== 0) yield* killPrivileges(door, request, inode);
  const cached = (flags & FUSE_WRITE_CACHE) !== 0;
  const told = cached ? yield* inode.getattr() : undefined;
  const written = yield* writeWhole(inode, request, position, cached);
  if (told !== undefined) yield* keepMtime(inode, told);
  request.put32(WRITE_OUT.at.size, written);
  request.put32(WRITE_OUT.at.padding, 0);
  request.replyBytes = WRITE_OUT.bytes;
  door.counters.bytesWritten += written;
  return 0;
}

/**
 * Under WRITEBACK_CACHE the mtime is the kernel's: a write from the page cache must not move it. The
 * kernel sends its own afterwards, but only if its clock has ticked since it was told the last one; so
 * a file written in the tick of its creation would come back with another mtime after a remount. Where
 * the tick is over nothing is put back: a crash then leaves a newer mtime, never one older than the data.
 */
function* keepMtime(inode: Inode, told: Stat): Task<void> {
  const { sec, nsec } = now();
  const age = (sec - told.mtimeSec) * 1e9 + (nsec - told.mtimeNsec);
  if (age < 0 || age > CLOCK_TICK_NSEC_MAX) return;
  yield* inode.setattr({ mtime: { sec: told.mtimeSec, nsec: told.mtimeNsec } });
}

/** Write all of it. An error after a part: a plain write is short, a cached one fails (W1). */
function* writeWhole(
  inode: Inode,
  request: Request,
  position: number,
  cached: boolean,
): Task<number> {
  const length = request.u32(WRITE_IN.at.size);
  const { bytes } = request.request;
  let done = 0;
  while (done < length) {
    let count: number;
    try {
      const rest = { bytes, offset: WRITE_DATA + done, length: length - done };
      count = yield* inode.write(rest, position + done);
    } catch (error) {
      if (done > 0 && !cached && errnoOf(error) !== undefined) return done;
      throw error;
    }
    if (count > 0) done += count;
    else if (cached || done === 0) return yield* noProgress();
    else return done;
  }
  return done;
}

// oxlint-disable-next-line require-yield
function* noProgress(): Task<number> {
  // A file that takes nothing and gives no reason.
  throw new Error('a write made no progress');
}

/** The mode has changed under a WRITE, whose reply cannot say so: the kernel is told to ask again. */
function* killPrivileges(door: Door, request: Request, inode: Inode): Task<void> {
  const before = yield* inode.getattr();
  yield* inode.setattr({ killPriv: true });
  const after = yield* inode.getattr();
  if (after.mode !== before.mode) door.options.notify(invalidateAttributesRecord(request.nodeid));
}

export function* fsync(door: Door, request: Request): Task<number> {
  const flags = request.u32(FSYNC_IN.at.fsyncFlags);
  yield* door.node(request).fsync((flags & FUSE_FSYNC_FDATASYNC) !== 0);
  return 0;
}

export function* fallocate(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  if (inode.fallocate === undefined) return -Errno.EOPNOTSUPP;
  const at = FALLOCATE_IN.at;
  const position = request.u64Capped(at.offset);
  const length = request.u64Capped(at.length);
  yield* inode.fallocate(request.u32(at.mode), position, length);
  return 0;
}

export function* lseek(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const whence = request.u32(LSEEK_IN.at.whence);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -Errno.EINVAL;
  if (inode.seek === undefined) return -Errno.ENOSYS;
  const from = request.u64(LSEEK_IN.at.offset);
  const position =
    whence === SEEK_DATA
      ? yield* seekData(door, request.nodeid, inode, from)
      : yield* seekHole(door, request.nodeid, inode, from);
  if (position === undefined) return -Errno.ENXIO;
  request.put64(LSEEK_OUT.at.offset, position);
  request.replyBytes = LSEEK_OUT.bytes;
  return 0;
}

/** seek, with ENXIO as undefined: no data from there on, or from beyond the end. */
function* seekFrom(inode: Inode, position: number, whence: number): Task<number | undefined> {
  try {
    return yield* inode.seek!(position, whence);
  } catch (error) {
    if (errnoOf(error) === Errno.ENXIO) return undefined;
    throw error;
  }
}

/**
 * What is a hole to the filesystem may be data that the page cache has not written yet: the kernel
 * does not write it before it asks. So the hole is flushed, and only the hole: pages of data stay.
 */
function* flushHole(door: Door, nodeid: number, hole: number, end: number | undefined): Task<void> {
  if (door.options.readOnly || end === hole) return;
  using _flush = yield* door.flushLock.lock({});
  yield* door.options.notifyAndWait(flushRangeRecord(nodeid, hole, end ?? Infinity));
}

function* seekData(
  door: Door,
  nodeid: number,
  inode: Inode,
  from: number,
): Task<number | undefined> {
  const found = yield* seekFrom(inode, from, SEEK_DATA);
  if (found === from) return found;
  yield* flushHole(door, nodeid, from, found);
  return yield* seekFrom(inode, from, SEEK_DATA);
}

function* seekHole(
  door: Door,
  nodeid: number,
  inode: Inode,
  from: number,
): Task<number | undefined> {
  // The end of a file that grows in the page cache lies beyond the end we know: a hole at the end.
  let hole = yield* seekFrom(inode, from, SEEK_HOLE);
  for (;;) {
    yield* flushHole(door, nodeid, hole ?? from, yield* seekFrom(inode, hole ?? from, SEEK_DATA));
    const found = yield* seekFrom(inode, from, SEEK_HOLE);
    // Data was written where the hole was: the next hole may be data, too.
    if (found === hole) return found;
    hole = found;
  }
}

function* copyRange(door: Door, request: Request): Task<number> {
  const at = COPY_FILE_RANGE_IN.at;
  const source = door.node(request);
  const target = door.nodes.find(request.id(at.nodeidOut));
  if (target === undefined) return -Errno.ESTALE;
  if (source.copyRange === undefined) return -Errno.EOPNOTSUPP;
  if (request.u32(at.flags) !== 0) return -Errno.EINVAL;
  const length = Math.min(request.u64Capped(at.len), COPY_MAX);
  return yield* source.copyRange(request.u64(at.offIn), target, request.u64(at.offOut), length);
}

/** The older form: the count comes back in 32 bits. */
export function* copyFileRange(door: Door, request: Request): Task<number> {
  const copied = yield* copyRange(door, request);
  if (copied < 0) return copied;
  request.put32(WRITE_OUT.at.size, copied);
  request.put32(WRITE_OUT.at.padding, 0);
  request.replyBytes = WRITE_OUT.bytes;
  return 0;
}

export function* copyFileRange64(door: Door, request: Request): Task<number> {
  const copied = yield* copyRange(door, request);
  if (copied < 0) return copied;
  request.put64(COPY_FILE_RANGE_OUT.at.bytesCopied, copied);
  request.replyBytes = COPY_FILE_RANGE_OUT.bytes;
  return 0;
}

export function* syncfs(door: Door, _request: Request): Task<number> {
  yield* door.fs.syncfs();
  return 0;
}
