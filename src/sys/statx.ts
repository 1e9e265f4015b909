/**
 * statx(2), decoded into the Stat record.
 *
 * Fields of 64 bits are exact up to 2^53: sizes and counts beyond do not occur; inode numbers beyond
 * are folded (memory.ts, foldIdentity).
 */
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW } from '../abi/fcntl.ts';
import type { Stat } from '../abi/stat.ts';
import { pathArgument, Scratch } from './memory.ts';
import { libc, orFail, outcome } from './native.ts';

/** STATX_BASIC_STATS | STATX_BTIME. */
const MASK = 0x7ff | 0x800;
const STATX_BYTES = 256;
/** stx_attributes: the root of a mount. */
const STATX_ATTR_MOUNT_ROOT = 0x2000;

const statxCall = libc(
  'int statx(int dir, uintptr_t path, int flags, uint32_t mask, uintptr_t buffer)',
);
const record = new Scratch(STATX_BYTES);

/**
 * statx(2) of a name, into scratch memory: 0 or -errno. What it found is read by `statxMode`,
 * `statxIno` or `statxRecord` before the next call here.
 */
export function tryStatxAt(dir: number, path: string, flags: number): number {
  return outcome(statxCall(dir, pathArgument(path), flags, MASK, record.address));
}

/** statx(2) of a name that is not followed, or of what `dir` itself means where it is ''. */
export function tryStatx(dir: number, name: string): number {
  return tryStatxAt(dir, name, name === '' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW);
}

/** statx(2) of an open descriptor, O_PATH too. 0 or -errno. */
export function tryStatxFd(fd: number): number {
  return tryStatxAt(fd, '', AT_EMPTY_PATH);
}

export const statxMode = (): number => record.u16[14]!;
export const statxIno = (): number => record.identity(8);
export const statxUid = (): number => record.u32[5]!;
export const statxGid = (): number => record.u32[6]!;
/** True if what was found is the root of a mount. */
export const statxIsMountRoot = (): boolean => (record.u32[2]! & STATX_ATTR_MOUNT_ROOT) !== 0;
/** The device that it lies on, as one number. */
export const statxDevice = (): number => record.u32[34]! * 0x10_0000 + record.u32[35]!;

/** The whole of what the last statx found. */
export function statxRecord(): Stat {
  const u32 = record.u32;
  return {
    ino: record.identity(8),
    mode: record.u16[14]!,
    nlink: u32[4]!,
    uid: u32[5]!,
    gid: u32[6]!,
    size: record.u64(10),
    blocks: record.u64(12),
    blksize: u32[1]!,
    rdevMajor: u32[32]!,
    rdevMinor: u32[33]!,
    devMajor: u32[34]!,
    devMinor: u32[35]!,
    atimeSec: record.i64(16),
    atimeNsec: u32[18]!,
    mtimeSec: record.i64(28),
    mtimeNsec: u32[30]!,
    ctimeSec: record.i64(24),
    ctimeNsec: u32[26]!,
    btimeSec: record.i64(20),
    btimeNsec: u32[22]!,
  };
}

/** statx(2) of a name that is not followed, or of what `dir` itself means where it is ''. */
export function statx(dir: number, name: string): Stat {
  orFail(tryStatx(dir, name));
  return statxRecord();
}

/** statx(2) of an open descriptor, O_PATH too. */
export function statxFd(fd: number): Stat {
  orFail(tryStatxFd(fd));
  return statxRecord();
}

/** statx(2) of a path that the user gave: links are followed. */
export function statxPath(dir: number, path: string): Stat {
  orFail(tryStatxAt(dir, path, 0));
  return statxRecord();
}
