/** Requests about attributes: GETATTR, STATX, SETATTR, READLINK, STATFS, xattrs, IOCTL. */
import { Errno } from '../abi/errno.ts';
import { isDir, S_IFDIR, S_IFREG, S_ISGID } from '../abi/mode.ts';
import type { Task } from '../kernel/task.ts';
import {
  FS_IOC_FSGETXATTR,
  FS_IOC_FSSETXATTR,
  FS_IOC_GETFLAGS,
  FS_IOC_GETVERSION,
  FS_IOC_SETFLAGS,
} from '../sys/ioctl.ts';
import type { Inode, SetAttr, Time } from '../vfs/inode-operations.ts';
import {
  ATTR_OUT,
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_CTIME,
  FATTR_FH,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_LOCKOWNER,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FUSE_IOCTL_COMPAT,
  FUSE_IOCTL_UNRESTRICTED,
  FUSE_SETXATTR_ACL_KILL_SGID,
  GETXATTR_IN,
  GETXATTR_OUT,
  IOCTL_IN,
  IOCTL_OUT,
  SETATTR_IN,
  SETXATTR_COMPAT_IN,
  SETXATTR_IN,
  STATFS_OUT,
  STATX_OUT,
} from './abi.ts';
import { putAttrOut, putStatxOut } from './attr.ts';
import type { Door } from './door.ts';
import type { Request } from './request.ts';

const PERMISSIONS = 0o7777;

export function* getattr(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const stat = yield* inode.getattr();
  putAttrOut(request, stat, door.attrSeconds(request, inode));
  request.replyBytes = ATTR_OUT.bytes;
  return 0;
}

export function* statx(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const stat = yield* inode.getattr();
  putStatxOut(request, stat, door.attrSeconds(request, inode));
  request.replyBytes = STATX_OUT.bytes;
  return 0;
}

function timeOf(request: Request, secAt: number, nsecAt: number): Time {
  return { sec: request.i64(secAt), nsec: request.u32(nsecAt) };
}

/** What a SETATTR changes. ctime is the filesystem's own affair, and `lock_owner` the kernel's. */
function setattrChanges(request: Request, type: number): SetAttr {
  const at = SETATTR_IN.at;
  const valid = request.u32(at.valid);
  const changes: SetAttr = {};
  if (valid & FATTR_MODE) changes.mode = request.u32(at.mode) & PERMISSIONS;
  if (valid & FATTR_UID) changes.uid = request.u32(at.uid);
  if (valid & FATTR_GID) changes.gid = request.u32(at.gid);
  if (valid & FATTR_SIZE) changes.size = request.u64(at.size);
  if (valid & FATTR_ATIME_NOW) changes.atime = 'now';
  else if (valid & FATTR_ATIME) changes.atime = timeOf(request, at.atime, at.atimensec);
  if (valid & FATTR_MTIME_NOW) changes.mtime = 'now';
  else if (valid & FATTR_MTIME) changes.mtime = timeOf(request, at.mtime, at.mtimensec);
  // ftruncate and O_TRUNC move mtime though the size stays; a kernel that owns no times leaves that to us.
  else if (valid & FATTR_SIZE && valid & FATTR_FH) changes.mtime = 'now';
  // With HANDLE_KILLPRIV_V2 a chown of anything but a directory takes the set-id bits, unasked.
  const chowned = (valid & (FATTR_UID | FATTR_GID)) !== 0 && type !== S_IFDIR;
  if (chowned || (valid & FATTR_KILL_SUIDGID) !== 0) changes.killPriv = true;
  return changes;
}

const isEmpty = (changes: SetAttr): boolean => {
  for (const _ in changes) return false;
  return true;
};

/** All that the kernel writes back of its own accord: mtime, with ctime. */
const TIME_FLUSH = FATTR_MTIME | FATTR_CTIME | FATTR_FH | FATTR_LOCKOWNER;

/**
 * After unlink, rename and link the kernel that owns the times writes them back at once, though only
 * ctime has changed, which is not ours to set. So what does not change mtime changes nothing. Of a
 * regular file the kernel looks at no times of the answer: it is not asked for again after a change.
 */
function* flushTimes(inode: Inode, request: Request): Task<number> {
  const at = SETATTR_IN.at;
  let stat = yield* inode.getattr();
  const mtime = { sec: request.i64(at.mtime), nsec: request.u32(at.mtimensec) };
  if (stat.mtimeSec !== mtime.sec || stat.mtimeNsec !== mtime.nsec) {
    yield* inode.setattr({ mtime });
    stat = inode.type === S_IFREG
      ? { ...stat, mtimeSec: mtime.sec, mtimeNsec: mtime.nsec }
      : yield* inode.getattr();
  }
  putAttrOut(request, stat);
  request.replyBytes = ATTR_OUT.bytes;
  return 0;
}

export function* setattr(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const valid = request.u32(SETATTR_IN.at.valid);
  const flushed = (valid & ~TIME_FLUSH) === 0 && (valid & FATTR_MTIME) !== 0;
  if (flushed && door.agreed('WRITEBACK_CACHE')) return yield* flushTimes(inode, request);
  const changes = setattrChanges(request, inode.type);
  if (!isEmpty(changes)) yield* inode.setattr(changes);
  const stat = yield* inode.getattr();
  putAttrOut(request, stat, door.attrSeconds(request, inode));
  request.replyBytes = ATTR_OUT.bytes;
  return 0;
}

export function* readlink(door: Door, request: Request): Task<number> {
  const target = yield* door.node(request).readlink();
  request.putText(0, target);
  request.replyBytes = target.length;
  return 0;
}

export function* statfs(door: Door, request: Request): Task<number> {
  const found = yield* door.fs.statfs();
  const at = STATFS_OUT.at;
  request.clear(0, STATFS_OUT.bytes);
  request.put64(at.blocks, found.blocks);
  request.put64(at.bfree, found.bfree);
  request.put64(at.bavail, found.bavail);
  request.put64(at.files, found.files);
  request.put64(at.ffree, found.ffree);
  request.put32(at.bsize, found.bsize);
  request.put32(at.namelen, found.namelen);
  request.put32(at.frsize, found.frsize);
  request.replyBytes = STATFS_OUT.bytes;
  return 0;
}

/** Answer with bytes, or with their count if the caller gave no room. Errors: ERANGE too little room. */
function answerSized(request: Request, bytes: number, put: () => void): number {
  const room = request.u32(GETXATTR_IN.at.size);
  if (room === 0) {
    request.put32(GETXATTR_OUT.at.size, bytes);
    request.put32(GETXATTR_OUT.at.padding, 0);
    request.replyBytes = GETXATTR_OUT.bytes;
    return 0;
  }
  if (bytes > room) return -Errno.ERANGE;
  put();
  request.replyBytes = bytes;
  return 0;
}

export function* getxattr(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  if (inode.getxattr === undefined) return -Errno.EOPNOTSUPP;
  const name = request.text(GETXATTR_IN.bytes, request.stringEnd(GETXATTR_IN.bytes));
  const value = yield* inode.getxattr(name);
  if (value === undefined) return -Errno.ENODATA;
  return answerSized(request, value.length, () => request.putBytes(0, value));
}

export function* listxattr(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  if (inode.listxattr === undefined) return -Errno.EOPNOTSUPP;
  // xattr(7): trusted names are for CAP_SYS_ADMIN alone, and the kernel leaves hiding them to the filesystem.
  const all = request.uid === 0;
  let list = '';
  for (const name of yield* inode.listxattr())
    if (all || !name.startsWith('trusted.')) list += `${name}\0`;
  if (list.length > request.replyRoom) return -Errno.E2BIG;
  return answerSized(request, list.length, () => request.putText(0, list));
}

export function* setxattr(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  if (inode.setxattr === undefined) return -Errno.EOPNOTSUPP;
  const extended = door.agreed('SETXATTR_EXT');
  const nameAt = extended ? SETXATTR_IN.bytes : SETXATTR_COMPAT_IN.bytes;
  const end = request.stringEnd(nameAt);
  const size = request.u32(SETXATTR_IN.at.size);
  // A copy: the filesystem may keep it, the arena will be used again.
  const value = request.slice(end + 1, size).slice();
  yield* inode.setxattr(request.text(nameAt, end), value, request.u32(SETXATTR_IN.at.flags));
  if (extended && (request.u32(SETXATTR_IN.at.setxattrFlags) & FUSE_SETXATTR_ACL_KILL_SGID) !== 0) {
    const { mode } = yield* inode.getattr();
    if ((mode & S_ISGID) !== 0 && !isDir(mode))
      yield* inode.setattr({ mode: mode & PERMISSIONS & ~S_ISGID });
  }
  return 0;
}

export function* removexattr(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  if (inode.removexattr === undefined) return -Errno.EOPNOTSUPP;
  yield* inode.removexattr(request.text(0, request.stringEnd(0)));
  return 0;
}

/** Commands that are passed on. FS_IOC_SETVERSION is not: the kernel does not check who may. */
const IOCTLS = new Set([
  FS_IOC_GETFLAGS,
  FS_IOC_SETFLAGS,
  FS_IOC_GETVERSION,
  FS_IOC_FSGETXATTR,
  FS_IOC_FSSETXATTR,
]);

export function* ioctl(door: Door, request: Request): Task<number> {
  const inode = door.node(request);
  const flags = request.u32(IOCTL_IN.at.flags);
  const command = request.u32(IOCTL_IN.at.cmd);
  const foreign = (flags & (FUSE_IOCTL_COMPAT | FUSE_IOCTL_UNRESTRICTED)) !== 0;
  if (foreign || inode.ioctl === undefined || !IOCTLS.has(command)) return -Errno.ENOTTY;
  const input = request.slice(IOCTL_IN.bytes, request.u32(IOCTL_IN.at.inSize));
  const output = yield* inode.ioctl(command, input, request.u32(IOCTL_IN.at.outSize));
  if (output.length > request.u32(IOCTL_IN.at.outSize)) return -Errno.EIO;
  request.clear(0, IOCTL_OUT.bytes);
  request.putBytes(IOCTL_OUT.bytes, output);
  request.replyBytes = IOCTL_OUT.bytes + output.length;
  return 0;
}
