/**
 * Owner, mode and times: fchownat, fchmodat2, utimensat. Of a name, which is not followed, or of what
 * the descriptor itself means where the name is '': O_PATH ones too.
 */
import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_NOFOLLOW, O_PATH } from '../abi/fcntl.ts';
import { Errno } from '../abi/errno.ts';
import { isLnk } from '../abi/mode.ts';
import { pathArgument, Scratch } from './memory.ts';
import { libc, outcome, trySyscall } from './native.ts';
import { tryClose, tryOpenat } from './open.ts';
import { statxMode, tryStatxFd } from './statx.ts';

/** utimensat(2): the nanoseconds that mean "the filesystem's clock" and "leave it". */
export const UTIME_NOW = 0x3fff_ffff;
export const UTIME_OMIT = 0x3fff_fffe;
/** An owner or group that fchownat leaves alone. */
export const KEEP_OWNER = 0xffff_ffff;

const SYS_FCHMODAT2 = 452;

const fchownatCall = libc(
  'int fchownat(int dir, uintptr_t path, uint32_t uid, uint32_t gid, int flags)',
);
const fchmodatCall = libc('int fchmodat(int dir, uintptr_t path, uint32_t mode, int flags)');
const utimensatCall = libc('int utimensat(int dir, uintptr_t path, uintptr_t times, int flags)');

/** struct timespec[2]: atime, mtime, each i64 seconds and i64 nanoseconds. */
const times = new Scratch(32);
/** False once the kernel has said that it does not know fchmodat2 (before Linux 6.6). */
let hasFchmodat2 = true;

/** Make this module take the way of kernels before 6.6, or let it find out again. For tests. */
export function pretendNoFchmodat2(pretend: boolean): void {
  hasFchmodat2 = !pretend;
}

const atFlags = (name: string): number => (name === '' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW);

/** 0 or -errno. KEEP_OWNER keeps. */
export function tryFchownat(dir: number, name: string, uid: number, gid: number): number {
  return outcome(fchownatCall(dir, pathArgument(name), uid, gid, atFlags(name)));
}

/** chmod(2). EOPNOTSUPP: it is a symlink. */
export function tryFchmodat(dir: number, name: string, mode: number): number {
  if (hasFchmodat2) {
    const result = trySyscall(SYS_FCHMODAT2, dir, pathArgument(name), mode, atFlags(name));
    if (result !== -Errno.ENOSYS) return result;
    hasFchmodat2 = false;
  }
  if (name === '') return chmodByMagicLink(dir, mode);
  const fd = tryOpenat(dir, name, O_PATH | O_NOFOLLOW);
  if (fd < 0) return fd;
  const result = chmodByMagicLink(fd, mode);
  tryClose(fd);
  return result;
}

/** The way of kernels without fchmodat2. Some of those change a symlink's mode; we never do. */
function chmodByMagicLink(fd: number, mode: number): number {
  const result = tryStatxFd(fd);
  if (result < 0) return result;
  if (isLnk(statxMode())) return -Errno.EOPNOTSUPP;
  return outcome(fchmodatCall(AT_FDCWD, pathArgument(`/proc/self/fd/${fd}`), mode, 0));
}

/** A pair of times for utimensat; nanoseconds may be UTIME_NOW or UTIME_OMIT. */
export interface Times {
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
}

function putTimes(value: Times): number {
  times.putU64(0, value.atimeSec);
  times.putU64(2, value.atimeNsec);
  times.putU64(4, value.mtimeSec);
  times.putU64(6, value.mtimeNsec);
  return times.address;
}

/** utimensat(2). 0 or -errno. */
export function tryUtimensat(dir: number, name: string, value: Times): number {
  const at = putTimes(value);
  const result = outcome(utimensatCall(dir, pathArgument(name), at, atFlags(name)));
  if (name !== '' || result !== -Errno.EINVAL) return result;
  // Before Linux 5.8 there is no AT_EMPTY_PATH here.
  return outcome(utimensatCall(AT_FDCWD, pathArgument(`/proc/self/fd/${dir}`), at, 0));
}
