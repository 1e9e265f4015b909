/**
 * New names: create, mkdir, mknod, symlink, link, tmpfile.
 *
 * A new object goes to the leftmost writable branch where its parent is or can be made; if that one
 * is full, to the next. Where the name is whited out there, the object is made in `work/` and takes
 * the whiteout's place in one rename (W3); a directory is opaque before that (W2).
 * cf. fs/overlayfs/dir.c, ovl_create_or_link
 */
import { Errno } from '../../abi/errno.ts';
import { RENAME_EXCHANGE } from '../../abi/fcntl.ts';
import { PERMISSION_BITS, S_IFDIR, S_ISGID } from '../../abi/mode.ts';
import { errnoOf, fail, fsError } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Cred, Inode, Name } from '../../vfs/inode-operations.ts';
import { ROOT_CRED } from './branch.ts';
import type { Branch } from './branch.ts';
import { copyUp, copyUpToBranch, ensureLayer, settleCopyUp } from './copy-up.ts';
import { changeUnionNlink, holdUnionNlink } from './hard-link-index.ts';
import { UnionInode, asUnionInode } from './inode.ts';
import type { Layer } from './inode.ts';
import { checkName, enterAlias, markImpureFor, requireDirectory } from './lookup.ts';
import { isWhiteout } from './whiteout.ts';

type Make = (dir: Inode, name: Name) => Task<Inode>;

export function create(dir: UnionInode, name: Name, mode: number, cred: Cred): Task<UnionInode> {
  return createEntry(dir, name, (host, n) => host.create(n, mode, cred), false);
}

export function mkdir(dir: UnionInode, name: Name, mode: number, cred: Cred): Task<UnionInode> {
  return createEntry(dir, name, (host, n) => host.mkdir(n, mode, cred), true);
}

export function* mknod(
  dir: UnionInode, name: Name, mode: number, major: number, minor: number, cred: Cred,
): Task<UnionInode> {
  // A character device 0:0 would be a whiteout: nobody may write one from above.
  if ((mode & 0o170000) === 0o020000 && major === 0 && minor === 0) fail(Errno.EPERM);
  return yield* createEntry(dir, name, (host, n) => host.mknod(n, mode, major, minor, cred), false);
}

export function symlink(dir: UnionInode, name: Name, target: string, cred: Cred): Task<UnionInode> {
  return createEntry(dir, name, (host, n) => host.symlink(n, target, cred), false);
}

function* createEntry(dir: UnionInode, name: Name, make: Make, directory: boolean): Task<UnionInode> {
  const whiteout = yield* checkNew(dir, name);
  const { branch, inode } = yield* inLeftmostBranch(dir, whiteout, (b, layer) =>
    whiteout === b ? overWhiteout(dir, b, layer, name, make, directory) : make(layer, name),
  );
  const stat = yield* inode.getattr();
  const number = dir.fs.numbers.of(branch.numberSpace, stat.ino);
  const ino = dir.fs.inodes.has(number) ? dir.fs.numbers.fresh() : number;
  const made = new UnionInode(dir.fs, ino, branch, inode, dir, name);
  dir.fs.inodes.set(made);
  dir.fs.attach(dir, name, made);
  made.heldByDoor = true;
  made.hasOrigin = false;
  if (directory && dir.subdirectories !== undefined) dir.subdirectories++;
  return made;
}

/** Nothing is visible under the name. The branch of the whiteout that sees to that, if one does. */
function* checkNew(dir: UnionInode, name: Name): Task<Branch | undefined> {
  checkName(name);
  requireDirectory(dir);
  if (dir.orphan) fail(Errno.ENOENT);
  if (dir.children?.has(name)) fail(Errno.EEXIST);
  const said = yield* firstSaying(dir, name, 0);
  if (said?.child !== undefined) {
    said.child.forget();
    fail(Errno.EEXIST);
  }
  return said?.layer.branch;
}

/** The first layer, from branch `fromIndex` on, that says something of a name: an entry or a whiteout. */
export function* firstSaying(
  dir: UnionInode, name: Name, fromIndex: number,
): Task<{ layer: Layer; child: Inode | undefined } | undefined> {
  for (const layer of dir.layers()) {
    if (layer.branch.index < fromIndex) continue;
    const child = yield* layer.inode.lookup(name);
    if (child === undefined) continue;
    if (yield* isWhiteout(layer.branch, layer.inode, child)) {
      child.forget();
      return { layer, child: undefined };
    }
    return { layer, child };
  }
  return undefined;
}

/** Do it on the leftmost writable branch that takes it. Errors: EROFS none; the last branch's ENOSPC. */
function* inLeftmostBranch(
  dir: UnionInode, whiteout: Branch | undefined, put: (branch: Branch, layer: Inode) => Task<Inode>,
): Task<{ branch: Branch; inode: Inode }> {
  // A whiteout on a branch hides all to its right: the new object must go there or further left.
  const rightmost = whiteout?.index ?? Infinity;
  let failure = fsError(Errno.EROFS);
  for (const branch of dir.fs.branches) {
    if (!branch.writable || branch.index > rightmost) continue;
    try {
      const layer = yield* ensureLayer(dir, branch);
      return { branch, inode: yield* put(branch, layer) };
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== Errno.EROFS && errno !== Errno.ENOSPC && errno !== Errno.EDQUOT) throw error;
      failure = fsError(errno);
    }
  }
  throw failure;
}

/** Made in `work/`, then put in the whiteout's place (W2, W3). */
function* overWhiteout(
  dir: UnionInode, branch: Branch, layer: Inode, name: Name, make: Make, directory: boolean,
): Task<Inode> {
  const whiteout = yield* layer.lookup(name);
  if (whiteout === undefined) return yield* make(layer, name);
  let nursery: Nursery | undefined;
  const temp = branch.tempName();
  try {
    nursery = yield* makeNursery(branch, layer);
    const made = yield* make(nursery?.inode ?? branch.work, temp);
    yield* replaceWhiteout(dir, branch, layer, name, whiteout, {
      dir: nursery?.inode ?? branch.work, name: temp, inode: made, directory,
    });
    return made;
  } catch (error) {
    whiteout.forget();
    throw error;
  } finally {
    if (nursery !== undefined) yield* branch.discard(branch.work.rmdir(nursery.name, nursery.inode));
    nursery?.inode.forget();
  }
}

interface Fresh {
  readonly dir: Inode;
  readonly name: Name;
  readonly inode: Inode;
  readonly directory: boolean;
}

function* replaceWhiteout(
  dir: UnionInode, branch: Branch, layer: Inode, name: Name, whiteout: Inode, fresh: Fresh,
): Task<void> {
  try {
    if (!fresh.directory) {
      yield* fresh.dir.rename(fresh.name, fresh.inode, layer, name, whiteout, 0); // COMMIT POINT
      whiteout.forget();
      return;
    }
    const beneath = yield* firstSaying(dir, name, branch.index + 1);
    beneath?.child?.forget();
    if (beneath !== undefined) yield* branch.setOpaque(fresh.inode);
    yield* fresh.dir.rename(fresh.name, fresh.inode, layer, name, whiteout, RENAME_EXCHANGE); // COMMIT POINT
  } catch (error) {
    const { dir: home, name: temp, inode } = fresh;
    yield* branch.discard(fresh.directory ? home.rmdir(temp, inode) : home.unlink(temp, inode));
    inode.forget();
    throw error;
  }
  yield* branch.discard(fresh.dir.unlink(fresh.name, whiteout));
  whiteout.forget();
}

interface Nursery {
  readonly name: Name;
  readonly inode: Inode;
}

const DEFAULT_ACL = 'system.posix_acl_default';

/**
 * A directory in `work/` that hands down what the real parent would: its group if setgid, its default
 * ACL. So the host's own rules give the new object what it would have got in place. Undefined where
 * the parent hands down nothing.
 */
function* makeNursery(branch: Branch, parent: Inode): Task<Nursery | undefined> {
  const stat = yield* parent.getattr();
  const acl = parent.getxattr === undefined ? undefined : yield* defaultAcl(parent);
  if ((stat.mode & S_ISGID) === 0 && acl === undefined) return undefined;
  const name = branch.tempName();
  const inode = yield* branch.work.mkdir(name, 0o700, { ...ROOT_CRED, uid: stat.uid, gid: stat.gid });
  try {
    yield* inode.setattr({ mode: stat.mode & PERMISSION_BITS });
    if (acl !== undefined) yield* inode.setxattr!(DEFAULT_ACL, acl, 0);
    return { name, inode };
  } catch (error) {
    yield* branch.discard(branch.work.rmdir(name, inode));
    inode.forget();
    throw error;
  }
}

function* defaultAcl(dir: Inode): Task<Uint8Array | undefined> {
  try {
    return yield* dir.getxattr!(DEFAULT_ACL);
  } catch (error) {
    if (errnoOf(error) !== Errno.EOPNOTSUPP) throw error;
    return undefined;
  }
}

/** A further name for a file. It is copied up whole first: a metacopy is found by its name. */
export function* link(dir: UnionInode, name: Name, target: Inode): Task<void> {
  const file = asUnionInode(dir.fs, target);
  if (file.type === S_IFDIR) fail(Errno.EPERM);
  yield* checkNew(dir, name);
  yield* copyUp(file, 'data');
  yield* settleCopyUp(file);
  yield* checkNew(dir, name); // There was a wait: the name could be taken by now.
  const said = yield* firstSaying(dir, name, 0);
  if (said !== undefined && said.layer.branch.writable) yield* copyUpToBranch(file, said.layer.branch);
  const { branch } = file;
  if (said !== undefined && said.layer.branch.index < branch.index) fail(Errno.EROFS);
  const layer = yield* ensureLayer(dir, branch);
  yield* markImpureFor(file, layer);
  yield* holdUnionNlink(file);
  const present = yield* layer.lookup(name);
  if (present === undefined) yield* layer.link(name, file.real);
  else yield* linkOverWhiteout(branch, layer, name, present, file);
  enterAlias(dir, name, file);
  yield* changeUnionNlink(file, +1);
}

function* linkOverWhiteout(
  branch: Branch, layer: Inode, name: Name, whiteout: Inode, file: UnionInode,
): Task<void> {
  const temp = branch.tempName();
  let linked: Inode | undefined;
  try {
    yield* branch.work.link(temp, file.real);
    linked = (yield* branch.work.lookup(temp)) ?? fail(Errno.EIO);
    yield* branch.work.rename(temp, linked, layer, name, whiteout, 0); // COMMIT POINT
  } catch (error) {
    if (linked !== undefined) yield* branch.discard(branch.work.unlink(temp, linked));
    throw error;
  } finally {
    linked?.forget();
    whiteout.forget();
  }
}

/** A file without a name, on the branch where a new name of that directory would go. */
export function* tmpfile(dir: UnionInode, mode: number, cred: Cred): Task<UnionInode> {
  requireDirectory(dir);
  if (dir.orphan) fail(Errno.ENOENT);
  for (const branch of dir.fs.branches) {
    if (!branch.writable) continue;
    const layer = yield* ensureLayer(dir, branch);
    if (layer.tmpfile === undefined) fail(Errno.EOPNOTSUPP);
    const inode = yield* layer.tmpfile(mode, cred);
    const stat = yield* inode.getattr();
    const number = dir.fs.numbers.of(branch.numberSpace, stat.ino);
    const made = new UnionInode(dir.fs, number, branch, inode, undefined, '' as Name);
    made.orphan = true;
    made.hasOrigin = false;
    made.heldByDoor = true;
    dir.fs.inodes.set(made);
    return made;
  }
  return fail(Errno.EROFS);
}
