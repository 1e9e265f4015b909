/**
 * Lookup: which branch entries make up one name of a merged directory.
 *
 * K1. Leftmost wins; directories merge downwards until a non-directory, a whiteout or an opaque one.
 * K2. A redirect says under which name (relative: same parents; absolute: from the branches' roots)
 *     the layers beneath go on. It counts for the branches to the right of the one that carries it.
 * K3. The same object is found again as the same UnionInode: by name, else by inode number.
 * cf. fs/overlayfs/namei.c, ovl_lookup
 */
import { NAME_MAX } from '../../abi/fcntl.ts';
import { Errno } from '../../abi/errno.ts';
import { S_IFDIR, S_IFREG } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import { textOf } from '../../lib/latin1.ts';
import { fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Entry, Inode, Name } from '../../vfs/inode-operations.ts';
import { asUnionStat, getattr } from './attributes.ts';
import { NO_UUID, sameUuid } from './branch.ts';
import type { Branch } from './branch.ts';
import { BASE, IMPURE, METACOPY, ORIGIN, REDIRECT, decodeOrigin, inoOfBase, inoOfHandle } from './format.ts';
import { findIndexed, loadUnionNlink } from './hard-link-index.ts';
import type { Indexed } from './hard-link-index.ts';
import { UnionInode } from './inode.ts';
import type { Layer } from './inode.ts';
import { hidingFacts, isWhiteout } from './whiteout.ts';

/** Errors: ENAMETOOLONG; EINVAL for what is no name. */
export function checkName(name: Name): void {
  if (name.length > NAME_MAX) fail(Errno.ENAMETOOLONG);
  if (name.length === 0 || name === '.' || name === '..' || name.includes('/')) fail(Errno.EINVAL);
}

export function requireDirectory(inode: UnionInode): void {
  if (inode.type !== S_IFDIR) fail(Errno.ENOTDIR);
}

export function* lookup(dir: UnionInode, name: Name): Task<UnionInode | undefined> {
  checkName(name);
  requireDirectory(dir);
  const known = dir.children?.get(name);
  if (known !== undefined) {
    known.heldByDoor = true;
    return known;
  }
  return (yield* lookupAnew(dir, name))?.inode;
}

export function* lookupWithStat(dir: UnionInode, name: Name): Task<UnionEntry | undefined> {
  checkName(name);
  requireDirectory(dir);
  const known = dir.children?.get(name);
  if (known === undefined) {
    const entry = yield* lookupAnew(dir, name);
    if (entry === undefined || entry.isUnionStat) return entry;
    return { inode: entry.inode, stat: yield* asUnionStat(entry.inode, entry.stat), isUnionStat: true };
  }
  known.heldByDoor = true;
  return { inode: known, stat: yield* getattr(known), isUnionStat: true };
}

interface UnionEntry {
  readonly inode: UnionInode;
  readonly stat: Stat;
  /** False: `stat` is the real inode's, as looked up, and not yet the union's (attributes.ts). */
  readonly isUnionStat: boolean;
}

function* lookupAnew(dir: UnionInode, name: Name): Task<UnionEntry | undefined> {
  dir.fs.beneath.watch(dir);
  const found = yield* resolve(dir, name);
  if (found === undefined) return undefined;
  const entry = yield* instantiate(dir, name, found);
  entry.inode.heldByDoor = true;
  return entry;
}

/** What a name of a merged directory is made of. */
export interface Found {
  readonly layers: Layer[];
  /** Of the first layer. */
  stat: Stat | undefined;
  /** The first layer says that its bytes are beneath; then where they are, if they are. */
  metacopy: boolean;
  data: Layer | undefined;
  redirect: string | undefined;
}

export function* resolve(dir: UnionInode, name: Name): Task<Found | undefined> {
  if (dir.orphan) return undefined;
  const found: Found = { layers: [], stat: undefined, metacopy: false, data: undefined, redirect: undefined };
  yield* descend(dir, dir.layers(), 0, name, found);
  return found.layers.length === 0 ? undefined : found;
}

/** One name through the directory's layers from number `from` on, as of K1. */
function* descend(dir: UnionInode, stack: Layer[], from: number, name: Name, found: Found): Task<void> {
  const branchCount = dir.fs.branches.length;
  let wanted = name;
  for (let i = from; i < stack.length; i++) {
    const { branch, inode } = stack[i]!;
    if (wanted === branch.hidden && inode === branch.root) continue;
    const entry = yield* entryOf(inode, wanted);
    const bottom = branch.index === branchCount - 1;
    if (entry === undefined) {
      if (!bottom && !branch.writable && (yield* hidesByDot(branch, inode, wanted))) return;
      continue;
    }
    const child = entry.inode;
    found.stat ??= entry.stat;
    if (!(yield* accept(branch, inode, entry, found))) return;
    if (bottom) return;
    const redirect = yield* redirectOf(branch, child, found);
    if (redirect?.startsWith('/')) {
      yield* descendByPath(dir, branch.index + 1, redirect, found);
      return;
    }
    if (redirect !== undefined) wanted = redirect as Name;
    if (i + 1 < stack.length && child.type === S_IFDIR && (yield* hidesAll(branch, child))) return;
  }
}

function* entryOf(dir: Inode, name: Name): Task<Entry | undefined> {
  if (dir.lookupWithStat !== undefined) return yield* dir.lookupWithStat(name);
  const inode = yield* dir.lookup(name);
  return inode === undefined ? undefined : { inode, stat: yield* inode.getattr() };
}

/** Take a branch entry into what was found. False: nothing beneath it counts. */
function* accept(branch: Branch, dir: Inode, entry: Entry, found: Found): Task<boolean> {
  const child = entry.inode;
  if (yield* isWhiteout(branch, dir, child, entry.stat)) {
    child.forget();
    return false;
  }
  const first = found.layers[0];
  if (first === undefined) {
    found.layers.push({ branch, inode: child });
    if (child.type === S_IFDIR) return true;
    found.metacopy = child.type === S_IFREG && (yield* isMetacopy(branch, dir, child));
    return found.metacopy;
  }
  if (first.inode.type === S_IFREG) return yield* acceptData(branch, dir, child, found);
  if (child.type !== S_IFDIR) {
    child.forget();
    return false;
  }
  found.layers.push({ branch, inode: child });
  return true;
}

/** Beneath a metacopy file: a file with data ends the search, another metacopy goes on. */
function* acceptData(branch: Branch, dir: Inode, child: Inode, found: Found): Task<boolean> {
  if (child.type === S_IFREG && !(yield* isMetacopy(branch, dir, child))) {
    found.data = { branch, inode: child };
    return false;
  }
  child.forget();
  return child.type === S_IFREG;
}

function* isMetacopy(branch: Branch, dir: Inode, child: Inode): Task<boolean> {
  if (branch.index === branch.bottomIndex) return false;
  if (branch.writable && !(yield* isImpure(branch, dir))) return false;
  return (yield* branch.overlayXattr(child, METACOPY)) !== undefined;
}

function* redirectOf(branch: Branch, child: Inode, found: Found): Task<string | undefined> {
  const value = yield* branch.overlayXattr(child, REDIRECT);
  if (value === undefined || value.length === 0) return undefined;
  const redirect = textOf(value);
  if (found.layers.length === 1) found.redirect = redirect;
  return redirect;
}

function* hidesByDot(branch: Branch, dir: Inode, name: Name): Task<boolean> {
  return (yield* hidingFacts(branch, dir)).dotNames?.has(name) ?? false;
}

function* hidesAll(branch: Branch, dir: Inode): Task<boolean> {
  if (yield* branch.isOpaque(dir)) return true;
  return !branch.writable && (yield* hidingFacts(branch, dir)).dotOpaque;
}

/** After an absolute redirect: the path from the root of every branch to the right. */
function* descendByPath(dir: UnionInode, fromBranch: number, path: string, found: Found): Task<void> {
  const components = path.split('/').filter((component) => component.length > 0) as Name[];
  const name = components.pop();
  if (name === undefined) return;
  const stack: Layer[] = [];
  for (const branch of dir.fs.branches.slice(fromBranch)) {
    const { parent, isLast } = yield* walk(branch, components);
    if (parent !== undefined) stack.push({ branch, inode: parent });
    if (isLast) break;
  }
  yield* descend(dir, stack, 0, name, found);
  for (const layer of stack) if (layer.inode !== layer.branch.root) layer.inode.forget();
}

/** The directory at a path of one branch. `isLast`: something on the path hides the branches to the right. */
function* walk(
  branch: Branch, components: readonly Name[],
): Task<{ parent: Inode | undefined; isLast: boolean }> {
  let inode = branch.root;
  let isLast = false;
  for (const component of components) {
    const child: Inode | undefined = yield* inode.lookup(component);
    if (inode !== branch.root) inode.forget();
    if (child === undefined) return { parent: undefined, isLast };
    if (child.type !== S_IFDIR) {
      child.forget();
      return { parent: undefined, isLast: true };
    }
    inode = child;
    isLast ||= yield* hidesAll(branch, inode);
  }
  return { parent: inode, isLast };
}

// Whether a writable branch's directory holds entries with an origin, kept with the branch's inode.
const impurity = new WeakMap<Inode, boolean>();
// The roots that are known to be marked: for us they count as impure anyway, for the kernel not.
const markedRoots = new WeakSet<Inode>();

/** Must be true before an entry with an origin is put into the directory. */
export function* markImpure(branch: Branch, dir: Inode): Task<void> {
  const isRoot = dir === branch.root;
  if (isRoot ? markedRoots.has(dir) : yield* isImpure(branch, dir)) return;
  yield* branch.setOverlayXattr(dir, IMPURE, new Uint8Array([0x79]));
  if (isRoot) markedRoots.add(dir);
  impurity.set(dir, true);
}

/** Before a name of the object is put into the directory. */
export function* markImpureFor(inode: UnionInode, dir: Inode): Task<void> {
  const { branch } = inode;
  if (branch.index === branch.bottomIndex) return;
  inode.hasOrigin ??= (yield* branch.overlayXattr(inode.real, ORIGIN)) !== undefined;
  if (inode.hasOrigin) yield* markImpure(branch, dir);
}

export function* isImpure(branch: Branch, dir: Inode): Task<boolean> {
  let known = impurity.get(dir);
  if (known === undefined) {
    // The root is never marked by the kernel where it was given by hand: ask its entries always.
    known = dir === branch.root || (yield* branch.overlayXattr(dir, IMPURE)) !== undefined;
    impurity.set(dir, known);
  }
  return known;
}

/** Make, or find again, the union inode of what `resolve` found, and enter it under the name. */
function* instantiate(dir: UnionInode, name: Name, found: Found): Task<UnionEntry> {
  const fs = dir.fs;
  const [top, ...lowers] = found.layers as [Layer, ...Layer[]];
  const stat = found.stat!;
  const parentLayer = dir.layerOn(top.branch);
  const indexed = yield* findIndexed(fs, top, stat);
  const number = indexed?.number ?? (yield* numberOf(dir, top, stat, parentLayer));
  const known = fs.inodes.get(number);
  if (known !== undefined && (yield* isSame(known, top, stat, indexed !== undefined))) {
    letGo(found, indexed, []);
    enterAlias(dir, name, known);
    return { inode: known, stat: yield* getattr(known), isUnionStat: true };
  }
  const ino = known === undefined ? number : freeNumber(dir, top, stat);
  const real = indexed?.layer ?? top;
  const inode = new UnionInode(fs, ino, real.branch, real.inode, dir, name);
  if (inode.isDirectory) inode.lowers = lowers;
  inode.data = indexed?.data ?? found.data;
  inode.dataMissing = found.metacopy && inode.data === undefined;
  inode.redirect = found.redirect;
  inode.redirected = found.redirect !== undefined || dir.redirected;
  inode.indexName = indexed?.indexName;
  letGo(found, indexed, [real.inode, ...lowers.map((layer) => layer.inode), inode.data?.inode]);
  yield* loadUnionNlink(inode, stat);
  fs.inodes.set(inode);
  fs.attach(dir, name, inode);
  // An indexed file is not what the name showed: look at it itself.
  if (indexed !== undefined) return { inode, stat: yield* getattr(inode), isUnionStat: true };
  return { inode, stat, isUnionStat: false };
}

/** A further name of a known object. */
export function enterAlias(dir: UnionInode, name: Name, inode: UnionInode): void {
  if (dir.children?.get(name) === inode) return;
  dir.fs.attach(dir, name, inode);
  if (inode.parent === undefined) {
    inode.parent = dir;
    inode.name = name;
    inode.orphan = false;
    return;
  }
  (inode.aliases ??= []).push({ parent: dir, name });
}

/** Forget what a lookup was given and does not keep. */
function letGo(found: Found, indexed: Indexed | undefined, kept: readonly (Inode | undefined)[]): void {
  const given = new Set(found.layers.map((layer) => layer.inode));
  if (found.data !== undefined) given.add(found.data.inode);
  if (indexed !== undefined) given.add(indexed.layer.inode);
  for (const inode of given) if (!kept.includes(inode)) inode.forget();
}

/** Is the known object with this number what was found, or another one with the same origin? */
function* isSame(known: UnionInode, top: Layer, stat: Stat, indexed: boolean): Task<boolean> {
  if (indexed || !top.branch.writable) return known.type === top.inode.type && known.type !== S_IFDIR;
  if (known.branch !== top.branch || known.type !== top.inode.type) return false;
  if (known.type === S_IFDIR) return false;
  return (yield* known.real.getattr()).ino === stat.ino;
}

/** The number of the origin if it has one that can be told, else its own (inode-number.ts, N1). */
function* numberOf(dir: UnionInode, top: Layer, stat: Stat, parent: Inode | undefined): Task<number> {
  const { fs } = dir;
  const own = fs.numbers.of(top.branch.numberSpace, stat.ino);
  if (!top.branch.writable || parent === undefined) return own;
  if (!(yield* isImpure(top.branch, parent))) return own;
  return (yield* originNumber(fs.branches, top)) ?? own;
}

export function* originNumber(branches: readonly Branch[], layer: Layer): Task<number | undefined> {
  const record = yield* layer.branch.overlayXattr(layer.inode, ORIGIN);
  if (record === undefined) return undefined;
  const { numbers } = layer.branch;
  const handle = decodeOrigin(record);
  const beneath = branches.slice(layer.branch.index + 1);
  const first = beneath[0];
  if (first === undefined) return undefined;
  if (handle !== undefined) {
    const branch = sameUuid(handle.uuid, NO_UUID)
      ? first
      : beneath.find((b) => b.uuid !== undefined && sameUuid(b.uuid, handle.uuid));
    const ino = inoOfHandle(handle);
    if (branch !== undefined && ino !== undefined) return numbers.of(branch.numberSpace, ino);
  }
  const base = yield* layer.branch.overlayXattr(layer.inode, BASE);
  const ino = base === undefined ? undefined : inoOfBase(base);
  return ino === undefined ? undefined : numbers.of(first.numberSpace, ino);
}

/** Two copies of one origin (hard links split without an index): the later one keeps its own number. */
function freeNumber(dir: UnionInode, top: Layer, stat: Stat): number {
  const own = dir.fs.numbers.of(top.branch.numberSpace, stat.ino);
  return dir.fs.inodes.has(own) ? dir.fs.numbers.fresh() : own;
}
