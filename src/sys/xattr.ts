/**
 * Extended attributes of a name that is not followed, or of any descriptor, O_PATH ones too.
 *
 * A place is a pair (descriptor, name); the name '' is what the descriptor itself means. Names go by
 * the *xattrat calls of Linux 6.13; before, by l*xattr on `/proc/self/fd/DIR/NAME`. Descriptors go by
 * f*xattr, and where that refuses an O_PATH descriptor (EBADF, as AT_EMPTY_PATH would) by *xattr on
 * its magic link `/proc/self/fd/FD`, which leads to what the descriptor means and no further. A
 * directory is best named `.`.
 */
import { Errno } from '../abi/errno.ts';
import { AT_SYMLINK_NOFOLLOW } from '../abi/fcntl.ts';
import { pathArgument, SCRATCH_BYTES, Scratch, secondPathArgument } from './memory.ts';
import { libc, outcome, trySyscall } from './native.ts';

const SYS_SETXATTRAT = 463;
const SYS_GETXATTRAT = 464;
const SYS_LISTXATTRAT = 465;
const SYS_REMOVEXATTRAT = 466;

const fgetCall = libc('int64_t fgetxattr(int fd, uintptr_t name, uintptr_t value, size_t size)');
const getCall = libc('int64_t getxattr(uintptr_t p, uintptr_t name, uintptr_t value, size_t size)');
const lgetCall = libc(
  'int64_t lgetxattr(uintptr_t p, uintptr_t name, uintptr_t value, size_t size)',
);
const fsetCall = libc('int fsetxattr(int fd, uintptr_t name, uintptr_t v, size_t size, int flags)');
const setCall = libc(
  'int setxattr(uintptr_t p, uintptr_t name, uintptr_t v, size_t size, int flags)',
);
const lsetCall = libc(
  'int lsetxattr(uintptr_t p, uintptr_t name, uintptr_t v, size_t size, int flags)',
);
const flistCall = libc('int64_t flistxattr(int fd, uintptr_t list, size_t size)');
const listCall = libc('int64_t listxattr(uintptr_t p, uintptr_t list, size_t size)');
const llistCall = libc('int64_t llistxattr(uintptr_t p, uintptr_t list, size_t size)');
const fremoveCall = libc('int fremovexattr(int fd, uintptr_t name)');
const removeCall = libc('int removexattr(uintptr_t p, uintptr_t name)');
const lremoveCall = libc('int lremovexattr(uintptr_t p, uintptr_t name)');

const value = new Scratch(SCRATCH_BYTES);
/** struct xattr_args: u64 value, u32 size, u32 flags. */
const XATTR_ARGS_BYTES = 16;
const xattrArgs = new Scratch(XATTR_ARGS_BYTES);

/** False once the kernel has said that it does not know the *xattrat calls. */
let hasXattrat = true;

/** Make this module take the way of kernels before 6.13, or let it find out again. For tests. */
export function pretendNoXattrat(pretend: boolean): void {
  hasXattrat = !pretend;
}

const beneath = (dir: number, name: string): number => pathArgument(`/proc/self/fd/${dir}/${name}`);
const magicLink = (fd: number): number => pathArgument(`/proc/self/fd/${fd}`);

/**
 * Read a value into scratch memory: its length, or -errno (-ENODATA: there is none). The bytes are
 * taken by `xattrValue` before the next call here.
 */
export function tryGetxattr(dir: number, name: string, attribute: string): number {
  const length = getUpTo(dir, name, attribute, USUAL_VALUE_BYTES);
  return length === -Errno.ERANGE ? getUpTo(dir, name, attribute, value.byteCount) : length;
}

/** The kernel allocates and clears as much as it is told there is room for: most values are small. */
const USUAL_VALUE_BYTES = 512;

function getUpTo(dir: number, name: string, attribute: string, byteCount: number): number {
  const key = secondPathArgument(attribute);
  if (hasXattrat && name !== '') {
    xattrArgs.putU64(0, value.address);
    xattrArgs.u32[2] = byteCount;
    xattrArgs.u32[3] = 0;
    const path = pathArgument(name);
    const length = trySyscall(
      SYS_GETXATTRAT,
      dir,
      path,
      AT_SYMLINK_NOFOLLOW,
      key,
      xattrArgs.address,
      XATTR_ARGS_BYTES,
    );
    if (length !== -Errno.ENOSYS) return length;
    hasXattrat = false;
  }
  const { address } = value;
  if (name !== '') return outcome(lgetCall(beneath(dir, name), key, address, byteCount));
  const length = outcome(fgetCall(dir, key, address, byteCount));
  if (length !== -Errno.EBADF) return length;
  return outcome(getCall(magicLink(dir), key, address, byteCount));
}

/** The bytes that the last tryGetxattr read. */
export function xattrValue(length: number): Uint8Array {
  return value.copy(0, length);
}

/** 0 or -errno. `flags` is 0, XATTR_CREATE or XATTR_REPLACE. */
export function trySetxattr(
  dir: number,
  name: string,
  attribute: string,
  bytes: Uint8Array,
  flags: number,
): number {
  if (bytes.length > value.byteCount) return -Errno.E2BIG;
  value.buffer.set(bytes);
  const key = secondPathArgument(attribute);
  if (hasXattrat && name !== '') {
    xattrArgs.putU64(0, value.address);
    xattrArgs.u32[2] = bytes.length;
    xattrArgs.u32[3] = flags;
    const path = pathArgument(name);
    const result = trySyscall(
      SYS_SETXATTRAT,
      dir,
      path,
      AT_SYMLINK_NOFOLLOW,
      key,
      xattrArgs.address,
      XATTR_ARGS_BYTES,
    );
    if (result !== -Errno.ENOSYS) return result;
    hasXattrat = false;
  }
  const { address } = value;
  const size = bytes.length;
  if (name !== '') return outcome(lsetCall(beneath(dir, name), key, address, size, flags));
  const result = outcome(fsetCall(dir, key, address, size, flags));
  if (result !== -Errno.EBADF) return result;
  return outcome(setCall(magicLink(dir), key, address, size, flags));
}

/** All names into scratch memory: their length, or -errno. Taken by `xattrNames`. */
export function tryListxattr(dir: number, name: string): number {
  const length = listUpTo(dir, name, USUAL_VALUE_BYTES);
  return length === -Errno.ERANGE ? listUpTo(dir, name, value.byteCount) : length;
}

function listUpTo(dir: number, name: string, byteCount: number): number {
  if (hasXattrat && name !== '') {
    const path = pathArgument(name);
    const length = trySyscall(
      SYS_LISTXATTRAT,
      dir,
      path,
      AT_SYMLINK_NOFOLLOW,
      value.address,
      byteCount,
    );
    if (length !== -Errno.ENOSYS) return length;
    hasXattrat = false;
  }
  const { address } = value;
  if (name !== '') return outcome(llistCall(beneath(dir, name), address, byteCount));
  const length = outcome(flistCall(dir, address, byteCount));
  if (length !== -Errno.EBADF) return length;
  return outcome(listCall(magicLink(dir), address, byteCount));
}

/** The names that the last tryListxattr read. */
export function xattrNames(length: number): string[] {
  if (length === 0) return [];
  return value.buffer.latin1Slice(0, length - 1).split('\0');
}

/** 0 or -errno. */
export function tryRemovexattr(dir: number, name: string, attribute: string): number {
  const key = secondPathArgument(attribute);
  if (hasXattrat && name !== '') {
    const path = pathArgument(name);
    const result = trySyscall(SYS_REMOVEXATTRAT, dir, path, AT_SYMLINK_NOFOLLOW, key);
    if (result !== -Errno.ENOSYS) return result;
    hasXattrat = false;
  }
  if (name !== '') return outcome(lremoveCall(beneath(dir, name), key));
  const result = outcome(fremoveCall(dir, key));
  if (result !== -Errno.EBADF) return result;
  return outcome(removeCall(magicLink(dir), key));
}
