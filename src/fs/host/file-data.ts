/**
 * Data of regular files: straight between the host's page cache and the caller's memory.
 *
 * Reading never waits on the spot if it can be told beforehand: what is not in the host's page cache
 * is read by a Wait (RWF_NOWAIT says EAGAIN). Writing goes into the page cache and is made at once.
 * Syncing is a Wait unless it is short (sync-pace.ts).
 */
import { Errno } from '../../abi/errno.ts';
import { O_DIRECTORY, O_NOFOLLOW, O_RDONLY, SEEK_DATA, SEEK_HOLE } from '../../abi/fcntl.ts';
import { S_IFDIR, S_IFREG } from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import { monotonicNs } from '../../sys/clock.ts';
import {
  type CopyRange,
  copyFileRangeWait,
  fdatasyncWait,
  fsyncWait,
  preadWait,
  tryCopyFileRange,
  tryFallocate,
  tryFdatasync,
  tryFsync,
  tryLseek,
  tryPread,
  tryPreadNowait,
  tryPwrite,
  tryWaitForRange,
} from '../../sys/io.ts';
import { addressOf } from '../../sys/memory.ts';
import { orFail } from '../../sys/native.ts';
import { tryClose } from '../../sys/open.ts';
import type { IoBuffer } from '../../vfs/inode-operations.ts';
import { dataFd } from './anchor.ts';
import { FdAccess } from './descriptor-cache.ts';
import type { HostInode } from './host-inode.ts';
import { isLackOfSpace } from './host-process.ts';
import { COPY_ON_THE_SPOT_BYTES } from './limits.ts';

export function* readFile(inode: HostInode, buffer: IoBuffer, position: number): Task<number> {
  const address = addressOf(buffer.bytes) + buffer.offset;
  let done = 0;
  while (done < buffer.length) {
    const fd = dataFd(inode, FdAccess.Read);
    const left = buffer.length - done;
    let result = readCached(inode, fd, address + done, left, position + done);
    if (result === -Errno.EAGAIN) {
      const wait = preadWait(fd, address + done, left, position + done, buffer.bytes);
      result = yield* whileHeld(inode, wait);
    }
    if (result === -Errno.EINTR) continue;
    if (result < 0) fail(-result);
    // Only at the end: a short read may as well mean that the rest is not cached.
    if (result === 0) break;
    done += result;
  }
  return done;
}

/** What is there without a wait; -EAGAIN if that is nothing. */
function readCached(
  inode: HostInode,
  fd: number,
  address: number,
  length: number,
  position: number,
): number {
  if (!inode.fs.hasNowait) return tryPread(fd, address, length, position);
  const result = tryPreadNowait(fd, address, length, position);
  if (result !== -Errno.EOPNOTSUPP) return result;
  inode.fs.hasNowait = false;
  return tryPread(fd, address, length, position);
}

/** Run a wait on its descriptor, which stays open meanwhile. */
function* whileHeld(inode: HostInode, wait: Task<number>): Task<number> {
  const cache = inode.fs.process.descriptors;
  const { open } = inode;
  cache.hold(open);
  try {
    return yield* wait;
  } finally {
    cache.release(open);
  }
}

export function writeFile(inode: HostInode, buffer: IoBuffer, position: number): number {
  const fd = dataFd(inode, FdAccess.Write);
  const address = addressOf(buffer.bytes) + buffer.offset;
  let done = 0;
  while (done < buffer.length) {
    const result = tryPwrite(fd, address + done, buffer.length - done, position + done);
    if (result === -Errno.EINTR) continue;
    if (result < 0) {
      if (isLackOfSpace(-result) && inode.fs.process.settle()) continue;
      if (done > 0) break;
      fail(-result);
    }
    done += result;
  }
  inode.fs.syncs.wrote(done);
  return done;
}

export function* syncFile(inode: HostInode, dataOnly: boolean): Task<void> {
  if (inode.type === S_IFDIR) {
    yield* syncDirectory(inode);
    return;
  }
  if (inode.type !== S_IFREG) fail(Errno.EINVAL);
  const fd = dataFd(inode, FdAccess.Read);
  const { syncs } = inode.fs;
  const onTheSpot = syncs.isShort;
  syncs.begin();
  const start = monotonicNs();
  let result: number;
  if (onTheSpot) result = dataOnly ? tryFdatasync(fd) : tryFsync(fd);
  else result = yield* whileHeld(inode, dataOnly ? fdatasyncWait(fd) : fsyncWait(fd));
  syncs.took(monotonicNs() - start);
  orFail(result);
}

/**
 * The file's error record is looked at when a range is waited for, and a range beyond its end has no
 * page to wait for. A descriptor opened after the error still sees it, if nobody has yet.
 */
export function hasWritebackError(inode: HostInode): boolean {
  const result = tryWaitForRange(dataFd(inode, FdAccess.Read), Number.MAX_SAFE_INTEGER, 1);
  return result === -Errno.EIO || result === -Errno.ENOSPC || result === -Errno.EDQUOT;
}

function* syncDirectory(inode: HostInode): Task<void> {
  const fd = openListing(inode);
  try {
    orFail(yield* fsyncWait(fd));
  } finally {
    tryClose(fd);
  }
}

/** A descriptor of a directory that is good for more than being a place; the caller closes it. */
export function openListing(inode: HostInode): number {
  const at = inode.directory().descriptor();
  const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
  return orFail(inode.fs.process.descriptors.openat(at, '.', flags));
}

export function fallocateFile(
  inode: HostInode,
  mode: number,
  position: number,
  length: number,
): void {
  for (;;) {
    const result = tryFallocate(dataFd(inode, FdAccess.Write), mode, position, length);
    if (result !== -Errno.EINTR) return void orFail(result);
  }
}

export function seekFile(inode: HostInode, position: number, whence: number): number {
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) fail(Errno.EINVAL);
  return orFail(tryLseek(dataFd(inode, FdAccess.Read), position, whence));
}

/** What and where to of a copy. */
export interface Copying {
  readonly position: number;
  readonly target: HostInode;
  readonly targetPosition: number;
  readonly length: number;
}

/** As much as one call of the host copies; big ones wait. */
export function* copyFile(inode: HostInode, copying: Copying): Task<number> {
  const { target, length } = copying;
  const cache = inode.fs.process.descriptors;
  target.fs.syncs.wrote(length);
  const from = dataFd(inode, FdAccess.Read);
  const { open } = inode;
  cache.hold(open);
  try {
    const to = dataFd(target, FdAccess.Write);
    const copy: CopyRange = {
      from,
      fromPosition: copying.position,
      to,
      toPosition: copying.targetPosition,
      length,
    };
    if (length <= COPY_ON_THE_SPOT_BYTES) return orFail(tryCopyFileRange(copy));
    return orFail(yield* whileHeld(target, copyFileRangeWait(copy)));
  } finally {
    cache.release(open);
  }
}
