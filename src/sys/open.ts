/** Descriptors from names: openat(2), openat2(2), close(2), dup3(2), umask(2). */
import { O_CLOEXEC } from '../abi/fcntl.ts';
import { pathArgument, Scratch } from './memory.ts';
import { libc, orFail, outcome, trySyscall } from './native.ts';

/** openat2(2): path resolution may not leave the directory, follow links or cross mounts. */
export const RESOLVE_NO_XDEV = 0x01;
export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_BENEATH = 0x08;
export const RESOLVE_IN_ROOT = 0x10;

const SYS_OPENAT2 = 437;
/** struct open_how: u64 flags, mode, resolve. */
const OPEN_HOW_BYTES = 24;

const openatCall = libc('int openat(int dir, uintptr_t path, int flags, uint32_t mode)');
const closeCall = libc('int close(int fd)');
const dup3Call = libc('int dup3(int from, int to, int flags)');
const umaskCall = libc('uint32_t umask(uint32_t mask)');
const how = new Scratch(OPEN_HOW_BYTES);

/** openat(2), always with O_CLOEXEC. A descriptor or -errno. */
export function tryOpenat(dir: number, path: string, flags: number, mode = 0): number {
  return outcome(openatCall(dir, pathArgument(path), flags | O_CLOEXEC, mode));
}

export function openat(dir: number, path: string, flags: number, mode = 0): number {
  return orFail(tryOpenat(dir, path, flags, mode));
}

/** openat2(2), always with O_CLOEXEC. A descriptor or -errno. `resolve` is a set of RESOLVE_. */
export function tryOpenat2(
  dir: number,
  path: string,
  flags: number,
  resolve: number,
  mode = 0,
): number {
  how.putU64(0, (flags | O_CLOEXEC) >>> 0);
  how.putU64(2, mode);
  how.putU64(4, resolve);
  return trySyscall(SYS_OPENAT2, dir, pathArgument(path), how.address, OPEN_HOW_BYTES);
}

export function openat2(
  dir: number,
  path: string,
  flags: number,
  resolve: number,
  mode = 0,
): number {
  return orFail(tryOpenat2(dir, path, flags, resolve, mode));
}

/** close(2). Linux frees the number whatever it answers, so EINTR is not retried. */
export function tryClose(fd: number): number {
  return outcome(closeCall(fd));
}

export function close(fd: number): void {
  orFail(tryClose(fd));
}

/** dup3(2) with O_CLOEXEC: `to` means what `from` means, at one moment for every thread. */
export function dup3(from: number, to: number): void {
  orFail(outcome(dup3Call(from, to, O_CLOEXEC)));
}

/** umask(2): of the whole process. The mask before. */
export function umask(mask: number): number {
  return umaskCall(mask);
}
