/**
 * unlink and rmdir: take the name away on the writable branch, and white it out if it would show again.
 *
 * R1. One host operation makes the name disappear: an unlink, a whiteout put where nothing was, or a
 *     whiteout from `work/` renamed over (or exchanged with) what is there.
 * R2. A directory goes only if nothing in it is visible; whiteouts in it go with it.
 * R3. The object lives on while the door holds it (contract V4), as an orphan if that was its last name.
 */
import { Errno } from '../../abi/errno.ts';
import { RENAME_EXCHANGE } from '../../abi/fcntl.ts';
import { S_IFDIR } from '../../abi/mode.ts';
import { errnoOf, fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
import { emptyDirectory } from './branch.ts';
import type { Branch } from './branch.ts';
import { copyUp, ensureLayer, ensureLinkedUp, settleCopyUp } from './copy-up.ts';
import { firstSaying } from './create.ts';
import { changeUnionNlink } from './hard-link-index.ts';
import { asUnionInode } from './inode.ts';
import type { Layer, UnionInode } from './inode.ts';
import { checkName, requireDirectory } from './lookup.ts';
import { isLogicallyEmpty } from './readdir.ts';
import { allowXattrWhiteouts, placeWhiteout, whiteoutInWork } from './whiteout.ts';

export function* unlink(dir: UnionInode, name: Name, victim: Inode): Task<void> {
  const file = yield* checkVictim(dir, name, victim);
  if (file.type === S_IFDIR) fail(Errno.EISDIR);
  yield* settleCopyUp(file);
  yield* keepLinkCount(file);
  yield* checkVictim(dir, name, victim); // There was a wait: the name could be another's by now.
  yield* ensureLinkedUp(file, dir, name);
  yield* removeName(dir, name, file);
  dropAlias(dir, name, file);
  yield* changeUnionNlink(file, -1);
  if (file.parent === undefined) noteOrphan(file);
}

/**
 * Before a name of a lower file with several goes: the count of those that stay must be kept somewhere,
 * on an indexed copy (hard-link-index.ts, X2).
 */
export function* keepLinkCount(file: UnionInode): Task<void> {
  if (file.branch.writable || file.isDirectory || (yield* file.real.getattr()).nlink < 2) return;
  if (file.fs.readOnly) fail(Errno.EROFS);
  yield* copyUp(file, 'metadata');
}

export function* rmdir(dir: UnionInode, name: Name, victim: Inode): Task<void> {
  const removed = yield* checkVictim(dir, name, victim);
  requireDirectory(removed);
  // One layer: the host tells (removeDirectory), and most often there is nothing to list.
  if (!removed.branch.writable || removed.lowers!.length > 0) yield* requireEmpty(removed);
  yield* removeName(dir, name, removed);
  dropAlias(dir, name, removed);
  removed.orphan = true;
  if (dir.subdirectories !== undefined) dir.subdirectories--;
}

function* requireEmpty(dir: UnionInode): Task<void> {
  if (!(yield* isLogicallyEmpty(dir))) fail(Errno.ENOTEMPTY);
}

function* checkVictim(dir: UnionInode, name: Name, victim: Inode): Task<UnionInode> {
  checkName(name);
  requireDirectory(dir);
  const inode = asUnionInode(dir.fs, victim);
  if (dir.orphan) fail(Errno.ENOENT);
  const present = dir.children?.get(name) ?? (yield* dir.lookup(name));
  if (present !== inode) fail(Errno.ENOENT);
  return inode;
}

/** Make the name disappear from the merged directory (R1). */
function* removeName(dir: UnionInode, name: Name, victim: UnionInode): Task<void> {
  const { branch, inode: layer } = yield* layerOfName(dir, name, victim);
  if (!branch.writable) {
    const target = dir.fs.branches.findLast((b) => b.writable && b.index < branch.index);
    if (target === undefined) fail(Errno.EROFS);
    yield* placeWhiteout(target, yield* ensureLayer(dir, target), name); // COMMIT POINT
    dir.fs.counters.whiteouts++;
    return;
  }
  const beneath = yield* firstSaying(dir, name, branch.index + 1);
  beneath?.child?.forget();
  if (beneath?.child !== undefined && victim.isDirectory) yield* requireEmpty(victim);
  if (beneath?.child !== undefined) yield* coverWithWhiteout(dir, branch, layer, name, victim);
  else if (victim.isDirectory) yield* removeDirectory(branch, layer, name, victim);
  else yield* layer.unlink(name, victim.real); // COMMIT POINT
}

/** Where the name itself is: an indexed file's may be beneath while the file is above. */
function* layerOfName(dir: UnionInode, name: Name, victim: UnionInode): Task<Layer> {
  if (victim.indexName === undefined) {
    const inode = dir.layerOn(victim.branch);
    if (inode !== undefined) return { branch: victim.branch, inode };
  }
  const said = yield* firstSaying(dir, name, 0);
  if (said?.child === undefined) fail(Errno.ENOENT);
  said.child.forget();
  return said.layer;
}

/** Replace an entry by a whiteout. A directory cannot be renamed over: exchange, then clear it away. */
export function* coverWithWhiteout(
  dir: UnionInode, branch: Branch, layer: Inode, name: Name, victim: UnionInode,
): Task<void> {
  yield* allowXattrWhiteouts(branch, layer);
  const whiteout = yield* whiteoutInWork(branch);
  const flags = victim.isDirectory ? RENAME_EXCHANGE : 0;
  try {
    yield* branch.work.rename(whiteout.name, whiteout.inode, layer, name, victim.real, flags); // COMMIT POINT
  } catch (error) {
    yield* branch.discard(branch.work.unlink(whiteout.name, whiteout.inode));
    throw error;
  } finally {
    whiteout.inode.forget();
  }
  dir.fs.counters.whiteouts++;
  if (victim.isDirectory) yield* branch.discard(clearAway(branch, whiteout.name, victim.real));
}

/** A directory with nothing beneath it, perhaps with whiteouts in it. */
function* removeDirectory(branch: Branch, layer: Inode, name: Name, victim: UnionInode): Task<void> {
  try {
    yield* layer.rmdir(name, victim.real); // COMMIT POINT
  } catch (error) {
    if (errnoOf(error) !== Errno.ENOTEMPTY) throw error;
    yield* requireEmpty(victim);
    const temp = branch.tempName();
    yield* layer.rename(name, victim.real, branch.work, temp, undefined, 0); // COMMIT POINT
    yield* branch.discard(clearAway(branch, temp, victim.real));
  }
}

/** Remove a directory in `work/` with the whiteouts that are in it. */
function* clearAway(branch: Branch, temp: Name, dir: Inode): Task<void> {
  yield* emptyDirectory(dir);
  yield* branch.work.rmdir(temp, dir);
}

/** The name is gone: forget that it was one of the object's. */
export function dropAlias(dir: UnionInode, name: Name, inode: UnionInode): void {
  dir.fs.detach(dir, name, inode);
  if (inode.parent === dir && inode.name === name) {
    const next = inode.aliases?.shift();
    inode.parent = next?.parent;
    inode.name = next?.name ?? inode.name;
  } else {
    inode.aliases = inode.aliases?.filter((alias) => alias.parent !== dir || alias.name !== name);
  }
  if (inode.aliases?.length === 0) inode.aliases = undefined;
}

/** No known name is left. One that nobody has looked up yet may be: `enterAlias` takes it back then. */
export function noteOrphan(file: UnionInode): void {
  file.orphan = file.unionNlink === undefined || file.unionNlink <= 0;
}
