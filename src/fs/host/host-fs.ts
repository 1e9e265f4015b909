/**
 * A directory of the host as a filesystem: what a branch is made of.
 *
 * A root is opened once and everything else is reached from its descriptor, so what is mounted over
 * the path later, our own mount among it, is never met. A read-only filesystem looks at a private copy
 * of the mount where that is permitted (OPEN_TREE_CLONE): then mounts beneath are not met either, and
 * nothing can be written, not even an access time. A read-write one needs the mount itself, for its
 * work directory must be reachable by rename: whoever composes branches refuses those with the
 * mountpoint inside.
 */
// As in host-inode.ts: tasks by contract that never wait.
/* oxlint-disable require-yield */
import { Errno } from '../../abi/errno.ts';
import { AT_FDCWD, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY } from '../../abi/fcntl.ts';
import { S_IFDIR, S_IFMT, S_ISGID } from '../../abi/mode.ts';
import type { StatFs } from '../../abi/stat.ts';
import { fail, FsError } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import { tryOpenByHandle } from '../../sys/file-handle.ts';
import { syncfsWait } from '../../sys/io.ts';
import { filesystemUuid } from '../../sys/ioctl.ts';
import {
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_RDONLY,
  OPEN_TREE_CLONE,
  tryMountSetattr,
  tryOpenTree,
} from '../../sys/mount.ts';
import { orFail } from '../../sys/native.ts';
import { tryClose, tryOpenat } from '../../sys/open.ts';
import { fstatfs } from '../../sys/statfs.ts';
import { statxIno, statxMode, tryStatx } from '../../sys/statx.ts';
import type { FileHandle, FileSystem } from '../../vfs/inode-operations.ts';
import { type Descriptor, FdAccess } from './descriptor-cache.ts';
import { HostChanges } from './changes.ts';
import { HostDir } from './host-dir.ts';
import { HostInode } from './host-inode.ts';
import { hostProcess, type HostProcess } from './host-process.ts';
import { InodeDescriptor } from './inode-descriptor.ts';
import { SyncPace } from './sync-pace.ts';

const UUID_BYTES = 16;

export interface HostFsOptions {
  /** One char per byte. The last component may be a symlink: it is the user's word. */
  readonly path: string;
  readonly readOnly: boolean;
  /** Look at a private copy of the mount. Default: if read-only. */
  readonly isolate?: boolean;
  /** Default: the one of this thread. */
  readonly process?: HostProcess;
  /** Do not sync when it is unmounted. */
  readonly volatile?: boolean;
}

/** Errors: FsError with the path in its message; ENOTDIR, ENOENT, EACCES. */
export function openHostFs(options: HostFsOptions): HostFs {
  return new HostFs(options);
}

export class HostFs implements FileSystem {
  readonly label: string;
  readonly readOnly: boolean;
  readonly process: HostProcess;
  readonly root: HostInode;
  /** Of the filesystem that the root lies on; zero if it has none. */
  readonly uuid: Uint8Array;
  /** False once the host has said that it cannot tell reads that would wait. */
  hasNowait = true;
  /** Of the disk beneath, as far as this root has seen it. */
  readonly syncs = new SyncPace();

  /** What others change, where nothing is changed by us. */
  readonly changes?: HostChanges;

  readonly #volatile: boolean;
  /** Not an O_PATH one: for calls that want an open file of this filesystem. */
  readonly #rootIo: number;

  constructor(options: HostFsOptions) {
    this.label = `host:${options.path}`;
    this.readOnly = options.readOnly;
    this.#volatile = options.volatile ?? false;
    this.process = options.process ?? hostProcess();
    const isolate = options.isolate ?? options.readOnly;
    this.root = this.#rootAt(options.path, isolate);
    const rootFd = this.root.directory().descriptor();
    // Without read permission on the root the branch still works, less syncfs and handles.
    this.#rootIo = tryOpenat(rootFd, '.', O_RDONLY | O_DIRECTORY);
    const uuid = this.#rootIo < 0 ? undefined : filesystemUuid(this.#rootIo);
    this.uuid = uuid ?? new Uint8Array(UUID_BYTES);
    if (this.readOnly)
      this.changes = new HostChanges((dir) => (dir as HostInode).directory().descriptor());
  }

  /** A further root in the same filesystem: rename and link go between the two. */
  openRoot(path: string): HostInode {
    return this.#rootAt(path, false);
  }

  #rootAt(path: string, isolate: boolean): HostInode {
    const fd = openDirectory(path, isolate, this.readOnly);
    const result = tryStatx(fd, '');
    if (result < 0 || (statxMode() & S_IFMT) !== S_IFDIR) {
      tryClose(fd);
      throw pathError(result < 0 ? -result : Errno.ENOTDIR, path);
    }
    return this.#detachedDirectory(fd);
  }

  /** The directory that statx has just found, reached by its descriptor alone. */
  #detachedDirectory(fd: number): HostInode {
    const ino = statxIno();
    const dir = new HostDir(this, this.process.descriptors, undefined, '');
    dir.ino = ino;
    dir.setgid = (statxMode() & S_ISGID) !== 0;
    dir.retain();
    dir.cache.adopt(dir, fd);
    dir.cache.pin(dir);
    return new HostInode(this, S_IFDIR, ino, dir);
  }

  *statfs(): Task<StatFs> {
    // Who asks after removing something wants to see that it is gone.
    this.process.settle();
    return fstatfs(this.root.directory().descriptor());
  }

  *syncfs(): Task<void> {
    if (this.readOnly) return;
    if (this.#rootIo < 0) fail(-this.#rootIo);
    orFail(yield* syncfsWait(this.#rootIo));
  }

  /** Privileged only (CAP_DAC_READ_SEARCH): a handle reaches around every directory permission. */
  *decodeHandle(handle: FileHandle): Task<HostInode | undefined> {
    if (this.#rootIo < 0 || !isSame(handle.uuid, this.uuid)) return undefined;
    const fd = tryOpenByHandle(this.#rootIo, handle, O_PATH | O_NOFOLLOW);
    if (fd < 0) {
      if (isUndecodable(fd)) return undefined;
      fail(-fd);
    }
    const result = tryStatx(fd, '');
    if (result < 0) {
      tryClose(fd);
      return undefined;
    }
    const type = statxMode() & S_IFMT;
    if (type === S_IFDIR) return this.#detachedDirectory(fd);
    const inode = new HostInode(this, type, statxIno(), undefined);
    this.process.descriptors.pin(inode.adopt(fd, FdAccess.Path));
    return inode;
  }

  *unmount(): Task<void> {
    try {
      if (this.#rootIo >= 0 && !this.#volatile) yield* this.syncfs();
    } finally {
      if (this.#rootIo >= 0) tryClose(this.#rootIo);
      this.changes?.close();
      this.process.descriptors.dropWhere((descriptor) => this.#owns(descriptor));
      this.process.settle();
    }
  }

  #owns(descriptor: Descriptor): boolean {
    const ours = descriptor instanceof HostDir || descriptor instanceof InodeDescriptor;
    return ours && descriptor.owner === this;
  }
}

function openDirectory(path: string, isolate: boolean, readOnly: boolean): number {
  if (path.includes('\0')) throw pathError(Errno.EINVAL, path);
  if (isolate) {
    const tree = tryOpenTree(AT_FDCWD, path, OPEN_TREE_CLONE);
    if (tree >= 0) {
      // A courtesy to the branch: we do not write to it anyway.
      if (readOnly) tryMountSetattr(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME);
      return tree;
    }
    // Whatever the reason (privilege, an old kernel, locked mounts beneath), the plain way tells.
  }
  const fd = tryOpenat(AT_FDCWD, path, O_PATH | O_DIRECTORY);
  if (fd < 0) throw pathError(-fd, path);
  return fd;
}

function pathError(errno: number, path: string): FsError {
  const detail = errno === Errno.ENOTDIR ? `${path} is not a directory` : path;
  return new FsError(errno, detail);
}

/** What open_by_handle_at answers for a handle that leads nowhere, or may not be used. */
function isUndecodable(result: number): boolean {
  switch (-result) {
    case Errno.ESTALE:
    case Errno.ENOENT:
    case Errno.EPERM:
    case Errno.EINVAL:
    case Errno.EOPNOTSUPP:
      return true;
    default:
      return false;
  }
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
