/**
 * Copies of objects of a view, made in a staging directory: whole, with everything but the union's
 * own xattrs, before anyone can see them.
 *
 * S1. Order: data, owner, xattrs, mode, times; a later part would be undone by an earlier one
 *     (a chown takes capabilities and setuid away, an ACL changes the mode, everything the times).
 * S2. Holes stay holes. Data is shared with the source where the filesystem can.
 */
import { Errno } from '../abi/errno.ts';
import { SEEK_HOLE } from '../abi/fcntl.ts';
import { PERMISSION_BITS, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import { errnoOf, fail } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import type { Cred, Inode, Name } from '../vfs/inode-operations.ts';
import { CHUNK_BYTES, nextData, readFull, xattrNames, xattrsOf } from './compare.ts';
import type { OnBytes } from './compare.ts';
import type { Attributes } from './journal.ts';
import { writeAll } from './journal.ts';
import { dataInode, metadataInode, statOf } from './view.ts';
import type { ViewNode } from './view.ts';

export const ROOT: Cred = { uid: 0, gid: 0, umask: 0, pid: 0 };

/** A copy of the one object (of a directory: empty, and without its times) under `name` of `dir`. */
export function* stageCopy(dir: Inode, name: Name, node: ViewNode, onBytes?: OnBytes): Task<Inode> {
  const stat = yield* statOf(node);
  const copy = yield* createLike(dir, name, node, stat);
  if (node.type === S_IFREG) {
    yield* copyData(dataInode(node), copy, stat.size, onBytes);
  }
  yield* applyAttributes(copy, yield* attributesOf(metadataInode(node)));
  // A directory is synced with the whole filesystem before the journal is sealed; so is the rest.
  return copy;
}

function* createLike(dir: Inode, name: Name, node: ViewNode, stat: Stat): Task<Inode> {
  const mode = stat.mode & PERMISSION_BITS & 0o700;
  switch (stat.mode & S_IFMT) {
    case S_IFREG:
      return yield* dir.create(name, mode | 0o600, ROOT);
    case S_IFDIR:
      return yield* dir.mkdir(name, 0o700, ROOT);
    case S_IFLNK:
      return yield* dir.symlink(name, yield* metadataInode(node).readlink(), ROOT);
    default:
      return yield* dir.mknod(
        name,
        (stat.mode & S_IFMT) | mode,
        stat.rdevMajor,
        stat.rdevMinor,
        ROOT,
      );
  }
}

function* copyData(source: Inode, target: Inode, size: number, onBytes?: OnBytes): Task<void> {
  for (let position = 0; position < size;) {
    const start = yield* nextData(source, position, size);
    if (start >= size) break;
    const end = yield* nextHole(source, start, size);
    yield* copyExtent(source, target, { start, end }, onBytes);
    position = end;
  }
  // A hole at the end, and a file that is nothing but one.
  if ((yield* target.getattr()).size !== size) yield* target.setattr({ size });
}

function* nextHole(inode: Inode, position: number, size: number): Task<number> {
  if (inode.seek === undefined) return size;
  try {
    return Math.min(size, yield* inode.seek(position, SEEK_HOLE));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === Errno.ENXIO || errno === Errno.EINVAL || errno === Errno.EOPNOTSUPP) return size;
    throw error;
  }
}

function* copyExtent(
  source: Inode,
  target: Inode,
  extent: { start: number; end: number },
  onBytes?: OnBytes,
): Task<void> {
  let position = extent.start;
  let kernelCopies = source.copyRange !== undefined;
  const bytes = new Uint8Array(Math.min(CHUNK_BYTES, extent.end - extent.start));
  while (position < extent.end) {
    const length = Math.min(CHUNK_BYTES, extent.end - position);
    const copied = kernelCopies ? yield* tryCopyRange(source, target, position, length) : 0;
    if (copied === 0) {
      kernelCopies = false;
      // The source is an upper that nobody may write to now: shorter than its size is an error.
      if ((yield* readFull(source, bytes, position, length)) !== length) fail(Errno.EIO);
      yield* writeAll(target, bytes.subarray(0, length), position);
    }
    const done = copied === 0 ? length : copied;
    position += done;
    onBytes?.(done);
  }
}

/** 0: must be done by reading and writing. */
function* tryCopyRange(
  source: Inode,
  target: Inode,
  position: number,
  length: number,
): Task<number> {
  try {
    return yield* source.copyRange!(position, target, position, length);
  } catch (error) {
    const errno = errnoOf(error);
    if (
      errno === Errno.EXDEV ||
      errno === Errno.EOPNOTSUPP ||
      errno === Errno.EINVAL ||
      errno === Errno.ENOSYS
    ) {
      return 0;
    }
    throw error;
  }
}

// -- attributes --

export function* attributesOf(inode: Inode): Task<Attributes> {
  const stat = yield* inode.getattr();
  const xattrs: Record<string, string> = {};
  for (const [name, value] of yield* xattrsOf(inode))
    xattrs[name] = Buffer.from(value).toString('base64');
  return {
    uid: stat.uid,
    gid: stat.gid,
    ...((stat.mode & S_IFMT) === S_IFLNK ? {} : { mode: stat.mode & PERMISSION_BITS }),
    xattrs,
    ...timesOf(stat),
  };
}

export const timesOf = (stat: Stat): Pick<Attributes, 'atime' | 'mtime'> => ({
  atime: [stat.atimeSec, stat.atimeNsec],
  mtime: [stat.mtimeSec, stat.mtimeNsec],
});

/** Whatever it was, it is so afterwards. */
export function* applyAttributes(inode: Inode, to: Attributes): Task<void> {
  if (to.uid !== undefined) yield* applyOwner(inode, { uid: to.uid, gid: to.gid! });
  if (to.xattrs !== undefined) yield* applyXattrs(inode, to.xattrs);
  if (to.mode !== undefined) yield* inode.setattr({ mode: to.mode });
  const [atimeSec, atimeNsec] = to.atime;
  const [mtimeSec, mtimeNsec] = to.mtime;
  yield* inode.setattr({
    atime: { sec: atimeSec, nsec: atimeNsec },
    mtime: { sec: mtimeSec, nsec: mtimeNsec },
  });
}

function* applyOwner(inode: Inode, to: { uid: number; gid: number }): Task<void> {
  const { uid, gid } = yield* inode.getattr();
  if (uid !== to.uid || gid !== to.gid) yield* inode.setattr(to);
}

function* applyXattrs(inode: Inode, xattrs: Record<string, string>): Task<void> {
  for (const name of yield* xattrNames(inode)) {
    if (!(name in xattrs)) yield* inode.removexattr!(name);
  }
  for (const [name, value] of Object.entries(xattrs)) {
    if (inode.setxattr === undefined) fail(Errno.EOPNOTSUPP);
    yield* inode.setxattr(name, new Uint8Array(Buffer.from(value, 'base64')), 0);
  }
}
