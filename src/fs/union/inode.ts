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

/** What directories have, and few files. Most inodes of a big tree do without it: a million are known at a time. */
class RareState {
  lowers: Layer[] | undefined;
  data: Layer | undefined;
  aliases: Alias[] | undefined;
  redirect: string | undefined;
  redirected = false;
  unionNlink: number | undefined;
  indexName: Name | undefined;
  subdirectories: number | undefined;
  children: Map<Name, UnionInode> | undefined;
  childCount = 0;
  watched = false;
  dataMissing = false;
  copyUpLock: Mutex | undefined;
}

const ORPHAN = 1;
const HELD_BY_DOOR = 2;
const DISOWNED = 4;
const ORIGIN_KNOWN = 8;
const HAS_ORIGIN = 16;

export class UnionInode implements Inode {
  readonly fs: UnionFs;
  readonly ino: number;
  branch: Branch;
  real: Inode;
  parent: UnionInode | undefined;
  name: Name;
  /** For the door: its node id, see fuse/nodes.ts. */
  doorNode = -1;
  #flags = 0;
  #rare: RareState | undefined;

  constructor(fs: UnionFs, ino: number, branch: Branch, real: Inode, parent: UnionInode | undefined, name: Name) {
    this.fs = fs;
    this.ino = ino;
    this.branch = branch;
    this.real = real;
    this.parent = parent;
    this.name = name;
    if (real.type === S_IFDIR) this.lowers = [];
  }

  get type(): number {
    return this.real.type;
  }

  // `private` and not `#`: a class with `#` methods marks each of its objects, by a field.
  private is(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }
  private set(flag: number, on: boolean): void {
    this.#flags = on ? this.#flags | flag : this.#flags & ~flag;
  }
  /** Where to write a value that is not the default. */
  private get state(): RareState {
    return (this.#rare ??= new RareState());
  }

  get lowers(): Layer[] | undefined {
    return this.#rare?.lowers;
  }
  set lowers(layers: Layer[] | undefined) {
    this.state.lowers = layers;
  }
  get data(): Layer | undefined {
    return this.#rare?.data;
  }
  set data(value: Layer | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.data = value;
  }
  get aliases(): Alias[] | undefined {
    return this.#rare?.aliases;
  }
  set aliases(value: Alias[] | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.aliases = value;
  }
  get orphan(): boolean {
    return this.is(ORPHAN);
  }
  set orphan(on: boolean) {
    this.set(ORPHAN, on);
  }
  /** Some layer beneath is found under another path than the union's: see copy-up.ts. */
  get redirected(): boolean {
    return this.#rare?.redirected ?? false;
  }
  set redirected(on: boolean) {
    if (on || this.#rare !== undefined) this.state.redirected = on;
  }
  /** Value of the redirect xattr on `real`, if it has one. */
  get redirect(): string | undefined {
    return this.#rare?.redirect;
  }
  set redirect(value: string | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.redirect = value;
  }
  /** Names of an indexed file in the union; undefined where the real count is right. */
  get unionNlink(): number | undefined {
    return this.#rare?.unionNlink;
  }
  set unionNlink(value: number | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.unionNlink = value;
  }
  /** Name in the hard-link index, if it is there. */
  get indexName(): Name | undefined {
    return this.#rare?.indexName;
  }
  set indexName(value: Name | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.indexName = value;
  }
  /** Subdirectories of a merged directory, counted when first asked. */
  get subdirectories(): number | undefined {
    return this.#rare?.subdirectories;
  }
  set subdirectories(value: number | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.subdirectories = value;
  }
  /** `real` carries an origin: unknown until asked. */
  get hasOrigin(): boolean | undefined {
    return this.is(ORIGIN_KNOWN) ? this.is(HAS_ORIGIN) : undefined;
  }
  set hasOrigin(has: boolean | undefined) {
    this.set(ORIGIN_KNOWN, has !== undefined);
    this.set(HAS_ORIGIN, has === true);
  }
  /** Known entries. Guarded by no lock: changed only between waits. */
  get children(): Map<Name, UnionInode> | undefined {
    return this.#rare?.children;
  }
  set children(value: Map<Name, UnionInode> | undefined) {
    if (value !== undefined || this.#rare !== undefined) this.state.children = value;
  }
  /** How many entries of `children` there are: they keep it alive. */
  get childCount(): number {
    return this.#rare?.childCount ?? 0;
  }
  set childCount(count: number) {
    this.state.childCount = count;
  }
  get heldByDoor(): boolean {
    return this.is(HELD_BY_DOOR);
  }
  set heldByDoor(on: boolean) {
    this.set(HELD_BY_DOOR, on);
  }
  /** Its read-only layers are watched (beneath.ts). */
  get watched(): boolean {
    return this.#rare?.watched ?? false;
  }
  set watched(on: boolean) {
    if (on || this.#rare !== undefined) this.state.watched = on;
  }
  /** Replaced by another inode because it changed beneath (beneath.ts, H2). */
  get disowned(): boolean {
    return this.is(DISOWNED);
  }
  set disowned(on: boolean) {
    this.set(DISOWNED, on);
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR;
  }

  get parentIno(): number {
    return this.parent?.ino ?? this.ino;
  }

  get copyUpLock(): Mutex {
    return (this.state.copyUpLock ??= new Mutex(COPY_UP_LOCK));
  }

  /** Without making the lock: most objects are never copied up. */
  get isBeingCopiedUp(): boolean {
    return this.#rare?.copyUpLock?.held ?? false;
  }

  /** A metacopy whose lower is gone: its bytes are lost, and what is here are not they. */
  get dataMissing(): boolean {
    return this.#rare?.dataMissing ?? false;
  }
  set dataMissing(on: boolean) {
    if (on || this.#rare !== undefined) this.state.dataMissing = on;
  }

  /** Where the bytes of a regular file are now. Errors: EIO they are nowhere. */
  get dataInode(): Inode {
    if (this.dataMissing) fail(Errno.EIO);
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
  backing(): Task<number | undefined> {
    return regular.backing(this);
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
