/**
 * New objects: made by the host under their name, then given to their owner.
 *
 * The host applies umask or default ACL itself (the process takes the requester's umask), and hands
 * down the group of a setgid directory. What it made belongs to this process otherwise; only if that
 * is not the requester, one more call changes it. If that call fails the object is taken away again.
 */
import { Errno } from '../../abi/errno.ts';
import {
  AT_REMOVEDIR,
  O_CREAT,
  O_EXCL,
  O_NOCTTY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDWR,
  O_TMPFILE,
} from '../../abi/fcntl.ts';
import { PERMISSION_BITS, S_IFDIR, S_IFLNK, S_IFMT, S_ISGID, S_ISUID } from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import { KEEP_OWNER, tryFchmodat, tryFchownat } from '../../sys/attributes.ts';
import { makedev, tryMkdirat, tryMknodat, trySymlinkat, tryUnlinkat } from '../../sys/namespace.ts';
import { tryClose } from '../../sys/open.ts';
import { statxMode, tryStatx } from '../../sys/statx.ts';
import type { Cred } from '../../vfs/inode-operations.ts';
import type { HostDir } from './host-dir.ts';
import type { HostProcess } from './host-process.ts';
import { SYMLINK_TARGET_MAX } from './limits.ts';

const CREATE = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;

/** Who makes it, where. */
export interface Making {
  readonly process: HostProcess;
  readonly dir: HostDir;
  readonly cred: Cred;
}

/** A new regular file, open for reading and writing. */
export function makeFile(making: Making, name: string, mode: number): number {
  const { process, dir, cred } = making;
  process.applyUmask(cred.umask);
  const at = dir.descriptor();
  const fd = process.descriptors.openat(at, name, CREATE, mode & PERMISSION_BITS);
  if (fd < 0) fail(-fd);
  const result = giveOwner(making, fd, '', mode);
  if (result < 0) {
    tryClose(fd);
    undo(making, name, 0, result);
  }
  return fd;
}

/** A new regular file without a name, open for reading and writing. */
export function makeTmpfile(making: Making, mode: number): number {
  const { process, dir, cred } = making;
  process.applyUmask(cred.umask);
  const at = dir.descriptor();
  const fd = process.descriptors.openat(at, '.', O_TMPFILE | O_RDWR, mode & PERMISSION_BITS);
  // A filesystem without O_TMPFILE answers EOPNOTSUPP, an old kernel EISDIR.
  if (fd < 0) fail(fd === -Errno.EISDIR ? Errno.EOPNOTSUPP : -fd);
  const result = giveOwner(making, fd, '', mode);
  if (result < 0) {
    tryClose(fd);
    fail(-result);
  }
  return fd;
}

export function makeDirectory(making: Making, name: string, mode: number): void {
  making.process.applyUmask(making.cred.umask);
  const at = making.dir.descriptor();
  const made = tryMkdirat(at, name, mode & PERMISSION_BITS);
  if (made < 0) fail(-made);
  const result = giveOwner(making, at, name, S_IFDIR);
  if (result < 0) undo(making, name, AT_REMOVEDIR, result);
}

export function makeNode(making: Making, name: string, mode: number, device: Device): void {
  making.process.applyUmask(making.cred.umask);
  const at = making.dir.descriptor();
  const kind = mode & (S_IFMT | PERMISSION_BITS);
  const made = tryMknodat(at, name, kind, makedev(device.major, device.minor));
  if (made < 0) fail(-made);
  const result = giveOwner(making, at, name, mode);
  if (result < 0) undo(making, name, 0, result);
}

export interface Device {
  readonly major: number;
  readonly minor: number;
}

/** Errors: ENAMETOOLONG; ENOENT an empty target; EINVAL a NUL in it. */
export function makeSymlink(making: Making, name: string, target: string): void {
  if (target.length > SYMLINK_TARGET_MAX) fail(Errno.ENAMETOOLONG);
  if (target.includes('\0')) fail(Errno.EINVAL);
  const at = making.dir.descriptor();
  const made = trySymlinkat(target, at, name);
  if (made < 0) fail(-made);
  const result = giveOwner(making, at, name, S_IFLNK);
  if (result < 0) undo(making, name, 0, result);
}

function undo(making: Making, name: string, flags: number, result: number): never {
  tryUnlinkat(making.dir.descriptor(), name, flags);
  fail(-result);
}

/** 0 or -errno. `mode` tells whether there are bits that a change of owner takes away. */
function giveOwner(making: Making, fd: number, name: string, mode: number): number {
  const { process, dir, cred } = making;
  if (!process.privileged) return 0;
  const group = dir.setgid ? KEEP_OWNER : cred.gid;
  const rightGroup = group === KEEP_OWNER || group === process.gid;
  if (cred.uid === process.uid && rightGroup) return 0;
  if ((mode & (S_ISUID | S_ISGID)) === 0) return tryFchownat(fd, name, cred.uid, group);
  const found = tryStatx(fd, name);
  if (found < 0) return found;
  const bits = statxMode() & PERMISSION_BITS;
  const result = tryFchownat(fd, name, cred.uid, group);
  return result < 0 ? result : tryFchmodat(fd, name, bits);
}
