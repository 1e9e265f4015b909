/**
 * Extended attributes of a name that is not followed, or of any descriptor, O_PATH ones too.
 *
 * A place is a pair (descriptor, name); the name '' is what the descriptor itself means. Names go by
 * the *xattrat calls of Linux 6.13; before, by l*xattr on `/proc/self/fd/DIR/NAME`. Descriptors go by
 * *xattr on the magic link `/proc/self/fd/FD`, which leads to what the descriptor means and no
 * further: AT_EMPTY_PATH and the f*xattr calls refuse O_PATH descriptors with EBADF. A directory is
 * best named `.`.
 */
import { Errno } from '../abi/errno.ts';
import { AT_SYMLINK_NOFOLLOW } from '../abi/fcntl.ts';
import { pathArgument, SCRATCH_BYTES, Scratch, secondPathArgument } from './memory.ts';
import { libc, outcome, trySyscall } from './native.ts';

const SYS_SETXATTRAT = 463;
const SYS_GETXATTRAT = 464;
const SYS_LISTXATTRAT = 465;
const SYS_REMOVEXATTRAT = 466;

const getCall = libc('int64_t getxattr(uintptr_t p, uintptr_t name, uintptr_t value, size_t size)');
const lgetCall = libc('int64_t lgetxattr(uintptr_t p, uintptr_t name, uintptr_t value, size_t size)');
const setCall = libc('int setxattr(uintptr_t p, uintptr_t name, uintptr_t v, size_t size, int flags)');
const lsetCall = libc('int lsetxattr(uintptr_t p, uintptr_t name, uintptr_t v, size_t size, int flags)');
const listCall = libc('int64_t listxattr(uintptr_t p, uintptr_t list, size_t size)');
const llistCall = libc('int64_t llistxattr(uintptr_t p, uintptr_t list, size_t size)');
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

const magicPath = (dir: number, name: string): number =>
  pathArgument(name === '' ? `/proc/self/fd/${dir}` : `/proc/self/fd/${dir}/${name}`);

/**
 * Read a value into scratch memory: its length, or -errno (-ENODATA: there is none). The bytes are
 * taken by `xattrValue` before the next call here.
 */
export function tryGetxattr(dir: number, name: string, attribute: string): number {
  const key = secondPathArgument(attribute);
  if (hasXattrat && name !== '') {
    xattrArgs.putU64(0, value.address);
    xattrArgs.u32[2] = value.byteCount;
    xattrArgs.u32[3] = 0;
    const path = pathArgument(name);
    const length = trySyscall(
      SYS_GETXATTRAT, dir, path, AT_SYMLINK_NOFOLLOW, key, xattrArgs.address, XATTR_ARGS_BYTES,
    );
    if (length !== -Errno.ENOSYS) return length;
    hasXattrat = false;
  }
  const call = name === '' ? getCall : lgetCall;
  return outcome(call(magicPath(dir, name), key, value.address, value.byteCount));
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
      SYS_SETXATTRAT, dir, path, AT_SYMLINK_NOFOLLOW, key, xattrArgs.address, XATTR_ARGS_BYTES,
    );
    if (result !== -Errno.ENOSYS) return result;
    hasXattrat = false;
  }
  const call = name === '' ? setCall : lsetCall;
  return outcome(call(magicPath(dir, name), key, value.address, bytes.length, flags));
}

/** All names into scratch memory: their length, or -errno. Taken by `xattrNames`. */
export function tryListxattr(dir: number, name: string): number {
  if (hasXattrat && name !== '') {
    const path = pathArgument(name);
    const length = trySyscall(SYS_LISTXATTRAT, dir, path, AT_SYMLINK_NOFOLLOW, value.address, value.byteCount);
    if (length !== -Errno.ENOSYS) return length;
    hasXattrat = false;
  }
  const call = name === '' ? listCall : llistCall;
  return outcome(call(magicPath(dir, name), value.address, value.byteCount));
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
  const call = name === '' ? removeCall : lremoveCall;
  return outcome(call(magicPath(dir, name), key));
}
