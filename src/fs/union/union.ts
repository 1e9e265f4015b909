/**
 * UnionFs: a stack of branches as one filesystem. See inode.ts for what an object of it is.
 *
 * Sees only the vfs contract: it never names a concrete filesystem, so a union may be a branch.
 * Rooms of this folder: lookup (merge), readdir, create, remove, rename, copy-up, hard-link index,
 * xattr, attributes, format (what is on disk). cf. Linux fs/overlayfs, gVisor fsimpl/overlay.
 */
import { Errno } from '../../abi/errno.ts';
import { S_IFDIR } from '../../abi/mode.ts';
import type { StatFs } from '../../abi/stat.ts';
import { assert } from '../../lib/assert.ts';
import { NumberTable } from '../../lib/number-table.ts';
import { FsError, fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { FileSystem, Inode, Name } from '../../vfs/inode-operations.ts';
import { Branch, openWork, probeXattr } from './branch.ts';
import type { BranchSpec } from './branch.ts';
import { BeneathWatch } from './beneath.ts';
import type { XattrPrefix } from './format.ts';
import { InodeNumbers } from './inode-number.ts';
import { UnionInode } from './inode.ts';
import type { Layer } from './inode.ts';
import { checkIncompat } from './volatile.ts';
import { prepareWhiteouts } from './whiteout.ts';

export interface UnionOptions {
  /** Copy only metadata up on chmod, chown, utimes and setxattr. */
  readonly metacopy: boolean;
  /** Sync nothing. Whoever offers that marks the branches with it (volatile.ts). */
  readonly volatile: boolean;
}

export class UnionFs implements FileSystem {
  readonly label = 'union';
  readonly options: UnionOptions;
  readonly branches: readonly Branch[];
  readonly numbers: InodeNumbers;
  readonly root: UnionInode;
  /** Every known object by its number (U5). */
  readonly inodes = new NumberTable<UnionInode>();
  readonly beneath: BeneathWatch;
  /** Volatile: some data has not reached its branch, so no sync succeeds any more (volatile.ts, V3). */
  writebackFailed = false;
  /** Counters, for `status`. */
  readonly counters = { copyUps: 0, copyUpBytes: 0, metadataCopyUps: 0, whiteouts: 0 };

  constructor(branches: Branch[], root: { ino: number; layers: Layer[] }, options: UnionOptions) {
    this.branches = branches;
    this.numbers = branches[0]!.numbers;
    this.options = options;
    const [top, ...lowers] = root.layers;
    assert(top !== undefined, 'a union has a branch');
    this.root = new UnionInode(this, root.ino, top.branch, top.inode, undefined, '' as Name);
    this.root.lowers = lowers;
    this.root.heldByDoor = true;
    this.inodes.set(this.root);
    this.beneath = new BeneathWatch(this);
  }

  /** False where changes beneath could go unnoticed (beneath.ts, H4). */
  get coherent(): boolean {
    return this.beneath.coherent;
  }

  get readOnly(): boolean {
    return !this.branches.some((branch) => branch.writable);
  }

  /** Of the leftmost writable branch: there is where new data goes. */
  statfs(): Task<StatFs> {
    return (this.branches.find((branch) => branch.writable) ?? this.branches[0]!).fs.statfs();
  }

  *syncfs(): Task<void> {
    if (this.writebackFailed) fail(Errno.EIO);
    if (this.options.volatile) return;
    const done = new Set<FileSystem>();
    for (const branch of this.branches) {
      if (!branch.writable || done.has(branch.fs)) continue;
      done.add(branch.fs);
      yield* branch.fs.syncfs();
    }
  }

  *unmount(): Task<void> {
    if (!this.options.volatile) yield* this.syncfs();
    for (const fs of new Set(this.branches.map((branch) => branch.fs))) yield* fs.unmount();
  }

  forget(inode: UnionInode): void {
    inode.heldByDoor = false;
    this.release(inode);
  }

  /** Drop an object that neither the door nor a child holds, and then perhaps its parents. */
  release(start: UnionInode): void {
    let inode: UnionInode | undefined = start;
    while (inode !== undefined && inode !== this.root) {
      if (inode.heldByDoor || inode.childCount > 0) return;
      if (this.inodes.get(inode.ino) === inode) this.inodes.delete(inode.ino);
      const parent: UnionInode | undefined = inode.parent;
      for (const alias of inode.aliases ?? []) this.detach(alias.parent, alias.name, inode);
      if (parent !== undefined) this.detach(parent, inode.name, inode);
      inode.parent = undefined;
      inode.aliases = undefined;
      this.beneath.unwatch(inode);
      inode.real.forget();
      for (const layer of inode.lowers ?? []) layer.inode.forget();
      inode.data?.inode.forget();
      inode = parent;
    }
  }

  /**
   * The name means something else now, or its object changed beneath: the next lookup makes a new
   * inode. The old one serves those who hold it, under its old name.
   */
  disown(dir: UnionInode, name: Name, child: UnionInode): void {
    this.detach(dir, name, child);
    if (this.inodes.get(child.ino) === child) this.inodes.delete(child.ino);
    child.disowned = true;
    this.release(child);
  }

  /** Enter a name into the directory's known entries. */
  attach(dir: UnionInode, name: Name, child: UnionInode): void {
    const children = (dir.children ??= new Map());
    const before = children.get(name);
    if (before === child) return;
    if (before !== undefined) this.detach(dir, name, before);
    children.set(name, child);
    dir.childCount++;
  }

  detach(dir: UnionInode, name: Name, child: UnionInode): void {
    if (dir.children?.get(name) !== child) return;
    dir.children.delete(name);
    if (dir.children.size === 0) dir.children = undefined;
    dir.childCount--;
    assert(dir.childCount >= 0, 'a directory has as many children as it counts');
  }
}

/** Errors: EINVAL no branch; EOPNOTSUPP a writable branch without xattrs; what the branches give. */
export function* openUnion(specs: readonly BranchSpec[], options: UnionOptions): Task<UnionFs> {
  if (specs.length === 0) throw new FsError(Errno.EINVAL, 'a union needs at least one branch');
  const prefix = yield* choosePrefix(specs);
  const stack = { prefix, bottomIndex: specs.length - 1, numbers: new InodeNumbers() };
  const spaces: string[] = [];
  const branches: Branch[] = [];
  const layers: Layer[] = [];
  let ino = 0;
  for (const [index, spec] of specs.entries()) {
    if (spec.root.type !== S_IFDIR) throw new FsError(Errno.ENOTDIR, `branch ${spec.label} is not a directory`);
    const stat = yield* spec.root.getattr();
    const device = `${stat.devMajor}:${stat.devMinor}`;
    if (!spaces.includes(device)) spaces.push(device);
    const branch = new Branch(spec, index, stack, spaces.indexOf(device));
    branch.uuid = (yield* exportedUuid(spec.root)) ?? undefined;
    if (branch.writable) yield* checkIncompat(spec);
    if (branch.writable) yield* openWork(branch, spec.work!);
    if (branch.writable) yield* prepareWhiteouts(branch, spec.work!);
    branches.push(branch);
    layers.push({ branch, inode: spec.root });
    if (index === 0) ino = stat.ino;
  }
  return new UnionFs(branches, { ino, layers: yield* rootLayers(layers) }, options);
}

/** The root's layers down to the first opaque one. */
function* rootLayers(all: Layer[]): Task<Layer[]> {
  const merged: Layer[] = [];
  for (const layer of all) {
    merged.push(layer);
    if (layer !== all.at(-1) && (yield* layer.branch.isOpaque(layer.inode))) break;
  }
  return merged;
}

function* exportedUuid(root: Inode): Task<Uint8Array | undefined> {
  const handle = root.exportHandle === undefined ? undefined : yield* root.exportHandle();
  return handle?.uuid;
}

/** `trusted.` where every writable branch takes it, `user.` otherwise, as the kernel's `userxattr`. */
function* choosePrefix(specs: readonly BranchSpec[]): Task<XattrPrefix> {
  for (const prefix of ['trusted.overlay.', 'user.overlay.'] as const) {
    let every = true;
    for (const spec of specs) {
      if (spec.mode !== 'rw') continue;
      if (spec.work === undefined) throw new FsError(Errno.EINVAL, `branch ${spec.label} is rw and needs a work directory`);
      if (!(yield* probeXattr(spec.work, prefix))) every = false;
    }
    if (every) return prefix;
  }
  const labels = specs.filter((spec) => spec.mode === 'rw').map((spec) => spec.label);
  throw new FsError(Errno.EOPNOTSUPP, `no extended attributes can be kept on ${labels.join(', ')}: a writable branch needs them`);
}
