/**
 * An inode of a host filesystem: a location, and a descriptor while there is one.
 *
 * I1. A directory's location and descriptor are its HostDir's, shared by all inodes that mean it. Any
 *     other inode has a location (dir, name) of its own, and once it was opened a descriptor in the
 *     cache or pinned.
 * I2. Lookup gives a new object each time: one HostInode, one `forget`. Two objects may mean one file;
 *     an unlink or rename through one is not told to the other (whose location is then ENOENT).
 * I3. Every name is resolved one component at a time from a descriptor, never following a symlink:
 *     no link in a branch leads out of it.
 * I4. Nothing is kept of what the host knows but: the type, the inode number as last seen, and
 *     S_ISGID of directories. Changes made beneath are seen at the next call; a location that is gone
 *     answers ENOENT or ESTALE.
 * I5. An inode that was only looked up is this object and its name: a million are known at a time, so
 *     what few of them need is in an InodeDescriptor. Its methods are `private` and not `#`: a class
 *     with `#` methods marks each of its objects, by a field.
 */
// Host calls on names never wait here, but the contract makes them tasks.
/* oxlint-disable require-yield */
import { Errno } from '../../abi/errno.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import { errnoOf, fail } from '../../kernel/error.ts';
import { assert } from '../../lib/assert.ts';
import type { Task } from '../../kernel/task.ts';
import { tryNameToHandle } from '../../sys/file-handle.ts';
import { getdents64 } from '../../sys/getdents.ts';
import { orFail } from '../../sys/native.ts';
import { readlinkat } from '../../sys/namespace.ts';
import { tryClose } from '../../sys/open.ts';
import { statxIno, statxMode, statxRecord, tryStatx } from '../../sys/statx.ts';
import {
  tryGetxattr,
  tryListxattr,
  tryRemovexattr,
  trySetxattr,
  xattrNames,
  xattrValue,
} from '../../sys/xattr.ts';
import type {
  Cred,
  DirEntry,
  FileHandle,
  Inode,
  IoBuffer,
  Name,
  SetAttr,
} from '../../vfs/inode-operations.ts';
import { anchorFd, anchorName, dataFd, statInode, xattrName } from './anchor.ts';
import {
  makeDirectory,
  makeFile,
  makeNode,
  makeSymlink,
  makeTmpfile,
  type Making,
} from './create.ts';
import { FdAccess } from './descriptor-cache.ts';
import {
  copyFile,
  fallocateFile,
  hasWritebackError,
  openListing,
  readFile,
  seekFile,
  syncFile,
  writeFile,
} from './file-data.ts';
import { fileIoctl } from './file-ioctl.ts';
import { type HostDir, UNKNOWN_INO } from './host-dir.ts';
import type { HostFs } from './host-fs.ts';
import { isLackOfSpace } from './host-process.ts';
import { InodeDescriptor } from './inode-descriptor.ts';
import { checkName } from './names.ts';
import {
  checkRenameFlags,
  linkInode,
  type Location,
  type Rename,
  removeDirectory,
  renameInode,
  unlinkInode,
} from './namespace.ts';
import { setAttributes } from './set-attributes.ts';

/** What a lookup of name and attributes at once finds. */
export interface Found {
  readonly inode: HostInode;
  readonly stat: Stat;
}

/** In the bits beside the type. */
const FORGOTTEN = 1;

export class HostInode implements Inode {
  readonly fs: HostFs;
  declare doorNode?: number;

  /** The type, which is the S_IFMT bits, and FORGOTTEN. */
  #bits: number;
  /** Directories: the place it is. Others: the one it is in, if it has a name that we know. */
  #place: HostDir | undefined;
  /** In `dir`. */
  name = '';
  /** As last seen. */
  ino: number;
  /** Once it was opened. */
  opened: InodeDescriptor | undefined = undefined;

  /** `self` comes with a user counted for this inode. */
  constructor(fs: HostFs, type: number, ino: number, self: HostDir | undefined) {
    this.fs = fs;
    this.#bits = type;
    this.#place = self;
    this.ino = ino;
  }

  get type(): number {
    return this.#bits & S_IFMT;
  }

  /** Directories: the place it is. */
  get self(): HostDir | undefined {
    return this.type === S_IFDIR ? this.#place : undefined;
  }

  /** Others: where it is; undefined once it has no name that we know. */
  get dir(): HostDir | undefined {
    return this.type === S_IFDIR ? undefined : this.#place;
  }
  set dir(dir: HostDir | undefined) {
    assert(this.type !== S_IFDIR, 'a directory is its own place');
    this.#place = dir;
  }

  /** Further names. */
  get others(): Location[] | undefined {
    return this.opened?.others;
  }
  set others(others: Location[] | undefined) {
    (this.opened ??= new InodeDescriptor(this.fs)).others = others;
  }

  /** The open descriptor of what is no directory, or -1. */
  get fd(): number {
    return this.opened === undefined ? -1 : this.opened.fd;
  }
  /** What it is good for. */
  get access(): FdAccess {
    return this.opened === undefined ? FdAccess.Path : this.opened.access;
  }
  /** It is the only way to the object. */
  get pinned(): boolean {
    return this.opened?.pinned ?? false;
  }

  /** Take a just opened descriptor in, and cache it. */
  adopt(fd: number, access: FdAccess): InodeDescriptor {
    const opened = (this.opened ??= new InodeDescriptor(this.fs));
    this.fs.process.descriptors.adopt(opened, fd);
    opened.access = access;
    return opened;
  }

  /** The descriptor of an inode that has one open. */
  get open(): InodeDescriptor {
    assert(this.opened !== undefined && this.opened.fd >= 0, 'an inode without a descriptor');
    return this.opened;
  }

  get parentIno(): number | undefined {
    const ino = this.self?.parent?.ino ?? UNKNOWN_INO;
    return ino === UNKNOWN_INO ? undefined : ino;
  }

  /** Errors: ENOTDIR. */
  directory(): HostDir {
    const { self } = this;
    if (self === undefined) fail(Errno.ENOTDIR);
    return self;
  }

  *getattr(): Task<Stat> {
    statInode(this);
    const stat = statxRecord();
    this.learn(stat);
    return stat;
  }

  private learn(stat: Stat): void {
    this.ino = stat.ino;
    const { self } = this;
    if (self === undefined) return;
    self.ino = stat.ino;
    self.setgid = (stat.mode & S_ISGID) !== 0;
  }

  *setattr(changes: SetAttr): Task<void> {
    this.fs.process.withSpace(() => setAttributes(this, changes));
  }

  *readlink(): Task<string> {
    if (this.type !== S_IFLNK) fail(Errno.EINVAL);
    const name = anchorName(this);
    return readlinkat(anchorFd(this), name);
  }

  // -- directories --

  *lookup(name: Name): Task<HostInode | undefined> {
    return this.find(name) ? this.found(name) : undefined;
  }

  /** Lookup and getattr by one call of the host. */
  *lookupWithStat(name: Name): Task<Found | undefined> {
    if (!this.find(name)) return undefined;
    const stat = statxRecord();
    return { inode: this.found(name), stat };
  }

  /** statx of a name into scratch; false if there is none. */
  private find(name: Name): boolean {
    checkName(name);
    const result = tryStatx(this.directory().descriptor(), name);
    if (result < 0 && result !== -Errno.ENOENT) fail(-result);
    return result >= 0;
  }

  /** The inode of what statx has just found. */
  private found(name: Name): HostInode {
    const mode = statxMode();
    const ino = statxIno();
    const type = mode & S_IFMT;
    if (type !== S_IFDIR) return this.childAt(name, type, ino);
    const self = this.directory().child(name, ino);
    self.setgid = (mode & S_ISGID) !== 0;
    return new HostInode(this.fs, type, ino, self);
  }

  /** The inode of a name here that is no directory. */
  private childAt(name: Name, type: number, ino: number): HostInode {
    const inode = new HostInode(this.fs, type, ino, undefined);
    const dir = this.directory();
    dir.retain();
    inode.dir = dir;
    inode.name = name;
    return inode;
  }

  *readdir(): Task<DirEntry[]> {
    const fd = openListing(this);
    try {
      return getdents64(fd) as DirEntry[];
    } finally {
      tryClose(fd);
    }
  }

  *create(name: Name, mode: number, cred: Cred): Task<HostInode> {
    const making = this.making(name, cred);
    const fd = making.process.withSpace(() => makeFile(making, name, mode));
    const inode = this.childAt(name, S_IFREG, UNKNOWN_INO);
    inode.adopt(fd, FdAccess.Write);
    return inode;
  }

  *tmpfile(mode: number, cred: Cred): Task<HostInode> {
    const dir = this.directory();
    if (this.fs.readOnly) fail(Errno.EROFS);
    const making = { process: this.fs.process, dir, cred };
    const fd = making.process.withSpace(() => makeTmpfile(making, mode));
    const inode = new HostInode(this.fs, S_IFREG, UNKNOWN_INO, undefined);
    this.fs.process.descriptors.pin(inode.adopt(fd, FdAccess.Write));
    return inode;
  }

  *mkdir(name: Name, mode: number, cred: Cred): Task<HostInode> {
    const making = this.making(name, cred);
    making.process.withSpace(() => makeDirectory(making, name, mode));
    const dir = this.directory();
    dir.cutOffChild(name);
    const self = dir.child(name, UNKNOWN_INO);
    self.setgid = dir.setgid;
    return new HostInode(this.fs, S_IFDIR, UNKNOWN_INO, self);
  }

  *mknod(
    name: Name,
    mode: number,
    rdevMajor: number,
    rdevMinor: number,
    cred: Cred,
  ): Task<HostInode> {
    const device = { major: rdevMajor, minor: rdevMinor };
    const making = this.making(name, cred);
    making.process.withSpace(() => makeNode(making, name, mode, device));
    const type = (mode & S_IFMT) === 0 ? S_IFREG : mode & S_IFMT;
    return this.childAt(name, type, UNKNOWN_INO);
  }

  *symlink(name: Name, target: string, cred: Cred): Task<HostInode> {
    const making = this.making(name, cred);
    making.process.withSpace(() => makeSymlink(making, name, target));
    return this.childAt(name, S_IFLNK, UNKNOWN_INO);
  }

  /** The checks before something is made. Errors: ENAMETOOLONG; ENOTDIR; EEXIST; EROFS. */
  private making(name: Name, cred: Cred): Making {
    checkName(name);
    const dir = this.directory();
    if (this.fs.readOnly) fail(this.find(name) ? Errno.EEXIST : Errno.EROFS);
    return { process: this.fs.process, dir, cred };
  }

  *link(name: Name, target: Inode): Task<void> {
    checkName(name);
    const dir = this.directory();
    if (!(target instanceof HostInode) || target.fs !== this.fs) fail(Errno.EXDEV);
    if (this.fs.readOnly) fail(this.find(name) ? Errno.EEXIST : Errno.EROFS);
    this.fs.process.withSpace(() => linkInode(dir, name, target));
  }

  *unlink(name: Name, victim: Inode): Task<void> {
    this.checkRemoval(name);
    this.fs.process.withSpace(() => unlinkInode(this.directory(), name, this.own(victim)));
  }

  *rmdir(name: Name, victim: Inode): Task<void> {
    this.checkRemoval(name);
    removeDirectory(this.directory(), name, this.own(victim));
  }

  private checkRemoval(name: Name): void {
    checkName(name);
    this.directory();
    if (this.fs.readOnly) fail(this.find(name) ? Errno.EROFS : Errno.ENOENT);
  }

  /** Errors: EXDEV it is of another filesystem. */
  private own(inode: Inode): HostInode {
    if (!(inode instanceof HostInode) || inode.fs !== this.fs) fail(Errno.EXDEV);
    return inode;
  }

  *rename(
    name: Name,
    source: Inode,
    newDir: Inode,
    newName: Name,
    replaced: Inode | undefined,
    flags: number,
  ): Task<void> {
    checkName(name);
    checkName(newName);
    checkRenameFlags(flags);
    const to = this.own(newDir);
    const dir = this.directory();
    if (this.fs.readOnly) fail(this.find(name) ? Errno.EROFS : Errno.ENOENT);
    const rename: Rename = {
      dir,
      name,
      source: this.own(source),
      newDir: to.directory(),
      newName,
      replaced: replaced === undefined ? undefined : this.own(replaced),
      flags,
    };
    this.fs.process.withSpace(() => renameInode(rename));
  }

  // -- regular files --

  read(buffer: IoBuffer, position: number): Task<number> {
    return readFile(this, buffer, position);
  }

  *write(buffer: IoBuffer, position: number): Task<number> {
    return writeFile(this, buffer, position);
  }

  fsync(dataOnly: boolean): Task<void> {
    return syncFile(this, dataOnly);
  }

  *writebackFailed(): Task<boolean> {
    return this.type === S_IFREG && hasWritebackError(this);
  }

  *fallocate(mode: number, position: number, length: number): Task<void> {
    this.fs.process.withSpace(() => fallocateFile(this, mode, position, length));
  }

  *seek(position: number, whence: number): Task<number> {
    return seekFile(this, position, whence);
  }

  /** Into any file of any HostFs: whether that is the same filesystem, the host knows best. */
  *copyRange(
    position: number,
    target: Inode,
    targetPosition: number,
    length: number,
  ): Task<number> {
    if (!(target instanceof HostInode)) fail(Errno.EXDEV);
    const copying = { position, target, targetPosition, length };
    try {
      return yield* copyFile(this, copying);
    } catch (error) {
      if (!isLackOfSpace(errnoOf(error)) || !this.fs.process.settle()) throw error;
      return yield* copyFile(this, copying);
    }
  }

  *backing(): Task<number | undefined> {
    if (this.fs.readOnly || this.type !== S_IFREG) return undefined;
    return dataFd(this, FdAccess.Read);
  }

  // -- extended attributes --

  *getxattr(name: string): Task<Uint8Array | undefined> {
    const at = xattrName(this);
    const length = tryGetxattr(anchorFd(this), at, name);
    if (length === -Errno.ENODATA) return undefined;
    return xattrValue(orFail(length));
  }

  *setxattr(name: string, value: Uint8Array, flags: number): Task<void> {
    if (this.fs.readOnly) fail(Errno.EROFS);
    const at = xattrName(this);
    const { process } = this.fs;
    process.withSpace(() => orFail(trySetxattr(anchorFd(this), at, name, value, flags)));
  }

  *listxattr(): Task<string[]> {
    const at = xattrName(this);
    return xattrNames(orFail(tryListxattr(anchorFd(this), at)));
  }

  *removexattr(name: string): Task<void> {
    if (this.fs.readOnly) fail(Errno.EROFS);
    const at = xattrName(this);
    orFail(tryRemovexattr(anchorFd(this), at, name));
  }

  // -- the rest --

  *exportHandle(): Task<FileHandle | undefined> {
    const at = anchorName(this);
    const handle = tryNameToHandle(anchorFd(this), at);
    if (typeof handle !== 'number') return { ...handle, uuid: this.fs.uuid };
    if (handle !== -Errno.EOPNOTSUPP && handle !== -Errno.EOVERFLOW) fail(-handle);
    return undefined;
  }

  *ioctl(command: number, input: Uint8Array, outputBytes: number): Task<Uint8Array> {
    return fileIoctl(this, command, input, outputBytes);
  }

  forget(): void {
    if ((this.#bits & FORGOTTEN) !== 0) return;
    this.#bits |= FORGOTTEN;
    if (this.opened !== undefined) this.fs.process.descriptors.drop(this.opened);
    this.#place?.releaseUser();
    if (this.type !== S_IFDIR) this.#place = undefined;
    for (const known of this.others?.splice(0) ?? []) known.dir.releaseUser();
  }
}
