/** inotify(7): watches on directories and files of the host. */
import { pathArgument, Scratch } from './memory.ts';
import { Errno } from '../abi/errno.ts';
import { fail } from '../kernel/error.ts';
import { libc, orFail, outcome } from './native.ts';
import { tryRead } from './io.ts';

export const IN_ACCESS = 0x1;
export const IN_MODIFY = 0x2;
export const IN_ATTRIB = 0x4;
export const IN_CLOSE_WRITE = 0x8;
export const IN_MOVED_FROM = 0x40;
export const IN_MOVED_TO = 0x80;
export const IN_CREATE = 0x100;
export const IN_DELETE = 0x200;
export const IN_DELETE_SELF = 0x400;
export const IN_MOVE_SELF = 0x800;
export const IN_UNMOUNT = 0x2000;
export const IN_Q_OVERFLOW = 0x4000;
export const IN_IGNORED = 0x8000;
export const IN_ONLYDIR = 0x100_0000;
export const IN_DONT_FOLLOW = 0x200_0000;
export const IN_EXCL_UNLINK = 0x400_0000;
export const IN_ISDIR = 0x4000_0000;

const IN_NONBLOCK = 0o4000;
const IN_CLOEXEC = 0o2000000;

export interface InotifyEvent {
  watch: number;
  /** A set of IN_. */
  mask: number;
  /** Pairs IN_MOVED_FROM with IN_MOVED_TO. */
  cookie: number;
  /** The entry that it is about, one char per byte; '' for the watched object itself. */
  name: string;
}

const initCall = libc('int inotify_init1(int flags)');
const addWatchCall = libc('int inotify_add_watch(int fd, uintptr_t path, uint32_t mask)');
const removeWatchCall = libc('int inotify_rm_watch(int fd, int watch)');
const events = new Scratch(65536);
/** struct inotify_event: i32 wd, u32 mask, cookie, len, then len bytes of name. */
const HEAD_BYTES = 16;

/** A non-blocking inotify descriptor. */
export function inotifyInit(): number {
  return orFail(outcome(initCall(IN_NONBLOCK | IN_CLOEXEC)));
}

/** Watch a path (`/proc/self/fd/N` for a descriptor). The watch, or -errno (-ENOSPC: no more). */
export function tryInotifyAddWatch(fd: number, path: string, mask: number): number {
  return outcome(addWatchCall(fd, pathArgument(path), mask >>> 0));
}

export function tryInotifyRemoveWatch(fd: number, watch: number): number {
  return outcome(removeWatchCall(fd, watch));
}

/** What has happened since the last call; empty if nothing. */
export function inotifyRead(fd: number): InotifyEvent[] {
  const length = tryRead(fd, events.address, events.byteCount);
  if (length === -Errno.EAGAIN || length === -Errno.EINTR) return [];
  if (length < 0) fail(-length);
  return decodeEvents(length);
}

function decodeEvents(length: number): InotifyEvent[] {
  const decoded: InotifyEvent[] = [];
  for (let at = 0; at + HEAD_BYTES <= length;) {
    const word = at >>> 2;
    const nameBytes = events.u32[word + 3]!;
    const start = at + HEAD_BYTES;
    let end = start;
    while (end < start + nameBytes && events.buffer[end] !== 0) end++;
    decoded.push({
      watch: events.i32[word]!,
      mask: events.u32[word + 1]!,
      cookie: events.u32[word + 2]!,
      name: events.buffer.latin1Slice(start, end),
    });
    at = start + nameBytes;
  }
  return decoded;
}
