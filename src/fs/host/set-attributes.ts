/** setattr in the contract's order: owner, privileges, mode, size, times. */
import { Errno } from '../../abi/errno.ts';
import {
  PERMISSION_BITS,
  S_IFDIR,
  S_IFLNK,
  S_IFREG,
  S_ISGID,
  S_ISUID,
  S_IXGRP,
} from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import {
  KEEP_OWNER,
  type Times,
  tryFchmodat,
  tryFchownat,
  tryUtimensat,
  UTIME_NOW,
  UTIME_OMIT,
} from '../../sys/attributes.ts';
import { tryFtruncate } from '../../sys/io.ts';
import { orFail } from '../../sys/native.ts';
import { statxMode } from '../../sys/statx.ts';
import { tryRemovexattr } from '../../sys/xattr.ts';
import type { SetAttr, Time } from '../../vfs/inode-operations.ts';
import { anchorFd, anchorName, dataFd, statInode, xattrName } from './anchor.ts';
import { FdAccess } from './descriptor-cache.ts';
import type { HostInode } from './host-inode.ts';

export function setAttributes(inode: HostInode, changes: SetAttr): void {
  const { mode, size } = changes;
  if (size !== undefined) checkSize(inode, size);
  if (mode !== undefined && inode.type === S_IFLNK) fail(Errno.EOPNOTSUPP);
  if (inode.fs.readOnly) fail(Errno.EROFS);
  // Opened first: what may not be opened for writing fails before anything is changed.
  const fd = size === undefined ? -1 : dataFd(inode, FdAccess.Write);
  changeOwner(inode, changes);
  if (changes.killPriv === true) killPrivileges(inode, mode === undefined);
  if (mode !== undefined) changeMode(inode, mode);
  if (size !== undefined) orFail(tryFtruncate(fd, size));
  changeTimes(inode, changes);
}

function checkSize(inode: HostInode, size: number): void {
  if (inode.type === S_IFDIR) fail(Errno.EISDIR);
  if (inode.type !== S_IFREG || size < 0) fail(Errno.EINVAL);
  if (size > Number.MAX_SAFE_INTEGER) fail(Errno.EFBIG);
}

function changeOwner(inode: HostInode, changes: SetAttr): void {
  const { uid, gid } = changes;
  if (uid === undefined && gid === undefined) return;
  const name = anchorName(inode);
  orFail(tryFchownat(anchorFd(inode), name, uid ?? KEEP_OWNER, gid ?? KEEP_OWNER));
}

function changeMode(inode: HostInode, mode: number): void {
  const name = anchorName(inode);
  orFail(tryFchmodat(anchorFd(inode), name, mode & PERMISSION_BITS));
  if (inode.self !== undefined) inode.self.setgid = (mode & S_ISGID) !== 0;
}

/** What a write, truncate or chown by somebody else takes away. The host does not do it for root. */
function killPrivileges(inode: HostInode, modeToo: boolean): void {
  if (inode.type !== S_IFREG) return;
  const name = xattrName(inode);
  const result = tryRemovexattr(anchorFd(inode), name, 'security.capability');
  if (result < 0 && !isAbsence(result)) fail(-result);
  if (!modeToo) return;
  statInode(inode);
  const mode = statxMode() & PERMISSION_BITS;
  // S_ISGID without group execute means mandatory locking, not a privilege.
  const setgid = (mode & S_IXGRP) !== 0 ? S_ISGID : 0;
  const rest = mode & ~(S_ISUID | setgid);
  if (rest !== mode) changeMode(inode, rest);
}

/** There was nothing to take away. EPERM: an unprivileged daemon cannot, nor could it have set any. */
function isAbsence(result: number): boolean {
  switch (-result) {
    case Errno.ENODATA:
    case Errno.EOPNOTSUPP:
    case Errno.EPERM:
      return true;
    default:
      return false;
  }
}

function changeTimes(inode: HostInode, changes: SetAttr): void {
  const { atime, mtime } = changes;
  if (atime === undefined && mtime === undefined) return;
  const times: Times = {
    atimeSec: secondsOf(atime),
    atimeNsec: nanosecondsOf(atime),
    mtimeSec: secondsOf(mtime),
    mtimeNsec: nanosecondsOf(mtime),
  };
  const name = anchorName(inode);
  orFail(tryUtimensat(anchorFd(inode), name, times));
}

const secondsOf = (time: Time | undefined): number =>
  time === undefined || time === 'now' ? 0 : time.sec;

function nanosecondsOf(time: Time | undefined): number {
  if (time === undefined) return UTIME_OMIT;
  return time === 'now' ? UTIME_NOW : time.nsec;
}
