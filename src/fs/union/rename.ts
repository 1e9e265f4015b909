/**
 * rename: any object, anywhere, without EXDEV.
 *
 * N1. Source and target end up on one writable branch, left enough that nothing hides the result; the
 *     commit is one rename there. What would show again at the old place is whited out in the same
 *     host operation (RENAME_WHITEOUT, or the exchange with a whiteout).
 * N2. A directory with layers beneath keeps them by a redirect, written before the commit; it also
 *     makes nothing else show through at the new place. One without is made opaque if something
 *     would.
 * N3. A directory that is replaced is logically empty: it is made opaque, then its whiteouts go, then
 *     it is renamed over; a crash in between leaves it empty.
 * cf. fs/overlayfs/dir.c, ovl_rename
 */
import { Errno } from '../../abi/errno.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT } from '../../abi/fcntl.ts';
import { S_IFREG } from '../../abi/mode.ts';
import { bytesOf } from '../../lib/latin1.ts';
import { errnoOf, fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
import { emptyDirectory } from './branch.ts';
import type { Branch } from './branch.ts';
import { copyUp, copyUpToBranch, ensureLayer, ensureLinkedUp, settleCopyUp } from './copy-up.ts';
import { firstSaying } from './create.ts';
import { REDIRECT } from './format.ts';
import { changeUnionNlink, loseHiddenName } from './hard-link-index.ts';
import { asUnionInode } from './inode.ts';
import type { UnionInode } from './inode.ts';
import { checkName, markImpureFor, requireDirectory } from './lookup.ts';
import { isLogicallyEmpty } from './readdir.ts';
import { dropAlias, keepLinkCount, noteOrphan } from './remove.ts';
import { allowXattrWhiteouts, isWhiteout } from './whiteout.ts';

/** One end of a rename. */
interface End {
  readonly dir: UnionInode;
  readonly name: Name;
  readonly inode: UnionInode | undefined;
}

export function* rename(
  dir: UnionInode, name: Name, source: Inode, newDir: Inode, newName: Name, replaced: Inode | undefined,
  flags: number,
): Task<void> {
  const from = { dir, name, inode: asUnionInode(dir.fs, source) };
  const to: End = {
    dir: asUnionInode(dir.fs, newDir),
    name: newName,
    inode: replaced === undefined ? undefined : asUnionInode(dir.fs, replaced),
  };
  if (yield* checkRename(from, to, flags)) return;
  yield* settleCopyUp(from.inode);
  if (to.inode !== undefined) yield* settleCopyUp(to.inode);
  if ((flags & RENAME_EXCHANGE) !== 0) yield* exchange(from, to as Required<End>);
  else yield* move(from, to);
}

type Source = End & { readonly inode: UnionInode };

/** The contract's errors in order. True: both names are of one object, nothing to do. */
function* checkRename(from: Source, to: End, flags: number): Task<boolean> {
  checkName(from.name);
  checkName(to.name);
  requireDirectory(from.dir);
  requireDirectory(to.dir);
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) fail(Errno.EINVAL);
  if (flags === (RENAME_NOREPLACE | RENAME_EXCHANGE)) fail(Errno.EINVAL);
  if (to.dir.orphan || from.dir.orphan) fail(Errno.ENOENT);
  if ((flags & RENAME_EXCHANGE) !== 0 && to.inode === undefined) fail(Errno.ENOENT);
  if ((flags & RENAME_NOREPLACE) !== 0 && to.inode !== undefined) fail(Errno.EEXIST);
  if (to.inode === from.inode) return true;
  if (isAncestor(from.inode, to.dir)) fail(Errno.EINVAL);
  if (to.inode === undefined) return false;
  if ((flags & RENAME_EXCHANGE) !== 0) {
    if (isAncestor(to.inode, from.dir)) fail(Errno.EINVAL);
    return false;
  }
  if (isAncestor(to.inode, from.dir)) fail(Errno.ENOTEMPTY);
  if (from.inode.isDirectory && !to.inode.isDirectory) fail(Errno.ENOTDIR);
  if (!from.inode.isDirectory && to.inode.isDirectory) fail(Errno.EISDIR);
  if (to.inode.isDirectory && !(yield* isLogicallyEmpty(to.inode))) fail(Errno.ENOTEMPTY);
  return false;
}

/** Is `inode` the directory itself, or above it? */
function isAncestor(inode: UnionInode, dir: UnionInode): boolean {
  for (let at: UnionInode | undefined = dir; at !== undefined; at = at.parent) if (at === inode) return true;
  return false;
}

/**
 * Data was copied, which waits: the names could be others' by now. The kernel holds both directories
 * locked meanwhile, other doors may not. Errors: ENOENT, EEXIST what was looked up is not there now.
 */
function requireStill(from: Source, to: End): void {
  if (from.inode.disowned || to.inode?.disowned === true) return; // It has no place in the tree to compare with.
  if (to.dir.orphan || from.dir.children?.get(from.name) !== from.inode) fail(Errno.ENOENT);
  if (to.dir.children?.get(to.name) !== to.inode) fail(to.inode === undefined ? Errno.EEXIST : Errno.ENOENT);
  if (isAncestor(from.inode, to.dir)) fail(Errno.EINVAL);
}

function* move(from: Source, to: End): Task<void> {
  if (to.inode !== undefined) yield* keepLinkCount(to.inode);
  const branch = yield* bringTogether(from, to);
  requireStill(from, to);
  const fromLayer = yield* ensureLayer(from.dir, branch);
  const toLayer = yield* ensureLayer(to.dir, branch);
  const shows = yield* showsBeneath(from, branch);
  if (to.inode !== undefined) yield* ensureLinkedUp(to.inode, to.dir, to.name);
  yield* prepareMoved(from, to, branch, toLayer);
  if (shows) yield* allowXattrWhiteouts(branch, fromLayer);
  const step = { branch, from, to, fromLayer, toLayer, shows };
  if (to.inode !== undefined || !(yield* moveToAbsent(step))) yield* moveOver(step);
  if (shows) from.inode.fs.counters.whiteouts++;
  yield* publishMove(from, to);
}

interface Move {
  readonly branch: Branch;
  readonly from: Source;
  readonly to: End;
  readonly fromLayer: Inode;
  readonly toLayer: Inode;
  /** The old name must be whited out. */
  readonly shows: boolean;
}

/** The usual case: nothing is there on the branch, and the host makes sure of it. False: something is. */
function* moveToAbsent({ from, to, fromLayer, toLayer, shows }: Move): Task<boolean> {
  const flags = RENAME_NOREPLACE | (shows ? RENAME_WHITEOUT : 0);
  try {
    yield* fromLayer.rename(from.name, from.inode.real, toLayer, to.name, undefined, flags); // COMMIT POINT
    return true;
  } catch (error) {
    const errno = errnoOf(error);
    // EINVAL: a host filesystem without the flag.
    if (errno !== Errno.EEXIST && errno !== Errno.EINVAL) throw error;
    return false;
  }
}

/** Over an object of the same branch, over a whiteout, or over what lies beneath. */
function* moveOver(move: Move): Task<void> {
  const { to } = move;
  const present = yield* move.toLayer.lookup(to.name);
  try {
    yield* moveOverPresent(move, present);
  } finally {
    if (present !== to.inode?.real) present?.forget();
  }
}

function* moveOverPresent(
  { branch, from, to, fromLayer, toLayer, shows }: Move, present: Inode | undefined,
): Task<void> {
  const whiteout = present !== undefined && (yield* isWhiteout(branch, toLayer, present)) ? present : undefined;
  if (present !== undefined && whiteout === undefined && to.inode === undefined) fail(Errno.EEXIST);
  if (to.inode?.isDirectory && present !== undefined && whiteout === undefined) yield* hollow(branch, to.inode);
  const replaced = whiteout ?? (to.inode?.branch === branch && present !== undefined ? to.inode.real : undefined);
  if (from.inode.isDirectory && whiteout !== undefined) {
    // A directory cannot replace a whiteout: they change places, and it hides the old name or goes.
    yield* fromLayer.rename(from.name, from.inode.real, toLayer, to.name, whiteout, RENAME_EXCHANGE); // COMMIT POINT
    if (!shows) yield* dropWhiteout(fromLayer, from.name, whiteout);
  } else {
    const flags = shows ? RENAME_WHITEOUT : 0;
    yield* fromLayer.rename(from.name, from.inode.real, toLayer, to.name, replaced, flags); // COMMIT POINT
  }
}

/** One that hides nothing. The rename is done, so it is not its error if it stays. */
function* dropWhiteout(layer: Inode, name: Name, whiteout: Inode): Task<void> {
  try {
    yield* layer.unlink(name, whiteout);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

function* publishMove(from: Source, to: End): Task<void> {
  const { inode } = from;
  if (to.inode !== undefined) {
    dropAlias(to.dir, to.name, to.inode);
    if (to.inode.isDirectory) {
      to.inode.orphan = true;
      if (to.dir.subdirectories !== undefined) to.dir.subdirectories--;
    }
  }
  moveName(from, to.dir, to.name);
  if (inode.isDirectory && from.dir !== to.dir) {
    if (from.dir.subdirectories !== undefined) from.dir.subdirectories--;
    if (to.dir.subdirectories !== undefined) to.dir.subdirectories++;
  }
  if (to.inode === undefined || to.inode.isDirectory) return;
  yield* to.inode.branch === inode.branch ? changeUnionNlink(to.inode, -1) : loseHiddenName(to.inode);
  if (to.inode.parent === undefined) noteOrphan(to.inode);
}

/** The object's name (dir, name) becomes another one. */
function moveName(from: Source, dir: UnionInode, name: Name): void {
  const { inode } = from;
  inode.fs.detach(from.dir, from.name, inode);
  inode.fs.attach(dir, name, inode);
  if (inode.parent === from.dir && inode.name === from.name) {
    inode.parent = dir;
    inode.name = name;
    return;
  }
  inode.aliases = inode.aliases?.filter((a) => a.parent !== from.dir || a.name !== from.name);
  (inode.aliases ??= []).push({ parent: dir, name });
}

/** N1: the source copied up to a branch where the result is not hidden. Errors: EROFS there is none. */
function* bringTogether(from: Source, to: End): Task<Branch> {
  yield* copyUp(from.inode, from.inode.type === S_IFREG ? 'data' : 'metadata');
  requireStill(from, to);
  yield* ensureLinkedUp(from.inode, from.dir, from.name);
  if (from.inode.branch.index === 0) return from.inode.branch; // Nothing is left of it.
  const said = yield* firstSaying(to.dir, to.name, 0);
  said?.child?.forget();
  return yield* bringLeftOf(from.inode, said?.layer.branch);
}

/** To a writable branch no further right than `limit`: what is said there of a name would hide it. */
function* bringLeftOf(inode: UnionInode, limit: Branch | undefined): Task<Branch> {
  if (limit === undefined || inode.branch.index <= limit.index) return inode.branch;
  const target = inode.fs.branches.findLast((b) => b.writable && b.index <= limit.index);
  if (target === undefined) fail(Errno.EROFS);
  yield* copyUpToBranch(inode, target);
  return target;
}

/** Would something to the right of the branch show under the old name? */
function* showsBeneath(end: End, branch: Branch): Task<boolean> {
  const said = yield* firstSaying(end.dir, end.name, branch.index + 1);
  said?.child?.forget();
  return said?.child !== undefined;
}

/** N3. */
function* hollow(branch: Branch, dir: UnionInode): Task<void> {
  if (dir.branch !== branch) return;
  const inside = yield* dir.real.readdir();
  if (inside.length === 0) return;
  if (!(yield* isLogicallyEmpty(dir))) fail(Errno.ENOTEMPTY); // It was empty when looked at, but there was a wait.
  if (dir.lowers!.length > 0) {
    yield* branch.setOpaque(dir.real);
    dir.fs.beneath.unwatch(dir);
    for (const layer of dir.lowers!) layer.inode.forget();
    dir.lowers = [];
  }
  yield* emptyDirectory(dir.real);
}

/** N2, and the marks a parent needs for what comes into it. */
function* prepareMoved(from: Source, to: End, branch: Branch, toLayer: Inode): Task<void> {
  const { inode } = from;
  if (inode.isDirectory) {
    if (inode.lowers!.length > 0) yield* redirect(inode, branch, from.dir === to.dir);
    else if (yield* showsBeneath(to, branch)) yield* branch.setOpaque(inode.real);
  }
  yield* markImpureFor(inode, toLayer);
}

/** Say on the directory where its layers beneath are: by name if only that changes, else by path. */
function* redirect(dir: UnionInode, branch: Branch, sameParent: boolean): Task<void> {
  const { redirect: old } = dir;
  if (sameParent && old !== undefined && !old.startsWith('/')) return;
  if (old?.startsWith('/')) return; // A path holds wherever the directory goes.
  const value = sameParent ? dir.name : lowerPath(dir);
  yield* branch.setOverlayXattr(dir.real, REDIRECT, bytesOf(value));
  dir.redirect = value;
  markRedirected(dir);
}

/** The directory's path in the branches beneath: names as they are there. */
function lowerPath(dir: UnionInode): string {
  let path = '';
  for (let at = dir; at.parent !== undefined; at = at.parent) {
    if (at.redirect?.startsWith('/')) return at.redirect + path;
    path = `/${at.redirect ?? at.name}${path}`;
  }
  return path;
}

function markRedirected(dir: UnionInode): void {
  dir.redirected = true;
  for (const child of dir.children?.values() ?? []) if (child.isDirectory) markRedirected(child);
}

function* exchange(from: Source, to: Required<End>): Task<void> {
  const other = { ...to, inode: to.inode! };
  for (const end of [from, other]) {
    yield* copyUp(end.inode, end.inode.type === S_IFREG ? 'data' : 'metadata');
  }
  requireStill(from, other);
  for (const end of [from, other]) yield* ensureLinkedUp(end.inode, end.dir, end.name);
  yield* bringLeftOf(from.inode, other.inode.branch);
  yield* bringLeftOf(other.inode, from.inode.branch);
  requireStill(from, other);
  requireStill(other, from);
  const { branch } = from.inode;
  const fromLayer = yield* ensureLayer(from.dir, branch);
  const toLayer = yield* ensureLayer(to.dir, branch);
  yield* prepareMoved(from, other, branch, toLayer);
  yield* prepareMoved(other, from, branch, fromLayer);
  yield* fromLayer.rename(from.name, from.inode.real, toLayer, to.name, other.inode.real, RENAME_EXCHANGE); // COMMIT POINT
  publishExchange(from, other);
}

function publishExchange(from: Source, to: Source): void {
  from.inode.fs.detach(from.dir, from.name, from.inode);
  to.inode.fs.detach(to.dir, to.name, to.inode);
  moveName(from, to.dir, to.name);
  moveName(to, from.dir, from.name);
  if (from.dir === to.dir || from.inode.isDirectory === to.inode.isDirectory) return;
  const change = from.inode.isDirectory ? 1 : -1;
  if (from.dir.subdirectories !== undefined) from.dir.subdirectories -= change;
  if (to.dir.subdirectories !== undefined) to.dir.subdirectories += change;
}
