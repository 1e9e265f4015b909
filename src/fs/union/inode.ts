/**
 * A union inode: one object of the merged tree.
 *
 * U1. `real` on `branch` is what the union shows; copy-up moves it to the left, never back.
 * U2. A directory's `lowers` are the directories merged beneath `real`, top first. None beneath an
 *     opaque one. Of other types `lowers` is undefined.
 * U3. `data`, if set, is where the bytes of a metacopy file are; it is cleared when they are copied.
 * U4. (parent, name) is one of its names; further known names are in `aliases`. `parent` is undefined
 *     for the root and for an orphan (unlinked, or a tmpfile): `orphan` tells them apart.
 * U5. It is in `UnionFs.inodes` under `ino` as long as the door holds it or it has children there.
 * Lock order: inode.copyUpLock, parent before child, then by ascending ino.
 */
import { Errno } from '../../abi/errno.ts';
import { S_IFDIR, S_IFREG } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import { Mutex } from '../../kernel/locking/mutex.ts';
import { fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Cred, DirEntry, Entry, FileHandle, Inode, IoBuffer, Name, SetAttr } from '../../vfs/inode-operations.ts';
import type { Branch } from './branch.ts';
import type { UnionFs } from './union.ts';
import * as attributes from './attributes.ts';
import * as create from './create.ts';
import * as lookup from './lookup.ts';
import * as readdir from './readdir.ts';
import * as regular from './regular-file.ts';
import * as remove from './remove.ts';
import * as renames from './rename.ts';
import * as xattrs from './xattr.ts';

/** A directory or file of one branch. */
export interface Layer {
  readonly branch: Branch;
  readonly inode: Inode;
}

export const COPY_UP_LOCK = { name: 'union.copyUpLock', nestable: true } as const;

export interface Alias {
  readonly parent: UnionInode;
  readonly name: Name;
}

export class UnionInode implements Inode {
  readonly fs: UnionFs;
  readonly type: number;
  readonly ino: number;
  branch: Branch;
  real: Inode;
  lowers: Layer[] | undefined;
  data: Layer | undefined;
  parent: UnionInode | undefined;
  name: Name;
  aliases: Alias[] | undefined;
  orphan = false;
  /** Some layer beneath is found under another path than the union's: see copy-up.ts. */
  redirected = false;
  /** Value of the redirect xattr on `real`, if it has one. */
  redirect: string | undefined;
  /** This directory's upper holds entries with an origin: unknown until asked. */
  impure: boolean | undefined;
  /** Names of an indexed file in the union; undefined where the real count is right. */
  unionNlink: number | undefined;
  /** Name in the hard-link index, if it is there. */
  indexName: Name | undefined;
  /** Subdirectories of a merged directory, counted when first asked. */
  subdirectories: number | undefined;
  /** `real` carries an origin: unknown until asked. */
  hasOrigin: boolean | undefined;
  /** Known entries. Guarded by no lock: changed only between waits. */
  children: Map<Name, UnionInode> | undefined;
  /** How many entries of `children` maps, names and lookups of the door keep it alive. */
  childCount = 0;
  heldByDoor = false;
  /** Its read-only layers are watched (beneath.ts). */
  watched = false;
  /** Replaced by another inode because it changed beneath (beneath.ts, H2). */
  disowned = false;
  #copyUpLock: Mutex | undefined;
  /** For the door: its node id, see fuse/node-table.ts. */
  declare doorNode?: number;

  constructor(fs: UnionFs, ino: number, branch: Branch, real: Inode, parent: UnionInode | undefined, name: Name) {
    this.fs = fs;
    this.type = real.type;
    this.ino = ino;
    this.branch = branch;
    this.real = real;
    this.lowers = real.type === S_IFDIR ? [] : undefined;
    this.parent = parent;
    this.name = name;
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR;
  }

  get parentIno(): number {
    return this.parent?.ino ?? this.ino;
  }

  get copyUpLock(): Mutex {
    return (this.#copyUpLock ??= new Mutex(COPY_UP_LOCK));
  }

  /** Where the bytes of a regular file are now. */
  get dataInode(): Inode {
    return this.data?.inode ?? this.real;
  }

  /** The directory's layer on that branch. */
  layerOn(branch: Branch): Inode | undefined {
    if (this.branch === branch) return this.real;
    return this.lowers?.find((layer) => layer.branch === branch)?.inode;
  }

  /** All layers of a directory, top first. */
  layers(): Layer[] {
    return [{ branch: this.branch, inode: this.real }, ...(this.lowers ?? [])];
  }

  getattr(): Task<Stat> {
    return attributes.getattr(this);
  }
  setattr(changes: SetAttr): Task<void> {
    return attributes.setattr(this, changes);
  }
  readlink(): Task<string> {
    return this.real.readlink();
  }
  lookup(name: Name): Task<Inode | undefined> {
    return lookup.lookup(this, name);
  }
  lookupWithStat(name: Name): Task<Entry | undefined> {
    return lookup.lookupWithStat(this, name);
  }
  readdir(): Task<DirEntry[]> {
    return readdir.readdir(this);
  }
  create(name: Name, mode: number, cred: Cred): Task<Inode> {
    return create.create(this, name, mode, cred);
  }
  mkdir(name: Name, mode: number, cred: Cred): Task<Inode> {
    return create.mkdir(this, name, mode, cred);
  }
  mknod(name: Name, mode: number, rdevMajor: number, rdevMinor: number, cred: Cred): Task<Inode> {
    return create.mknod(this, name, mode, rdevMajor, rdevMinor, cred);
  }
  symlink(name: Name, target: string, cred: Cred): Task<Inode> {
    return create.symlink(this, name, target, cred);
  }
  link(name: Name, target: Inode): Task<void> {
    return create.link(this, name, target);
  }
  tmpfile(mode: number, cred: Cred): Task<Inode> {
    return create.tmpfile(this, mode, cred);
  }
  unlink(name: Name, victim: Inode): Task<void> {
    return remove.unlink(this, name, victim);
  }
  rmdir(name: Name, victim: Inode): Task<void> {
    return remove.rmdir(this, name, victim);
  }
  rename(
    name: Name, source: Inode, newDir: Inode, newName: Name, replaced: Inode | undefined, flags: number,
  ): Task<void> {
    return renames.rename(this, name, source, newDir, newName, replaced, flags);
  }
  read(buffer: IoBuffer, position: number): Task<number> {
    return this.dataInode.read(buffer, position);
  }
  write(buffer: IoBuffer, position: number): Task<number> {
    return regular.write(this, buffer, position);
  }
  fsync(dataOnly: boolean): Task<void> {
    return regular.fsync(this, dataOnly);
  }
  fallocate(mode: number, position: number, length: number): Task<void> {
    return regular.fallocate(this, mode, position, length);
  }
  seek(position: number, whence: number): Task<number> {
    return regular.seek(this, position, whence);
  }
  copyRange(position: number, target: Inode, targetPosition: number, length: number): Task<number> {
    return regular.copyRange(this, position, target, targetPosition, length);
  }
  getxattr(name: string): Task<Uint8Array | undefined> {
    return xattrs.getxattr(this, name);
  }
  setxattr(name: string, value: Uint8Array, flags: number): Task<void> {
    return xattrs.setxattr(this, name, value, flags);
  }
  listxattr(): Task<string[]> {
    return xattrs.listxattr(this);
  }
  removexattr(name: string): Task<void> {
    return xattrs.removexattr(this, name);
  }
  exportHandle(): Task<FileHandle | undefined> {
    return this.real.exportHandle?.() ?? noHandle();
  }
  ioctl(command: number, input: Uint8Array, outputBytes: number): Task<Uint8Array> {
    return regular.ioctl(this, command, input, outputBytes);
  }
  forget(): void {
    this.fs.forget(this);
  }
}

// oxlint-disable-next-line require-yield
function* noHandle(): Task<undefined> {
  return undefined;
}

/** A contract inode that must be one of ours: from another filesystem it is EXDEV. */
export function asUnionInode(fs: UnionFs, inode: Inode): UnionInode {
  if (inode.fs !== fs) fail(Errno.EXDEV);
  return inode as UnionInode;
}

export const isRegular = (inode: UnionInode): boolean => inode.type === S_IFREG;
