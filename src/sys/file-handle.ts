/** name_to_handle_at(2) and open_by_handle_at(2). */
import { Errno } from '../abi/errno.ts';
import { AT_EMPTY_PATH, O_CLOEXEC } from '../abi/fcntl.ts';
import { pathArgument, Scratch } from './memory.ts';
import { libc, outcome } from './native.ts';

/** MAX_HANDLE_SZ of the kernel. */
const HANDLE_BYTES_MAX = 128;
/** struct file_handle: u32 handle_bytes, i32 handle_type, u8 f_handle[]. */
const HEAD_BYTES = 8;

export interface RawHandle {
  readonly type: number;
  readonly bytes: Uint8Array;
}

const nameToHandleCall = libc(
  'int name_to_handle_at(int dir, uintptr_t path, uintptr_t handle, uintptr_t mount, int flags)',
);
const openByHandleCall = libc('int open_by_handle_at(int mount, uintptr_t handle, int flags)');
const record = new Scratch(HEAD_BYTES + HANDLE_BYTES_MAX + 8);

/** The handle of a name that is not followed, or of what `dir` itself means where it is ''; or -errno. */
export function tryNameToHandle(dir: number, name: string): RawHandle | number {
  record.u32[0] = HANDLE_BYTES_MAX;
  const mountId = record.address + HEAD_BYTES + HANDLE_BYTES_MAX;
  const flags = name === '' ? AT_EMPTY_PATH : 0;
  const result = outcome(nameToHandleCall(dir, pathArgument(name), record.address, mountId, flags));
  if (result < 0) return result;
  const end = HEAD_BYTES + record.u32[0]!;
  const bytes: Uint8Array = record.copy(HEAD_BYTES, end);
  return { type: record.i32[1]!, bytes };
}

/**
 * Open what a handle names. `mount` is any descriptor in that mount, not an O_PATH one.
 * A descriptor, or -errno: -ESTALE it is gone, -EPERM not privileged.
 */
export function tryOpenByHandle(mount: number, handle: RawHandle, flags: number): number {
  if (handle.bytes.length > HANDLE_BYTES_MAX) return -Errno.EINVAL;
  record.u32[0] = handle.bytes.length;
  record.i32[1] = handle.type;
  record.buffer.set(handle.bytes, HEAD_BYTES);
  return outcome(openByHandleCall(mount, record.address, flags | O_CLOEXEC));
}
