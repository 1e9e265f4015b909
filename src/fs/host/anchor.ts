/**
 * How to reach an inode: as a place, the pair (descriptor, name) that sys takes.
 *
 * An open descriptor of its own is preferred, named ''; else its directory and its name. Take the
 * name before the descriptor: both look at the same state, and the second may open a directory.
 */
import { Errno } from '../../abi/errno.ts';
import {
  AT_FDCWD,
  O_NOCTTY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
} from '../../abi/fcntl.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import { dup3, tryClose, tryOpenat } from '../../sys/open.ts';
import { statxMode, tryStatx } from '../../sys/statx.ts';
import { FdAccess } from './descriptor-cache.ts';
import { isVanished } from './host-dir.ts';
import type { HostInode } from './host-inode.ts';

/** Opening a regular file never waits and never follows, whatever somebody put in its place. */
const OPEN_SAFELY = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;

export function anchorName(inode: HostInode): string {
  const self = inode.self;
  if (self !== undefined) return self.fd >= 0 || self.parent === undefined ? '' : self.name;
  return inode.fd >= 0 ? '' : inode.name;
}

/** Errors: ESTALE nothing leads to it any more. */
export function anchorFd(inode: HostInode): number {
  const self = inode.self;
  if (self !== undefined) {
    if (self.fd >= 0 || self.parent === undefined) return self.descriptor();
    return self.parent.descriptor();
  }
  if (inode.fd >= 0) return inode.fd;
  if (inode.dir === undefined) fail(Errno.ESTALE);
  return inode.dir.descriptor();
}

/** The same for xattrs, which refuse '' of an O_PATH descriptor: a directory is its own `.`. */
export function xattrName(inode: HostInode): string {
  const name = anchorName(inode);
  return name === '' && inode.self !== undefined ? '.' : name;
}

/** statx into scratch. Errors: ENOENT, ESTALE it is gone, or something else has its place. */
export function statInode(inode: HostInode): void {
  const name = anchorName(inode);
  const result = tryStatx(anchorFd(inode), name);
  if (result < 0) fail(-result);
  if ((statxMode() & S_IFMT) !== inode.type) fail(Errno.ESTALE);
}

/** A descriptor for the data, in the cache (D1). Errors: EISDIR, EINVAL not a file; EROFS; EACCES. */
export function dataFd(inode: HostInode, access: FdAccess): number {
  const { opened } = inode;
  if (opened !== undefined && opened.fd >= 0 && opened.access >= access) {
    inode.fs.process.descriptors.touch(opened);
    return opened.fd;
  }
  if (inode.type !== S_IFREG) fail(inode.type === S_IFDIR ? Errno.EISDIR : Errno.EINVAL);
  return openData(inode, access);
}

/**
 * Read-write at once where the filesystem is: the file need not be opened again for the first write.
 * What may not be written (immutable, a program that runs, a mode) can still be read.
 */
function openData(inode: HostInode, access: FdAccess): number {
  if (!inode.fs.readOnly) {
    const fd = openAs(inode, O_RDWR);
    if (fd >= 0) return install(inode, fd, FdAccess.Write);
    if (access === FdAccess.Write || !isRefusal(fd)) fail(-fd);
  } else if (access === FdAccess.Write) {
    fail(Errno.EROFS);
  }
  const fd = openAs(inode, O_RDONLY);
  if (fd < 0) fail(-fd);
  return install(inode, fd, FdAccess.Read);
}

function isRefusal(result: number): boolean {
  switch (-result) {
    case Errno.EACCES:
    case Errno.EPERM:
    case Errno.EROFS:
    case Errno.ETXTBSY:
      return true;
    default:
      return false;
  }
}

/** Open it anew. By the descriptor that it has, which cannot be another file; else by its name. */
function openAs(inode: HostInode, flags: number): number {
  const { dir, fs } = inode;
  if (inode.fd >= 0) {
    const fd = tryOpenat(AT_FDCWD, `/proc/self/fd/${inode.fd}`, flags | O_NONBLOCK | O_NOCTTY);
    // Without /proc there is still its name.
    if (fd !== -Errno.ENOENT || dir === undefined) return fd;
  }
  if (dir === undefined) return -Errno.ESTALE;
  return fs.process.descriptors.openat(dir.descriptor(), inode.name, flags | OPEN_SAFELY);
}

/** Into its slot; if a lesser descriptor is there, under that one's number, which calls may hold. */
function install(inode: HostInode, fd: number, access: FdAccess): number {
  if (inode.fd < 0) return inode.adopt(fd, access).fd;
  const { open } = inode;
  dup3(fd, open.fd);
  tryClose(fd);
  open.access = access;
  return open.fd;
}

/**
 * Open whatever will lead to it once its name is gone: the data of a file, else the mere object.
 * Returns false if it is not there any more. Errors: EMFILE and what else opening answers.
 */
export function openForPin(inode: HostInode): boolean {
  if (inode.self !== undefined) {
    inode.self.descriptor();
    return true;
  }
  if (inode.fd >= 0) return true;
  const { dir, fs } = inode;
  if (dir === undefined) return false;
  const fd = fs.process.descriptors.openat(dir.descriptor(), inode.name, O_PATH | O_NOFOLLOW);
  if (fd < 0 && !isVanished(fd)) fail(-fd);
  if (fd < 0) return false;
  install(inode, fd, FdAccess.Path);
  return true;
}
