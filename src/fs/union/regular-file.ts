/** Data of regular files: read where the bytes are, copy up before the first change. */
import { Errno } from '../../abi/errno.ts';
import { S_IFREG } from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode, IoBuffer } from '../../vfs/inode-operations.ts';
import { copyUp } from './copy-up.ts';
import { asUnionInode } from './inode.ts';
import type { UnionInode } from './inode.ts';
import { syncVolatile } from './volatile.ts';

export function* write(inode: UnionInode, buffer: IoBuffer, position: number): Task<number> {
  if (!inode.branch.writable || inode.data !== undefined || inode.dataMissing) yield* copyUp(inode, 'data');
  return yield* inode.real.write(buffer, position);
}

/** A file that is not on a writable branch has nothing to be made durable. */
export function* fsync(inode: UnionInode, dataOnly: boolean): Task<void> {
  if (inode.fs.options.volatile) yield* syncVolatile(inode);
  else if (inode.branch.writable) yield* inode.real.fsync(dataOnly);
}

export function* fallocate(inode: UnionInode, mode: number, position: number, length: number): Task<void> {
  if (inode.type !== S_IFREG) fail(Errno.ENODEV);
  yield* copyUp(inode, 'data');
  if (inode.real.fallocate === undefined) fail(Errno.EOPNOTSUPP);
  yield* inode.real.fallocate(mode, position, length);
}

export function* seek(inode: UnionInode, position: number, whence: number): Task<number> {
  const data = inode.dataInode;
  if (data.seek === undefined) fail(Errno.EOPNOTSUPP);
  return yield* data.seek(position, whence);
}

export function* copyRange(
  inode: UnionInode, position: number, target: Inode, targetPosition: number, length: number,
): Task<number> {
  const to = asUnionInode(inode.fs, target);
  yield* copyUp(to, 'data');
  const from = inode.dataInode;
  if (from.copyRange === undefined) fail(Errno.EOPNOTSUPP);
  return yield* from.copyRange(position, to.real, targetPosition, length);
}

/**
 * Where the data is there to stay: on the first writable branch. From another one a rename or link may
 * copy it up to the left, and a metacopy has its data elsewhere.
 */
export function* backing(inode: UnionInode): Task<number | undefined> {
  const first = inode.fs.branches.find((branch) => branch.writable);
  if (inode.branch !== first || inode.data !== undefined || inode.dataMissing) return undefined;
  return yield* inode.real.backing?.() ?? none();
}

// oxlint-disable-next-line require-yield
function* none(): Task<undefined> {
  return undefined;
}

const FS_IOC_SETFLAGS = 0x40086602;
const FS_IOC_FSSETXATTR = 0x401c5820;

export function* ioctl(
  inode: UnionInode, command: number, input: Uint8Array, outputBytes: number,
): Task<Uint8Array> {
  if (command === FS_IOC_SETFLAGS || command === FS_IOC_FSSETXATTR) yield* copyUp(inode, 'data');
  const { real } = inode;
  if (real.ioctl === undefined) fail(Errno.ENOTTY);
  return yield* real.ioctl(command, input, outputBytes);
}
