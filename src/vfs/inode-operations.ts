/**
 * THE contract: what every filesystem here gives, and what the union and the doors may use.
 *
 * Words: a *name* is one path component as bytes, held in a string with one char per byte (latin1):
 * never empty, never `.` or `..`, without `/` and NUL, at most 255 bytes (longer: ENAMETOOLONG, and
 * that check comes before any other of the name). An *inode* is one object of one filesystem. A
 * *dir inode* is one whose type is S_IFDIR.
 *
 * Rules for everyone:
 *  V1. Absence is a value: `lookup` gives undefined, never ENOENT.
 *  V2. Permission is checked by the caller (kernel's default_permissions, or nodefs). Ownership is
 *      not: creating calls get a `Cred` and give the object its uid and gid (setgid directories
 *      hand down their group, and S_ISGID to a directory), honour `umask` unless the parent has a
 *      default ACL.
 *  V3. A call either has its whole effect or none, save writes, which may be short.
 *  V4. An inode stays usable after its last name is gone, until `forget` is called on it.
 *  V5. After `rename`, the inodes given in the call are valid under their new names.
 *  V6. Names and types are checked before anything changes: errors below are in order of precedence.
 *      EROFS where the filesystem is read-only comes after the checks of names and types, as in
 *      Linux's mnt_want_write(), which follows the lookup; EIO may be thrown by every call, last.
 *  V7. Optional methods: a filesystem without the method has not the capability; the caller
 *      answers EOPNOTSUPP (xattr, fallocate, exchange, tmpfile), or does it another way (copyRange).
 */
import type { Brand } from '../lib/brand.ts';
import type { Stat, StatFs } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';

/** One path component, one char per byte. */
export type Name = Brand<string, 'Name'>;

/** Who asks: gives ownership to what is created. */
export interface Cred {
  readonly uid: number;
  readonly gid: number;
  /** Bits taken from the mode of created objects where the parent has no default ACL. */
  readonly umask: number;
  readonly pid: number;
}

/** A point in time: whole seconds and nanoseconds, or the filesystem's own clock. */
export type Time = { readonly sec: number; readonly nsec: number } | 'now';

/** What `setattr` changes: an absent field stays. */
export interface SetAttr {
  /** Permission bits, 0o7777. */
  mode?: number;
  uid?: number;
  gid?: number;
  /** Bytes. Regular files only. The size it has: nothing changes, mtime included (truncate(2) in POSIX). */
  size?: number;
  atime?: Time;
  mtime?: Time;
  /** Take S_ISUID and S_ISGID (with group execute) and security.capability away, as a chown, write or truncate must. */
  killPriv?: boolean;
}

/** One entry of a directory; `type` is a DT_ value, DT_UNKNOWN if only a lookup would tell. */
export interface DirEntry {
  name: Name;
  ino: number;
  type: number;
}

/** A range of memory to read into or write from. */
export interface IoBuffer {
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly length: number;
}

/** What a name means: an inode, and its attributes at that moment. */
export interface Entry {
  readonly inode: Inode;
  readonly stat: Stat;
}

/** name_to_handle_at(2)'s record plus the UUID of the filesystem (16 bytes, zero if it has none). */
export interface FileHandle {
  readonly type: number;
  readonly bytes: Uint8Array;
  readonly uuid: Uint8Array;
}

export interface Inode {
  readonly fs: FileSystem;
  /** The S_IFMT bits of the mode: fixed for life. */
  readonly type: number;
  /**
   * The door's own: where its table keeps this inode, below zero if it does not. Nobody else reads
   * or writes it. A class does well to declare it (`doorNode = -1`), so that it costs no new shape.
   */
  doorNode?: number;
  /** Directories: the inode number of the parent, for `..` in listings, where the filesystem knows it. */
  readonly parentIno?: number | undefined;

  /** Errors: EIO. */
  getattr(): Task<Stat>;

  /**
   * Order of the parts: owner, mode, size, times (a later part must not be undone by an earlier).
   * Errors: EINVAL size of a non-file (EISDIR of a directory); EFBIG; EROFS; EPERM (immutable); ENOSPC.
   */
  setattr(changes: SetAttr): Task<void>;

  /** The target of a symlink, bytes as chars. Errors: EINVAL not a symlink. */
  readlink(): Task<string>;

  // -- directories; every one: ENOTDIR if this is none, ENAMETOOLONG first --

  /** The inode of that name, or undefined. A filesystem may give the same object again, or a new one. */
  lookup(name: Name): Task<Inode | undefined>;

  /** `lookup` and then `getattr` in one, where that is cheaper. */
  lookupWithStat?(name: Name): Task<Entry | undefined>;

  /** All entries but `.` and `..`, in any order, as of one moment. */
  readdir(): Task<DirEntry[]>;

  /** A new empty regular file. Errors: EEXIST; EROFS; ENOENT this directory was removed; ENOSPC; EDQUOT. */
  create(name: Name, mode: number, cred: Cred): Task<Inode>;

  /** Errors: EEXIST; EROFS; ENOENT; EMLINK; ENOSPC. */
  mkdir(name: Name, mode: number, cred: Cred): Task<Inode>;

  /** A fifo, socket, device or regular file. Errors: EEXIST; EROFS; ENOENT; EPERM (devices, unprivileged); ENOSPC. */
  mknod(name: Name, mode: number, rdevMajor: number, rdevMinor: number, cred: Cred): Task<Inode>;

  /** Errors: EEXIST; EROFS; ENOENT; ENAMETOOLONG the target is over 4095 bytes; ENOSPC. */
  symlink(name: Name, target: string, cred: Cred): Task<Inode>;

  /** A further name for `target`, also one that has no name (tmpfile). Errors: EXDEV another filesystem; EEXIST; EPERM a directory; EROFS; EMLINK; ENOSPC. */
  link(name: Name, target: Inode): Task<void>;

  /** `victim` is what lookup gave. Errors: ENOENT; EISDIR; EROFS; EPERM; EBUSY. */
  unlink(name: Name, victim: Inode): Task<void>;

  /** Errors: ENOENT; ENOTDIR; ENOTEMPTY; EROFS; EBUSY. */
  rmdir(name: Name, victim: Inode): Task<void>;

  /**
   * `source` is what is under `name`, `replaced` what is under `newName` of `newDir`, if anything.
   * `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT (a branch only).
   * Two names of one inode: success, nothing changes.
   * Errors: EINVAL unknown or contradicting flags; ENOENT; EXDEV; EEXIST (NOREPLACE); EINVAL into its own
   * subtree; ENOTEMPTY; EISDIR / ENOTDIR; EROFS; ENOSPC.
   */
  rename(name: Name, source: Inode, newDir: Inode, newName: Name, replaced: Inode | undefined, flags: number): Task<void>;

  /** A regular file without a name, to be given one by `link`. */
  tmpfile?(mode: number, cred: Cred): Task<Inode>;

  // -- regular files --

  /** Bytes read; fewer than asked only at the end of the file. Errors: EISDIR; EINVAL not a file. */
  read(buffer: IoBuffer, position: number): Task<number>;

  /** Bytes written, all of them unless an error stopped it part way. Errors: EISDIR; EFBIG; EROFS; ENOSPC; EDQUOT. */
  write(buffer: IoBuffer, position: number): Task<number>;

  /** Data and metadata (`dataOnly`: what reading the data back needs) are on stable storage. Directories too. */
  fsync(dataOnly: boolean): Task<void>;

  /** Writing its data to storage has failed since this was last asked. Nothing is written for the answer. */
  writebackFailed?(): Task<boolean>;

  /** fallocate(2) modes. Errors: EINVAL; EOPNOTSUPP a mode that is not known; EFBIG; ENOSPC. */
  fallocate?(mode: number, position: number, length: number): Task<void>;

  /** lseek(2) SEEK_DATA and SEEK_HOLE. Errors: EINVAL; ENXIO beyond the end or no data after it. */
  seek?(position: number, whence: number): Task<number>;

  /** copy_file_range(2) from here. Errors: EXDEV another filesystem; EOPNOTSUPP; EINVAL overlap. */
  copyRange?(position: number, target: Inode, targetPosition: number, length: number): Task<number>;

  /**
   * A descriptor of the host's file that has all the data of this one and will have it for as long as
   * the inode lives, to be read and written there by others (the kernel) beside us. It is good until
   * the next call of any inode. Undefined: there is none, or none yet. Errors: what opening it answers.
   */
  backing?(): Task<number | undefined>;

  // -- extended attributes: names are whole (`user.x`), values are bytes --

  /** The value, or undefined if there is none. Errors: EOPNOTSUPP; ERANGE never (the door does sizes). */
  getxattr?(name: string): Task<Uint8Array | undefined>;
  /** Errors: EEXIST (XATTR_CREATE); ENODATA (XATTR_REPLACE); EOPNOTSUPP; E2BIG; EPERM; ENOSPC. */
  setxattr?(name: string, value: Uint8Array, flags: number): Task<void>;
  listxattr?(): Task<string[]>;
  /** Errors: ENODATA; EOPNOTSUPP; EPERM. */
  removexattr?(name: string): Task<void>;

  /** A handle that names this inode for as long as it exists, over remounts: name_to_handle_at(2). */
  exportHandle?(): Task<FileHandle | undefined>;

  /** ioctl(2) of the FS_IOC_GETFLAGS class. Errors: ENOTTY unknown here. */
  ioctl?(command: number, input: Uint8Array, outputBytes: number): Task<Uint8Array>;

  /** The caller has let go of it: descriptors may be closed. It is not used again. */
  forget(): void;
}

/** What somebody else did to a watched directory of a branch. */
export type BeneathChange =
  | { kind: 'entry'; dir: Inode; name: Name } // A name came, went, or now means something else.
  | { kind: 'content'; dir: Inode; name: Name } // The named object's data or attributes changed.
  | { kind: 'self'; dir: Inode } // The directory's own attributes changed, or it went away.
  | { kind: 'overflow' }; // Changes were lost: anything may have changed.

/** Tells of changes made beneath, by others than us. */
export interface ChangeSource {
  /** Readable when there is something to `drain`; for poll(2). */
  readonly fd: number;
  /** Tell of changes to this directory's entries from now on. False: no more can be watched. */
  watch(dir: Inode): boolean;
  unwatch(dir: Inode): void;
  drain(): BeneathChange[];
}

/** What a filesystem that sees changes beneath asks of its door: drop what the kernel caches. */
export interface CacheInvalidation {
  entry(parent: Inode, name: Name): void;
  inode(inode: Inode): void;
}

/** A superblock: one mounted instance of a filesystem. */
export interface FileSystem {
  /** For messages: `host:/srv/base`, `union`. */
  readonly label: string;
  readonly root: Inode;
  readonly readOnly: boolean;
  statfs(): Task<StatFs>;
  /** The inode of a handle that `exportHandle` gave, or undefined if it is gone or may not be decoded. */
  decodeHandle?(handle: FileHandle): Task<Inode | undefined>;
  /** Changes made beneath, where the filesystem can be told of them. */
  readonly changes?: ChangeSource;
  /** False: what was looked up may change unnoticed, so a door may cache it for a second only. */
  readonly coherent?: boolean;
  /** Everything accepted so far is on stable storage. */
  syncfs(): Task<void>;
  /** Flush, close all. Not used again. */
  unmount(): Task<void>;
}
