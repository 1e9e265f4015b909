/**
 * Whiteouts: how a union says "deleted" on a writable branch.
 *
 * W1. A whiteout is visible to no caller: not in readdir, not in lookup, not in stat.
 * W2. A directory that takes the place of a whiteout is opaque before it is visible under its name.
 * W3. A whiteout appears in one host operation: it replaces what it hides, or it is put where nothing was.
 * W4. Whiteouts of a branch are hard links of one, kept in the work directory: they cost no inode. When it
 *     has as many links as its filesystem allows, the rest of the mount makes them one by one.
 * Here: recognising and making. Who needs one decides in remove.ts and rename.ts. Left out: removing
 * whiteouts whose lower has vanished. cf. fs/overlayfs/dir.c, ovl_whiteout
 */
import { Errno } from '../../abi/errno.ts';
import { S_IFCHR, S_IFREG, DT_CHR, DT_REG, DT_UNKNOWN, isChr } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import type { Task } from '../../kernel/task.ts';
import { errnoOf, fail } from '../../kernel/error.ts';
import type { DirEntry, Inode, Name } from '../../vfs/inode-operations.ts';
import { ROOT_CRED } from './branch.ts';
import type { Branch } from './branch.ts';
import { OPAQUE, WHITEOUT, WH_OPAQUE, WH_PREFIX, YES } from './format.ts';
import { bytesOf } from '../../lib/latin1.ts';

const XATTR_WHITEOUTS_INSIDE = bytesOf('x');

/** What is known of a directory of a branch that may hide things beneath: read once. */
interface HidingFacts {
  /** `opaque` is `x`: regular files in it may be whiteouts. */
  readonly xattrWhiteouts: boolean;
  /** Names hidden by a `.wh.` file, on read-only branches. */
  readonly dotNames: ReadonlySet<string> | undefined;
  readonly dotOpaque: boolean;
}

const facts = new WeakMap<Inode, HidingFacts>();

export function* hidingFacts(branch: Branch, dir: Inode): Task<HidingFacts> {
  const known = facts.get(dir);
  if (known !== undefined) return known;
  const opaque = yield* branch.overlayXattr(dir, OPAQUE);
  const dotNames = branch.writable ? undefined : yield* dotWhiteouts(dir);
  const read: HidingFacts = {
    xattrWhiteouts: opaque?.length === 1 && opaque[0] === XATTR_WHITEOUTS_INSIDE[0],
    dotNames: dotNames !== undefined && dotNames.size > 0 ? dotNames : undefined,
    dotOpaque: dotNames?.has(WH_OPAQUE.slice(WH_PREFIX.length)) ?? false,
  };
  facts.set(dir, read);
  return read;
}

function* dotWhiteouts(dir: Inode): Task<Set<string>> {
  const names = new Set<string>();
  for (const entry of yield* dir.readdir()) {
    if (entry.name.startsWith(WH_PREFIX)) names.add(entry.name.slice(WH_PREFIX.length));
  }
  return names;
}

/** Forget what was read of a directory: it changed beneath, or we made it hide by xattr. */
export function dropHidingFacts(dir: Inode): void {
  facts.delete(dir);
}

/** Is this entry of a branch directory a whiteout? `child` is what its name gave, `known` its attributes if at hand. */
export function* isWhiteout(branch: Branch, dir: Inode, child: Inode, known?: Stat): Task<boolean> {
  if (isChr(child.type)) {
    const stat = known ?? (yield* child.getattr());
    return stat.rdevMajor === 0 && stat.rdevMinor === 0;
  }
  if (child.type !== S_IFREG) return false;
  if (!(yield* hidingFacts(branch, dir)).xattrWhiteouts) return false;
  return (yield* branch.overlayXattr(child, WHITEOUT)) !== undefined;
}

/** The same for an entry of a listing, with a lookup only where its type allows a whiteout. */
export function* isWhiteoutEntry(branch: Branch, dir: Inode, entry: DirEntry): Task<boolean> {
  if (entry.type !== DT_CHR && entry.type !== DT_REG && entry.type !== DT_UNKNOWN) return false;
  if (entry.type === DT_REG && !(yield* hidingFacts(branch, dir)).xattrWhiteouts) return false;
  const child = yield* dir.lookup(entry.name);
  if (child === undefined) return false;
  const answer = yield* isWhiteout(branch, dir, child);
  child.forget();
  return answer;
}

const SHARED_NAME = 'whiteout' as Name;

/** Find out at mount which form the branch takes, and have the shared one ready in `base`. */
export function* prepareWhiteouts(branch: Branch, base: Inode): Task<void> {
  const kept = yield* base.lookup(SHARED_NAME);
  if (kept !== undefined && (yield* isWhiteout(branch, base, kept))) {
    branch.sharedWhiteout = kept;
    return;
  }
  kept?.forget();
  try {
    yield* makeShared(branch, base, kept);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== Errno.EPERM && errno !== Errno.EOPNOTSUPP && errno !== Errno.EINVAL) throw error;
    branch.whiteoutForm = 'xattr';
  }
}

/** In `work/` first: the name is never without one. */
function* makeShared(branch: Branch, base: Inode, replaced: Inode | undefined): Task<void> {
  const name = branch.tempName();
  const made = yield* branch.work.mknod(name, S_IFCHR, 0, 0, ROOT_CRED);
  try {
    yield* branch.work.rename(name, made, base, SHARED_NAME, replaced, 0);
  } catch (error) {
    yield* branch.work.unlink(name, made);
    made.forget();
    throw error;
  }
  branch.sharedWhiteout = made;
}

/** A whiteout under a fresh name in `work/`, ready to be renamed into place. */
export function* whiteoutInWork(branch: Branch): Task<{ name: Name; inode: Inode }> {
  const name = branch.tempName();
  yield* makeWhiteout(branch, branch.work, name);
  const inode = yield* branch.work.lookup(name);
  if (inode === undefined) fail(Errno.EIO);
  return { name, inode };
}

/** Put a whiteout where nothing is on that branch. The commit point of hiding a lower entry. */
export function* placeWhiteout(branch: Branch, dir: Inode, name: Name): Task<void> {
  if (branch.whiteoutForm === 'xattr') yield* allowXattrWhiteouts(branch, dir);
  yield* makeWhiteout(branch, dir, name);
}

/** Before the first xattr whiteout of a directory: it must say that it holds some. */
export function* allowXattrWhiteouts(branch: Branch, dir: Inode): Task<void> {
  if (branch.whiteoutForm !== 'xattr') return;
  if ((yield* branch.overlayXattr(dir, OPAQUE)) !== undefined) return;
  yield* branch.setOverlayXattr(dir, OPAQUE, XATTR_WHITEOUTS_INSIDE);
  dropHidingFacts(dir);
}

function* makeWhiteout(branch: Branch, dir: Inode, name: Name): Task<void> {
  if (branch.whiteoutForm === 'xattr') {
    const inode = yield* dir.create(name, 0, ROOT_CRED);
    yield* branch.setOverlayXattr(inode, WHITEOUT, YES);
    inode.forget();
    return;
  }
  if (yield* linkShared(branch, dir, name)) return;
  (yield* dir.mknod(name, S_IFCHR, 0, 0, ROOT_CRED)).forget();
}

/** W4. False: not here, or it has as many links as it may. */
function* linkShared(branch: Branch, dir: Inode, name: Name): Task<boolean> {
  const shared = branch.sharedWhiteout;
  if (shared === undefined) return false;
  try {
    yield* dir.link(name, shared);
    return true;
  } catch (error) {
    switch (errnoOf(error)) {
      case Errno.EMLINK:
      case Errno.EPERM:
      case Errno.EOPNOTSUPP:
      case Errno.ENOENT: // Somebody has cleared the work directory.
        branch.sharedWhiteout = undefined;
        shared.forget();
        return false;
      default:
        throw error;
    }
  }
}
