/**
 * Are two objects of one type the same? Content first by size, then byte by byte; metadata by field.
 *
 * C1. Holes that both have are not read. A hole equals zeros.
 * C2. The union's own xattrs do not count; the time of change (ctime), the time of access and the
 *     link count never do.
 */
import { createHash } from 'node:crypto';
import { Errno } from '../abi/errno.ts';
import { SEEK_DATA } from '../abi/fcntl.ts';
import { PERMISSION_BITS, S_IFBLK, S_IFCHR, S_IFLNK, S_IFREG } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import { errnoOf, fail } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode } from '../vfs/inode-operations.ts';
import type { ViewNode } from './view.ts';
import { dataInode, metadataInode, statOf } from './view.ts';
import { isOverlayXattr } from './whiteout-format.ts';

/** One read: large enough that the calls do not count, small enough to keep two of them. */
export const CHUNK_BYTES = 1 << 20;

export interface Difference {
  content: boolean;
  mode: boolean;
  owner: boolean;
  mtime: boolean;
  xattrs: string[];
  oldStat: Stat;
  newStat: Stat;
}

export const metadataDiffers = (d: Difference): boolean => d.mode || d.owner || d.xattrs.length > 0;

export type OnBytes = (bytes: number) => void;

/** Both of one type. `content` is left false for directories, and where `skipContent` says so. */
export function* compareNodes(
  oldNode: ViewNode,
  newNode: ViewNode,
  options: { skipContent?: boolean; onBytes?: OnBytes },
): Task<Difference> {
  const oldStat = yield* statOf(oldNode);
  const newStat = yield* statOf(newNode);
  const skip = options.skipContent === true;
  const content =
    !skip && (yield* contentDiffers(oldNode, newNode, { oldStat, newStat }, options.onBytes));
  return {
    content,
    mode: (oldStat.mode & PERMISSION_BITS) !== (newStat.mode & PERMISSION_BITS),
    owner: oldStat.uid !== newStat.uid || oldStat.gid !== newStat.gid,
    mtime: oldStat.mtimeSec !== newStat.mtimeSec || oldStat.mtimeNsec !== newStat.mtimeNsec,
    xattrs: yield* differingXattrs(metadataInode(oldNode), metadataInode(newNode)),
    oldStat,
    newStat,
  };
}

function* contentDiffers(
  oldNode: ViewNode,
  newNode: ViewNode,
  stats: { oldStat: Stat; newStat: Stat },
  onBytes: OnBytes | undefined,
): Task<boolean> {
  const { oldStat, newStat } = stats;
  switch (newNode.type) {
    case S_IFREG:
      if (oldStat.size !== newStat.size) return true;
      // Only the metadata was copied up: the data is the very same inode.
      if (newNode.pieces.length > 1 && (yield* isSameInode(dataInode(oldNode), dataInode(newNode))))
        return false;
      return yield* bytesDiffer(dataInode(oldNode), dataInode(newNode), newStat.size, onBytes);
    case S_IFLNK: {
      const target = yield* metadataInode(oldNode).readlink();
      return target !== (yield* metadataInode(newNode).readlink());
    }
    case S_IFCHR:
    case S_IFBLK:
      return oldStat.rdevMajor !== newStat.rdevMajor || oldStat.rdevMinor !== newStat.rdevMinor;
    default:
      return false;
  }
}

function* isSameInode(a: Inode, b: Inode): Task<boolean> {
  if (a === b) return true;
  const statA = yield* a.getattr();
  const statB = yield* b.getattr();
  return (
    statA.ino === statB.ino &&
    statA.devMajor === statB.devMajor &&
    statA.devMinor === statB.devMinor
  );
}

function* bytesDiffer(a: Inode, b: Inode, size: number, onBytes?: OnBytes): Task<boolean> {
  const bufferA = new Uint8Array(Math.min(size, CHUNK_BYTES));
  const bufferB = new Uint8Array(Math.min(size, CHUNK_BYTES));
  let position = 0;
  while (position < size) {
    const dataAt = Math.min(yield* nextData(a, position, size), yield* nextData(b, position, size));
    if (dataAt >= size) return false;
    position = dataAt;
    const length = Math.min(CHUNK_BYTES, size - position);
    if ((yield* readFull(a, bufferA, position, length)) !== length) return true;
    if ((yield* readFull(b, bufferB, position, length)) !== length) return true;
    if (Buffer.compare(bufferA.subarray(0, length), bufferB.subarray(0, length)) !== 0) return true;
    position += length;
    onBytes?.(length);
  }
  return false;
}

/** Where data goes on at or after `position`; `size` if there is none; `position` if nobody knows. */
export function* nextData(inode: Inode, position: number, size: number): Task<number> {
  if (inode.seek === undefined) return position;
  try {
    return yield* inode.seek(position, SEEK_DATA);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === Errno.ENXIO) return size;
    if (errno === Errno.EINVAL || errno === Errno.EOPNOTSUPP) return position;
    throw error;
  }
}

/** Reads until `length` or the end of the file. */
export function* readFull(
  inode: Inode,
  bytes: Uint8Array,
  position: number,
  length: number,
): Task<number> {
  let done = 0;
  while (done < length) {
    const got = yield* inode.read({ bytes, offset: done, length: length - done }, position + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** A whole small file. */
export function* readWhole(inode: Inode, size: number): Task<Uint8Array> {
  const bytes = new Uint8Array(size);
  if ((yield* readFull(inode, bytes, 0, size)) !== size) fail(Errno.EIO);
  return bytes;
}

/** Names of all xattrs but the union's own, sorted. */
export function* xattrNames(inode: Inode): Task<string[]> {
  if (inode.listxattr === undefined) return [];
  try {
    return (yield* inode.listxattr()).filter((name) => !isOverlayXattr(name)).sort();
  } catch (error) {
    if (errnoOf(error) !== Errno.EOPNOTSUPP) throw error;
    return [];
  }
}

export function* xattrsOf(inode: Inode): Task<Map<string, Uint8Array>> {
  const xattrs = new Map<string, Uint8Array>();
  for (const name of yield* xattrNames(inode)) {
    const value = yield* inode.getxattr!(name);
    if (value !== undefined) xattrs.set(name, value);
  }
  return xattrs;
}

function* differingXattrs(a: Inode, b: Inode): Task<string[]> {
  const before = yield* xattrsOf(a);
  const after = yield* xattrsOf(b);
  const differing: string[] = [];
  for (const [name, value] of after) {
    const old = before.get(name);
    if (old === undefined || Buffer.compare(old, value) !== 0) differing.push(name);
  }
  for (const name of before.keys()) if (!after.has(name)) differing.push(name);
  return differing.sort();
}

/** sha256 of a file's content, hex. */
export function* digestOf(node: ViewNode, onBytes?: OnBytes): Task<string> {
  const hash = createHash('sha256');
  const { size } = yield* statOf(node);
  const bytes = new Uint8Array(Math.min(Math.max(size, 1), CHUNK_BYTES));
  for (let position = 0; position < size;) {
    const got = yield* readFull(
      dataInode(node),
      bytes,
      position,
      Math.min(bytes.length, size - position),
    );
    if (got === 0) break;
    hash.update(bytes.subarray(0, got));
    position += got;
    onBytes?.(got);
  }
  return hash.digest('hex');
}
