/**
 * A branch: one filesystem of the stack, with what the union needs to write there.
 *
 * B1. `index` orders branches: 0 is leftmost and wins. It never changes while mounted.
 * B2. A writable branch has a work directory on the same filesystem: `work/` for what is being made,
 *     `index/` for the hard-link index. Nothing in `work/` outlives a mount: `openWork` empties it,
 *     but for `incompat/` (volatile.ts).
 */
import { Errno } from '../../abi/errno.ts';
import { assert } from '../../lib/assert.ts';
import { hexOf } from '../../lib/latin1.ts';
import { FsError, errnoOf } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import { PERMISSION_BITS, isDir } from '../../abi/mode.ts';
import type { Cred, FileSystem, Inode, Name } from '../../vfs/inode-operations.ts';
import { OPAQUE, WHITEOUT, YES } from './format.ts';
import type { XattrPrefix } from './format.ts';
import type { InodeNumbers } from './inode-number.ts';

/** What the composition root gives for each branch, leftmost first. */
export interface BranchSpec {
  readonly fs: FileSystem;
  readonly root: Inode;
  readonly mode: 'rw' | 'ro';
  /** A directory on the same filesystem, outside of `root` or hidden in it. Needed by `rw`. */
  readonly work?: Inode;
  /** An entry of `root` that is not part of the tree: a work directory that had to be put there. */
  readonly hidden?: Name;
  /** For messages. */
  readonly label: string;
  /** The same of `work`. */
  readonly workLabel?: string;
  /** Whoever mounts it has unmounted it a moment ago: that it was volatile then is no reason to refuse it. */
  readonly resumed?: boolean;
}

/** What all branches of a stack share. */
export interface StackFacts {
  readonly prefix: XattrPrefix;
  readonly bottomIndex: number;
  readonly numbers: InodeNumbers;
}

/** In `work/`: what a mount must know before it touches anything there, as overlayfs has it. */
export const INCOMPAT = 'incompat' as Name;

export const ROOT_CRED: Cred = { uid: 0, gid: 0, umask: 0, pid: 0 };

export class Branch {
  readonly index: number;
  readonly fs: FileSystem;
  readonly root: Inode;
  readonly writable: boolean;
  readonly label: string;
  readonly hidden: Name | undefined;
  readonly prefix: XattrPrefix;
  /** Which filesystem its inode numbers belong to: 0 for the first one met, see inode-number.ts. */
  readonly numberSpace: number;
  /** Set by `openWork` on a writable branch. */
  work!: Inode;
  indexDir!: Inode;
  /** What is created in `work/` has the very mode that was asked for. Found out by `openWork`. */
  keepsModes = false;
  uuid: Uint8Array | undefined;
  /** What new whiteouts are hard links of (whiteout.ts, W4); undefined where that is not possible. */
  sharedWhiteout: Inode | undefined;
  /** How whiteouts are made here: found out at mount. */
  whiteoutForm: 'device' | 'xattr' = 'device';
  /** Entries of `work/` that could not be taken away: the next mount does it (B2). */
  leftovers = 0;
  #tempCount = 0;

  /** The rightmost branch's index: nothing lies beneath that one. */
  readonly bottomIndex: number;
  readonly numbers: InodeNumbers;

  constructor(spec: BranchSpec, index: number, stack: StackFacts, numberSpace: number) {
    this.index = index;
    this.bottomIndex = stack.bottomIndex;
    this.numbers = stack.numbers;
    this.fs = spec.fs;
    this.root = spec.root;
    this.writable = spec.mode === 'rw';
    this.label = spec.label;
    this.hidden = spec.hidden;
    this.prefix = stack.prefix;
    this.numberSpace = numberSpace;
  }

  /** A name in `work/` that no other has. `#` as the kernel names its own. */
  tempName(): Name {
    return `#${(this.#tempCount++).toString(16)}` as Name;
  }

  /** Value of one of the union's own xattrs, undefined where there is none or cannot be one. */
  *overlayXattr(inode: Inode, name: string): Task<Uint8Array | undefined> {
    if (inode.getxattr === undefined) return undefined;
    try {
      return yield* inode.getxattr(this.prefix + name);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== Errno.EOPNOTSUPP && errno !== Errno.EPERM && errno !== Errno.EACCES) throw error;
      return undefined;
    }
  }

  *setOverlayXattr(inode: Inode, name: string, value: Uint8Array): Task<void> {
    assert(this.writable, 'overlay xattrs are written on rw branches only');
    yield* inode.setxattr!(this.prefix + name, value, 0);
  }

  *removeOverlayXattr(inode: Inode, name: string): Task<void> {
    try {
      yield* inode.removexattr!(this.prefix + name);
    } catch (error) {
      if (errnoOf(error) !== Errno.ENODATA) throw error;
    }
  }

  /**
   * Take away what is in `work/`: after a commit, or for want of one. The operation's outcome is
   * decided by then, so a failure is not its error: the entry stays until the next mount (B2).
   */
  *discard(removal: Task<void>): Task<void> {
    try {
      yield* removal;
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      this.leftovers++;
    }
  }

  *isOpaque(inode: Inode): Task<boolean> {
    const value = yield* this.overlayXattr(inode, OPAQUE);
    return value !== undefined && value.length === 1 && value[0] === YES[0];
  }

  *setOpaque(inode: Inode): Task<void> {
    yield* this.setOverlayXattr(inode, OPAQUE, YES);
  }
}

/** Where the origin's handle has no UUID: sixteen zero bytes. */
export const NO_UUID = new Uint8Array(16);

export const sameUuid = (a: Uint8Array, b: Uint8Array): boolean => hexOf(a) === hexOf(b);

/** `work/` and `index/` under the given directory: made if missing, `work/` emptied. */
export function* openWork(branch: Branch, base: Inode): Task<void> {
  branch.work = yield* subdirectory(base, 'work' as Name);
  branch.indexDir = yield* subdirectory(base, 'index' as Name);
  yield* emptyDirectory(branch.work, INCOMPAT);
  yield* dropAcl(branch.work);
  branch.keepsModes = yield* probeModes(branch);
}

/**
 * What is made here is a copy of something, and gets the ACL of that: not one which the directory around
 * the work directory hands down. As ovl_workdir_create in fs/overlayfs/super.c does.
 */
function* dropAcl(work: Inode): Task<void> {
  if (work.removexattr === undefined) return;
  for (const name of ['system.posix_acl_default', 'system.posix_acl_access']) {
    try {
      yield* work.removexattr(name);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== Errno.ENODATA && errno !== Errno.EOPNOTSUPP && errno !== Errno.EPERM) throw error;
    }
  }
}

/** Not where something hands down another kind of ACL, or the filesystem has no modes. */
function* probeModes(branch: Branch): Task<boolean> {
  const name = branch.tempName();
  const probe = yield* branch.work.create(name, 0o777, ROOT_CRED);
  try {
    return ((yield* probe.getattr()).mode & PERMISSION_BITS) === 0o777;
  } finally {
    yield* branch.discard(branch.work.unlink(name, probe));
    probe.forget();
  }
}

function* subdirectory(base: Inode, name: Name): Task<Inode> {
  const present = yield* base.lookup(name);
  if (present !== undefined) {
    if (!isDir(present.type)) throw new FsError(Errno.ENOTDIR, `work directory's ${name} is not a directory`);
    return present;
  }
  return yield* base.mkdir(name, 0o700, ROOT_CRED);
}

/** Remove all that is in a directory, whatever it is, but one: for what only this union can have made. */
export function* emptyDirectory(dir: Inode, kept?: Name): Task<void> {
  for (const entry of yield* dir.readdir()) {
    if (entry.name === kept) continue;
    const child = yield* dir.lookup(entry.name);
    if (child === undefined) continue;
    try {
      if (isDir(child.type)) {
        yield* emptyDirectory(child);
        yield* dir.rmdir(entry.name, child);
      } else {
        yield* dir.unlink(entry.name, child);
      }
    } finally {
      child.forget();
    }
  }
}

/** Can this branch hold xattrs of the prefix? Writes and removes one on the work directory. */
export function* probeXattr(work: Inode, prefix: XattrPrefix): Task<boolean> {
  if (work.setxattr === undefined || work.removexattr === undefined) return false;
  try {
    yield* work.setxattr(prefix + WHITEOUT, YES, 0);
    yield* work.removexattr(prefix + WHITEOUT);
    return true;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== Errno.EPERM && errno !== Errno.EOPNOTSUPP && errno !== Errno.EACCES) throw error;
    return false;
  }
}
