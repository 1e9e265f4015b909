/**
 * Volatile unions: nothing is synced, so a power failure may leave anything on the writable branches.
 *
 * V1. While a branch is used so, and ever after, `work/incompat/volatile` in its work directory says it.
 *     Whoever knows that no crash came between removes that by hand: nobody else can know.
 *     A commit or discard that unmounts a union and mounts it again goes on with the mark it finds.
 * V2. A branch whose `work/incompat` holds anything is not mounted: by overlayfs's rule those are the
 *     features that a mount must know before it may empty `work/`.
 * V3. fsync succeeds and does nothing, until the host has failed to write back data of a file that is
 *     synced. From then on every sync of the union fails: it is too late for that file to be whole.
 * Left out of V3: a failure for a file that nobody syncs. The kernel looks at the filesystem's own record
 * of errors, which syncfs(2) alone tells, and that would write everything.
 * cf. ovl_create_volatile_dirty, ovl_workdir_cleanup, ovl_sync_status in fs/overlayfs
 */
import { Errno } from '../../abi/errno.ts';
import { S_IFDIR } from '../../abi/mode.ts';
import { FsError, fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
import { INCOMPAT, ROOT_CRED } from './branch.ts';
import type { BranchSpec } from './branch.ts';
import type { UnionInode } from './inode.ts';
import type { UnionFs } from './union.ts';

const VOLATILE = 'volatile' as Name;
const DIRTY = 'dirty' as Name;

/** Mark every writable branch (V1): before anything is written through a union that is opened volatile. */
export function* markVolatile(union: UnionFs): Task<void> {
  for (const branch of union.branches) {
    if (!branch.writable) continue;
    const incompat = yield* directory(branch.work, INCOMPAT);
    const mark = yield* directory(incompat, VOLATILE);
    const dirty = (yield* mark.lookup(DIRTY)) ?? (yield* mark.create(DIRTY, 0o600, ROOT_CRED));
    // The one sync of a volatile union: the mark must survive what it warns of.
    yield* dirty.fsync(false);
    for (const inode of [dirty, mark, incompat]) inode.forget();
  }
}

function* directory(parent: Inode, name: Name): Task<Inode> {
  return (yield* directoryIn(parent, name)) ?? (yield* parent.mkdir(name, 0o700, ROOT_CRED));
}

/** V2. Errors: EINVAL, with what to do. */
export function* checkIncompat({ work: base, label, workLabel, resumed }: BranchSpec): Task<void> {
  const work = yield* directoryIn(base!, 'work' as Name);
  const incompat = work === undefined ? undefined : yield* directoryIn(work, INCOMPAT);
  const entries = incompat === undefined ? [] : yield* incompat.readdir();
  incompat?.forget();
  work?.forget();
  for (const { name } of entries) {
    if (name === VOLATILE && resumed === true) continue;
    throw new FsError(Errno.EINVAL, refusal(name, label, `${workLabel ?? 'WORK'}/work/${INCOMPAT}/${name}`));
  }
}

function* directoryIn(parent: Inode, name: Name): Task<Inode | undefined> {
  const found = yield* parent.lookup(name);
  if (found === undefined || found.type === S_IFDIR) return found;
  found.forget();
  return undefined;
}

function refusal(feature: string, label: string, path: string): string {
  if (feature !== VOLATILE) {
    return `branch ${label} was used with a feature of overlayfs that is not known here: ${path}`;
  }
  return `branch ${label} was mounted volatile, and a crash since then may have left anything on it. `
    + 'Throw it and its work directory away; or, if you know that the system has not crashed, '
    + `remove ${path} and mount again`;
}

/** V3. Errors: EIO. */
export function* syncVolatile(inode: UnionInode): Task<void> {
  const { fs, real } = inode;
  if (inode.branch.writable && real.writebackFailed !== undefined && (yield* real.writebackFailed())) {
    fs.writebackFailed = true;
  }
  if (fs.writebackFailed) fail(Errno.EIO);
}
