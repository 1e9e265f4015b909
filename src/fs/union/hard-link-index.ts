/**
 * The hard-link index: how names of one lower file stay names of one file after copy-up.
 *
 * X1. A lower file with several links is copied up into `index/`, under the hex of its origin record;
 *     its names in the upper tree are hard links of that entry. A name not yet linked up still shows
 *     the indexed file, because lookup asks the index.
 * X2. The union's link count is kept on the indexed file (`nlink`), as a difference to the real count,
 *     for names that are only whited out do not change the real one.
 * X3. The entry goes when the union's count reaches zero.
 * cf. fs/overlayfs/util.c ovl_nlink_start, copy_up.c ovl_link_up
 */
import { S_IFDIR } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import { hexOf } from '../../lib/latin1.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
import type { Branch } from './branch.ts';
import { METACOPY, NLINK, ORIGIN, decodeNlink, decodeOrigin, encodeNlink, encodeOrigin } from './format.ts';
import type { Layer, UnionInode } from './inode.ts';
import { originNumber } from './lookup.ts';
import type { UnionFs } from './union.ts';

export interface Indexed {
  /** The file that all names show. */
  readonly layer: Layer;
  readonly data: Layer | undefined;
  readonly number: number;
  readonly indexName: Name;
}

/** Is what was found for a name an indexed file? Asked for names of files with several links only. */
export function* findIndexed(fs: UnionFs, top: Layer, stat: Stat): Task<Indexed | undefined> {
  if (top.inode.type === S_IFDIR || stat.nlink < 2) return undefined;
  return top.branch.writable ? yield* indexedUpper(fs, top) : yield* indexedLower(fs, top, stat);
}

function* indexedUpper(fs: UnionFs, top: Layer): Task<Indexed | undefined> {
  if ((yield* top.branch.overlayXattr(top.inode, NLINK)) === undefined) return undefined;
  const origin = yield* top.branch.overlayXattr(top.inode, ORIGIN);
  const number = yield* originNumber(fs.branches, top);
  if (origin === undefined || number === undefined) return undefined;
  return { layer: top, data: undefined, number, indexName: hexOf(origin) as Name };
}

function* indexedLower(fs: UnionFs, top: Layer, stat: Stat): Task<Indexed | undefined> {
  const branch = indexBranch(fs, top.branch);
  const indexName = branch === undefined ? undefined : yield* indexNameOf(top.inode);
  if (branch === undefined || indexName === undefined) return undefined;
  const entry = yield* branch.indexDir.lookup(indexName);
  if (entry === undefined) return undefined;
  const metacopy = (yield* branch.overlayXattr(entry, METACOPY)) !== undefined;
  return {
    layer: { branch, inode: entry },
    data: metacopy ? top : undefined,
    number: fs.numbers.of(top.branch.numberSpace, stat.ino),
    indexName,
  };
}

/** The branch whose index serves files of this read-only branch: where their copy-up goes first. */
export function indexBranch(fs: UnionFs, lower: Branch): Branch | undefined {
  return fs.branches.findLast((branch) => branch.writable && branch.index < lower.index);
}

/** Undefined where the filesystem gives no handles: then links are kept while mounted only. */
export function* indexNameOf(lower: Inode): Task<Name | undefined> {
  const handle = lower.exportHandle === undefined ? undefined : yield* lower.exportHandle();
  return handle === undefined ? undefined : (hexOf(encodeOrigin(handle)) as Name);
}

/** Read X2's count. `foundStat` is of what the name showed: the lower, or the indexed file itself. */
export function* loadUnionNlink(inode: UnionInode, foundStat: Stat): Task<void> {
  if (inode.indexName === undefined) return;
  const value = yield* inode.branch.overlayXattr(inode.real, NLINK);
  const record = value === undefined ? undefined : decodeNlink(value);
  const real = yield* inode.real.getattr();
  if (record?.relativeTo === 'U') inode.unionNlink = real.nlink + record.difference;
  else {
    const lower = real.ino === foundStat.ino ? yield* originStat(inode) : foundStat;
    // Without the lower: all links of the indexed file but the index entry itself.
    inode.unionNlink = lower === undefined ? real.nlink - 1 : lower.nlink + (record?.difference ?? 0);
  }
  inode.unionNlink = Math.max(inode.unionNlink, 1);
}

function* originStat(inode: UnionInode): Task<Stat | undefined> {
  const origin = yield* inode.branch.overlayXattr(inode.real, ORIGIN);
  const handle = origin === undefined ? undefined : decodeOrigin(origin);
  if (handle === undefined) return undefined;
  for (const branch of inode.fs.branches) {
    if (branch.writable || branch.fs.decodeHandle === undefined) continue;
    const lower = yield* branch.fs.decodeHandle(handle);
    if (lower === undefined) continue;
    const stat = yield* lower.getattr();
    lower.forget();
    return stat;
  }
  return undefined;
}

/** Change the union's count, and write it down relative to the real count as it is now. */
export function* setUnionNlink(inode: UnionInode, count: number): Task<void> {
  if (inode.indexName === undefined) return;
  inode.unionNlink = count;
  if (count <= 0) {
    const entry = yield* inode.branch.indexDir.lookup(inode.indexName);
    if (entry !== undefined) yield* inode.branch.indexDir.unlink(inode.indexName, entry);
    entry?.forget();
    return;
  }
  const real = yield* inode.real.getattr();
  const record = encodeNlink({ relativeTo: 'U', difference: count - real.nlink });
  yield* inode.branch.setOverlayXattr(inode.real, NLINK, record);
}
