/**
 * Copy-up: an object of a branch that may not be written gets a copy on a writable one to its left.
 *
 * C1. Check, prepare in `work/`, commit by one rename, publish. No half copy is ever visible.
 * C2. Data is written before owner, mode and xattrs, and those before times: a write would clear
 *     capabilities and move the times, a chown would clear set-id bits.
 * C3. The lower is looked at before and after its data was read; a change in between means: again.
 * C4. Parents first, from the root. A parent's times are what they were: nothing happened in it.
 * C5. Copying data is the only step that waits; `copyUpLock` is held over it, and who removes or
 *     renames the object waits for the lock (`settleCopyUp`).
 * cf. fs/overlayfs/copy_up.c
 */
import { Errno } from '../../abi/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SEEK_DATA, SEEK_HOLE } from '../../abi/fcntl.ts';
import { PERMISSION_BITS, S_IFDIR, S_IFLNK, S_IFREG, S_ISGID, S_ISUID } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import { errnoOf, fail, fsError } from '../../kernel/error.ts';
import { taskOf } from '../../kernel/task.ts';
import type { Task } from '../../kernel/task.ts';
import type { Cred, Inode, Name, SetAttr } from '../../vfs/inode-operations.ts';
import type { Branch } from './branch.ts';
import { BASE, METACOPY, ORIGIN, encodeBase, encodeOrigin } from './format.ts';
import { holdUnionNlink, indexNameOf, originStat, startUnionNlink } from './hard-link-index.ts';
import type { UnionInode } from './inode.ts';
import { markImpure } from './lookup.ts';
import { COPY_CHUNK_BYTES, COPY_TRIES } from './limits.ts';

const CAPABILITY = 'security.capability';
/** The unit of `Stat.blocks`. */
const BLOCK_BYTES = 512;

export type Want = 'data' | 'metadata';

/** One copy-up's facts, carried through its steps. */
interface CopyUp {
  readonly inode: UnionInode;
  readonly branch: Branch;
  readonly want: Want;
  /** Done to the copy before it is committed: so a truncate copies no more than it keeps, and is one step. */
  readonly changes: SetAttr | undefined;
  stat: Stat;
  copiedBytes: number;
}

const isUp = (inode: UnionInode, want: Want): boolean =>
  inode.branch.writable && (want === 'metadata' || (inode.data === undefined && !inode.dataMissing));

/**
 * `changes` are made to the copy of a regular file with its copy-up: true if they were.
 * Errors: EROFS no writable branch on the left; ENOSPC, EDQUOT none has room; EBUSY the lower would not hold still.
 */
export function* copyUp(inode: UnionInode, want: Want, changes?: SetAttr): Task<boolean> {
  if (isUp(inode, want)) return false;
  using _ = yield* inode.copyUpLock.lock(inode);
  if (isUp(inode, want)) return false; // Raced with another copy-up: it is done.
  let failure = fsError(Errno.EROFS);
  if (inode.branch.writable) {
    const errno = yield* errnoOfFull(fillMetacopy(inode));
    if (errno === undefined) return false;
    failure = fsError(errno);
  }
  for (const branch of copyUpTargets(inode)) {
    const stat = yield* inode.real.getattr();
    const ctx = { inode, branch, want: effectiveWant(inode, want), changes, stat, copiedBytes: 0 };
    const errno = yield* errnoOfFull(copyUpTo(ctx));
    if (errno === undefined) return changes !== undefined && inode.type === S_IFREG;
    failure = fsError(errno);
  }
  throw failure;
}

/** Undefined if it is done; the errno that says "not on this branch: try the next"; else it throws. */
function* errnoOfFull(attempt: Task<void>): Task<number | undefined> {
  try {
    yield* attempt;
    return undefined;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== Errno.ENOSPC && errno !== Errno.EDQUOT && errno !== Errno.EROFS) throw error;
    return errno;
  }
}

/**
 * Bring it to that very branch, left of where it is, though it may be writable where it is: for a
 * rename or link to a name that something on that branch would hide.
 */
export function* copyUpToBranch(inode: UnionInode, branch: Branch): Task<void> {
  if (inode.branch.index <= branch.index) return;
  using _ = yield* inode.copyUpLock.lock(inode);
  if (inode.branch.index <= branch.index) return; // Raced with another copy-up.
  const stat = yield* inode.real.getattr();
  yield* copyUpTo({ inode, branch, want: 'data', changes: undefined, stat, copiedBytes: 0 });
}

const effectiveWant = (inode: UnionInode, want: Want): Want =>
  inode.type === S_IFREG && inode.fs.options.metacopy && !inode.orphan ? want : 'data';

/** Wait until nobody copies it up: before its names change (C5). */
export function* settleCopyUp(inode: UnionInode): Task<void> {
  if (!inode.isBeingCopiedUp) return;
  using _ = yield* inode.copyUpLock.lock(inode);
}

/** Writable branches left of where it is, nearest first. */
function copyUpTargets(inode: UnionInode): Branch[] {
  return inode.fs.branches
    .filter((branch) => branch.writable && branch.index < inode.branch.index)
    .toReversed();
}

function* copyUpTo(ctx: CopyUp): Task<void> {
  if (ctx.inode.isDirectory) {
    yield* ensureLayer(ctx.inode, ctx.branch);
    return;
  }
  const { counters } = ctx.inode.fs;
  counters.copyUps++;
  if (ctx.want === 'metadata') counters.metadataCopyUps++;
  if (ctx.inode.orphan) yield* copyUpOrphan(ctx);
  else if (ctx.stat.nlink > 1 && (yield* copyUpIndexed(ctx))) return;
  else yield* copyUpNamed(ctx);
}

/** A file with a name: into work, then under its name. */
function* copyUpNamed(ctx: CopyUp): Task<void> {
  const { inode, branch } = ctx;
  if (inode.parent === undefined) fail(Errno.ESTALE);
  const parent = yield* ensureLayer(inode.parent, branch);
  const temp = branch.tempName();
  const copy = yield* makeCopy(ctx, temp);
  let before: Stat;
  try {
    yield* markImpure(branch, parent);
    before = yield* parent.getattr();
    yield* branch.work.rename(temp, copy, parent, inode.name, undefined, 0); // COMMIT POINT
  } catch (error) {
    yield* branch.discard(branch.work.unlink(temp, copy));
    copy.forget();
    throw error;
  }
  publish(ctx, copy);
  yield* restoreTimes(parent, before);
}

/** A file without a name: nobody will find it, so nothing need be committed. */
function* copyUpOrphan(ctx: CopyUp): Task<void> {
  const temp = ctx.branch.tempName();
  const copy = yield* makeCopy(ctx, temp);
  yield* ctx.branch.discard(ctx.branch.work.unlink(temp, copy));
  publish(ctx, copy);
}

/** A lower file with several links: into the index, then linked up under the name it is known by (X1). */
function* copyUpIndexed(ctx: CopyUp): Task<boolean> {
  const { inode, branch } = ctx;
  const indexName = yield* indexNameOf(inode.real);
  if (indexName === undefined) return false;
  const temp = branch.tempName();
  const copy = yield* makeCopy(ctx, temp);
  const linked = inode.unionNlink ?? ctx.stat.nlink;
  try {
    yield* startUnionNlink({ branch, inode: copy }, linked, ctx.stat.nlink);
    yield* branch.work.rename(temp, copy, branch.indexDir, indexName, undefined, 0); // COMMIT POINT
  } catch (error) {
    yield* branch.discard(branch.work.unlink(temp, copy));
    copy.forget();
    throw error;
  }
  publish(ctx, copy);
  inode.indexName = indexName;
  inode.unionNlink = linked;
  yield* linkUpKnown(inode);
  return true;
}

/** All known names. It is copied up already, and shows under names that are not linked up too (X1): so this may fail. */
function* linkUpKnown(inode: UnionInode): Task<void> {
  try {
    yield* linkUp(inode, inode.parent, inode.name);
    for (const alias of inode.aliases ?? []) yield* linkUp(inode, alias.parent, alias.name);
    yield* holdUnionNlink(inode);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

/**
 * Before one name of an indexed file is taken away or moved (X2): it may show under a name that is not
 * in the upper tree yet, so put it there.
 */
export function* ensureLinkedUp(inode: UnionInode, dir: UnionInode, name: Name): Task<void> {
  const { unionNlink, branch } = inode;
  if (inode.indexName === undefined || unionNlink === undefined) return;
  const present = yield* (dir.layerOn(branch)?.lookup(name) ?? taskOf(undefined));
  present?.forget();
  if (present === undefined) {
    const lower = yield* originStat(inode);
    if (lower !== undefined) yield* startUnionNlink({ branch, inode: inode.real }, unionNlink, lower.nlink);
    yield* linkUp(inode, dir, name);
  }
  yield* holdUnionNlink(inode);
}

/** Give an indexed file its name in the upper tree too. */
function* linkUp(inode: UnionInode, dir: UnionInode | undefined, name: Name): Task<void> {
  if (dir === undefined) return;
  const parent = yield* ensureLayer(dir, inode.branch);
  const before = yield* parent.getattr();
  yield* markImpure(inode.branch, parent);
  try {
    yield* parent.link(name, inode.real);
  } catch (error) {
    if (errnoOf(error) !== Errno.EEXIST) throw error; // Linked up before.
  }
  yield* restoreTimes(parent, before);
}

/** From here on the union shows the copy. The lower stays open only if its data is still needed. */
function publish(ctx: CopyUp, copy: Inode): void {
  const { inode } = ctx;
  const lower = { branch: inode.branch, inode: inode.real };
  if (inode.disowned) replaceSuccessor(inode);
  inode.real = copy;
  inode.branch = ctx.branch;
  inode.hasOrigin = undefined;
  if (inode.type !== S_IFREG) lower.inode.forget();
  else if (ctx.want === 'metadata' && inode.data === undefined) inode.data = lower;
  else if (ctx.want === 'metadata') lower.inode.forget();
  else {
    (inode.data?.inode ?? lower.inode).forget();
    if (inode.data !== undefined) lower.inode.forget();
    inode.data = undefined;
  }
}

/** One that changed beneath and was replaced is written after all: whoever replaced it shows a lower that is now hidden. */
function replaceSuccessor(inode: UnionInode): void {
  const { fs, parent, name } = inode;
  const successor = parent?.children?.get(name);
  if (parent === undefined || successor === undefined || successor === inode) return;
  fs.disown(parent, name, successor);
  fs.beneath.invalidation?.entry(parent, name);
}

/** The whole copy under a temporary name in `work/`; on failure the name is gone again. */
function* makeCopy(ctx: CopyUp, temp: Name): Task<Inode> {
  const { inode, branch, stat } = ctx;
  const copy = yield* makeNode(ctx, temp);
  try {
    if (inode.type === S_IFREG) {
      if (ctx.want === 'data') yield* copyStableData(ctx, copy);
      else if (stat.size > 0) yield* copy.setattr({ size: stat.size });
      if (mayHaveLostMode(ctx)) yield* copy.setattr({ mode: stat.mode & PERMISSION_BITS });
    }
    yield* copyXattrs(inode.real, copy);
    yield* markOrigin(ctx, copy);
    yield* setTimes(copy, stat);
    if (ctx.changes !== undefined) yield* copy.setattr(ctx.changes);
    // As overlayfs: what is durable before the rename is data. Metadata is ordered by the branch's journal.
    if (ctx.copiedBytes > 0 && !inode.fs.options.volatile) yield* copy.fsync(false);
    return copy;
  } catch (error) {
    yield* branch.discard(branch.work.unlink(temp, copy));
    copy.forget();
    throw error;
  }
}

/**
 * The copy was created with its mode. A default ACL may have had a say in that (`Branch.keepsModes`), and
 * writing, truncating and giving away take set-id bits.
 */
const mayHaveLostMode = ({ branch, stat }: CopyUp): boolean =>
  !branch.keepsModes || (stat.mode & (S_ISUID | S_ISGID)) !== 0;

function* makeNode(ctx: CopyUp, temp: Name): Task<Inode> {
  const { work } = ctx.branch;
  const { mode, uid, gid, rdevMajor, rdevMinor } = ctx.stat;
  const owner: Cred = { uid, gid, umask: 0, pid: 0 };
  if (ctx.inode.type === S_IFREG) return yield* work.create(temp, mode & PERMISSION_BITS, owner);
  if (ctx.inode.type === S_IFLNK) {
    return yield* work.symlink(temp, yield* ctx.inode.real.readlink(), owner);
  }
  return yield* work.mknod(temp, mode, rdevMajor, rdevMinor, owner);
}

function* markOrigin(ctx: CopyUp, copy: Inode): Task<void> {
  const { inode, branch } = ctx;
  // A symlink or device may not hold such xattrs in the user. namespace: then its number changes on remount.
  if (branch.prefix === 'user.overlay.' && inode.type !== S_IFREG && inode.type !== S_IFDIR) return;
  const handle = inode.real.exportHandle === undefined ? undefined : yield* inode.real.exportHandle();
  if (handle !== undefined) yield* branch.setOverlayXattr(copy, ORIGIN, encodeOrigin(handle));
  yield* branch.setOverlayXattr(copy, BASE, encodeBase(ctx.stat));
  if (ctx.want === 'metadata') yield* branch.setOverlayXattr(copy, METACOPY, new Uint8Array(0));
}

/** C3: the copy is of one moment of the lower. */
function* copyStableData(ctx: CopyUp, copy: Inode): Task<void> {
  const source = ctx.inode.dataInode;
  // A metacopy file is filled in place, where starting again would show it short: one try.
  const tries = ctx.inode.data === undefined ? COPY_TRIES : 1;
  // What the copy-up began with is of the same file where no data layer is beneath it. That it is older
  // makes C3 stricter.
  let before = source === ctx.inode.real ? ctx.stat : yield* source.getattr();
  for (let attempt = 1; ; attempt++) {
    const bytes = Math.min(before.size, ctx.changes?.size ?? Infinity);
    if (mayHaveHoles(before)) yield* copySparse(source, copy, bytes);
    else yield* copyDense(source, copy, bytes);
    const after = yield* source.getattr();
    if (sameContentTimes(before, after)) {
      ctx.copiedBytes = bytes;
      ctx.inode.fs.counters.copyUpBytes += bytes;
      if (ctx.inode.data === undefined) ctx.stat = before;
      return;
    }
    if (attempt === tries) fail(Errno.EBUSY);
    yield* copy.setattr({ size: 0 });
    before = yield* source.getattr();
  }
}

/**
 * Fewer blocks than its size needs. A file whose metadata or preallocation takes as many as its holes
 * would have taken looks dense: its copy has zeros where those holes were.
 */
const mayHaveHoles = (stat: Stat): boolean => stat.blocks * BLOCK_BYTES < stat.size;

function sameContentTimes(a: Stat, b: Stat): boolean {
  return a.size === b.size && a.mtimeSec === b.mtimeSec && a.mtimeNsec === b.mtimeNsec
    && a.ctimeSec === b.ctimeSec && a.ctimeNsec === b.ctimeNsec;
}

/** Bytes [0, length) of a file without holes. */
function* copyDense(source: Inode, target: Inode, length: number): Task<void> {
  const reached = yield* copyExtent(source, target, 0, length);
  if (reached < length) yield* target.setattr({ size: length });
}

/** Bytes [0, length) of a file, holes left as holes, the size set even if it ends in one. */
function* copySparse(source: Inode, target: Inode, length: number): Task<void> {
  let reached = 0;
  for (let position = 0; position < length; ) {
    const start = yield* nextData(source, position, length);
    if (start >= length) break;
    position = Math.min(length, yield* nextHole(source, start, length));
    reached = yield* copyExtent(source, target, start, position);
  }
  if (reached < length) yield* target.setattr({ size: length });
}

function* nextData(source: Inode, position: number, length: number): Task<number> {
  if (source.seek === undefined) return position;
  try {
    return yield* source.seek(position, SEEK_DATA);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === Errno.ENXIO) return length; // Only a hole is left.
    if (errno === Errno.EINVAL || errno === Errno.EOPNOTSUPP) return position;
    throw error;
  }
}

function* nextHole(source: Inode, position: number, length: number): Task<number> {
  if (source.seek === undefined) return length;
  try {
    return yield* source.seek(position, SEEK_HOLE);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === Errno.EINVAL || errno === Errno.EOPNOTSUPP || errno === Errno.ENXIO) return length;
    throw error;
  }
}

/** How far it came: less than `end` if the lower got shorter, which C3 will notice. */
function* copyExtent(source: Inode, target: Inode, start: number, end: number): Task<number> {
  let position = start;
  if (source.copyRange !== undefined) {
    try {
      while (position < end) {
        const copied = yield* source.copyRange(position, target, position, Math.min(COPY_CHUNK_BYTES, end - position));
        if (copied === 0) return position;
        position += copied;
      }
      return position;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== Errno.EXDEV && errno !== Errno.EOPNOTSUPP && errno !== Errno.EINVAL) throw error;
    }
  }
  return yield* copyByReading(source, target, position, end);
}

function* copyByReading(source: Inode, target: Inode, start: number, end: number): Task<number> {
  const bytes = new Uint8Array(Math.min(COPY_CHUNK_BYTES, end - start));
  let position = start;
  while (position < end) {
    const length = Math.min(bytes.length, end - position);
    const got = yield* source.read({ bytes, offset: 0, length }, position);
    if (got === 0) return position;
    // A write may end early where space ends: the next one says so.
    for (let done = 0; done < got; ) {
      const written = yield* target.write({ bytes, offset: done, length: got - done }, position + done);
      if (written === 0) fail(Errno.EIO);
      done += written;
    }
    position += got;
  }
  return position;
}

/** All but the union's own. Namespaces that the target may not hold are named here, and no others. */
function* copyXattrs(source: Inode, target: Inode): Task<void> {
  if (source.listxattr === undefined || target.setxattr === undefined) return;
  for (const name of yield* source.listxattr()) {
    if (name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.')) continue;
    const value = yield* source.getxattr!(name);
    if (value === undefined) continue;
    try {
      yield* target.setxattr(name, value, 0);
    } catch (error) {
      const errno = errnoOf(error);
      const label = name.startsWith('security.') || name.startsWith('trusted.');
      if (!(label && (errno === Errno.EPERM || errno === Errno.EOPNOTSUPP))) throw error;
    }
  }
}

export const setTimes = (target: Inode, stat: Stat): Task<void> =>
  target.setattr({
    atime: { sec: stat.atimeSec, nsec: stat.atimeNsec },
    mtime: { sec: stat.mtimeSec, nsec: stat.mtimeNsec },
  });

/** What was done in a directory is to leave no trace in its times. It is done, so a failure here is not its error. */
function* restoreTimes(dir: Inode, before: Stat): Task<void> {
  try {
    yield* setTimes(dir, before);
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

/** C4. The directory's inode on that branch, made there if it is not yet. */
export function* ensureLayer(dir: UnionInode, branch: Branch): Task<Inode> {
  const present = dir.layerOn(branch);
  if (present !== undefined) return present;
  if (!branch.writable || dir.orphan) fail(Errno.EROFS);
  // Between two layers of a renamed directory the union's path is not the branch's: no place for it.
  if (dir.parent === undefined || (dir.redirected && dir.branch.index < branch.index)) fail(Errno.EROFS);
  const parent = yield* ensureLayer(dir.parent, branch);
  const stat = yield* dir.real.getattr();
  const temp = branch.tempName();
  const owner: Cred = { uid: stat.uid, gid: stat.gid, umask: 0, pid: 0 };
  const copy = yield* branch.work.mkdir(temp, stat.mode & PERMISSION_BITS, owner);
  let before: Stat;
  try {
    yield* copy.setattr({ mode: stat.mode & PERMISSION_BITS });
    yield* copyXattrs(dir.real, copy);
    if (dir.branch.index > branch.index) {
      yield* markOrigin({ inode: dir, branch, want: 'data', changes: undefined, stat, copiedBytes: 0 }, copy);
      yield* markImpure(branch, parent);
    }
    before = yield* parent.getattr();
    yield* setTimes(copy, stat);
    yield* branch.work.rename(temp, copy, parent, dir.name, undefined, 0); // COMMIT POINT
  } catch (error) {
    yield* branch.discard(branch.work.rmdir(temp, copy));
    copy.forget();
    throw error;
  }
  insertLayer(dir, branch, copy);
  yield* restoreTimes(parent, before);
  return copy;
}

/** Publish a directory's new layer at its place in the order of branches. */
function insertLayer(dir: UnionInode, branch: Branch, inode: Inode): void {
  const lowers = dir.lowers!;
  if (branch.index < dir.branch.index) {
    lowers.unshift({ branch: dir.branch, inode: dir.real });
    dir.branch = branch;
    dir.real = inode;
    dir.hasOrigin = undefined;
    dir.redirect = undefined; // That was the layer's which is beneath now; `redirected` stays.
    return;
  }
  const at = lowers.findIndex((layer) => layer.branch.index > branch.index);
  lowers.splice(at < 0 ? lowers.length : at, 0, { branch, inode });
}

/** Give back the space of a file, and leave its size. */
function* punchAll(file: Inode, size: number): Task<void> {
  try {
    yield* file.fallocate?.(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) ?? nothing();
  } catch (error) {
    if (errnoOf(error) !== Errno.EOPNOTSUPP) throw error;
  }
}

// oxlint-disable-next-line require-yield
function* nothing(): Task<void> {}

/**
 * The data of a metacopy file comes up: all of it, into the upper file, then the mark goes. A crash on
 * the way leaves the file as it was but for what any write changes: mtime and the privilege bits.
 */
function* fillMetacopy(inode: UnionInode): Task<void> {
  const stat = yield* inode.real.getattr();
  const ctx: CopyUp = { inode, branch: inode.branch, want: 'data', changes: undefined, stat, copiedBytes: 0 };
  const capability = yield* inode.real.getxattr!(CAPABILITY);
  try {
    yield* copyStableData(ctx, inode.real);
    // Writing cleared what a write must clear, but this is not the user's write: give it back.
    yield* inode.real.setattr({ mode: stat.mode & PERMISSION_BITS });
    if (capability !== undefined) yield* inode.real.setxattr!(CAPABILITY, capability, 0);
  } catch (error) {
    // Half of the data, which nobody sees: give its space back, without a moment of another size.
    yield* punchAll(inode.real, stat.size);
    yield* restoreTimes(inode.real, stat);
    throw error;
  }
  yield* setTimes(inode.real, stat);
  if (ctx.copiedBytes > 0 && !inode.fs.options.volatile) yield* inode.real.fsync(false);
  yield* inode.branch.removeOverlayXattr(inode.real, METACOPY); // COMMIT POINT
  inode.data!.inode.forget();
  inode.data = undefined;
}
