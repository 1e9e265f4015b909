/**
 * The hard-link index: how names of one lower file stay names of one file after copy-up.
 *
 * X1. A lower file with several links is copied up into `index/`, under the hex of its origin record;
 *     its names in the upper tree are hard links of that entry. A name not yet linked up still shows
 *     the indexed file, because lookup asks the index.
 * X2. The union's link count is kept on the indexed file (`nlink`), as a difference to the real count.
 *     It is written before a name comes or goes, and the name that comes or goes is a link of the
 *     indexed file, linked up first if need be: so the commit changes the count with the names.
 * X3. The entry goes when the union's count reaches zero.
 * cf. fs/overlayfs/util.c ovl_nlink_start, copy_up.c ovl_link_up
 */
import { S_IFDIR } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import { hexOf } from '../../lib/latin1.ts';
import { errnoOf } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
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
  const branches = fs.branches.filter((branch) => branch.writable && branch.index < top.branch.index);
  const indexName = branches.length === 0 ? undefined : yield* indexNameOf(top.inode);
  if (indexName === undefined) return undefined;
  // The leftmost wins: where the nearest one had no room, the copy went further left.
  for (const branch of branches) {
    const entry = yield* branch.indexDir.lookup(indexName);
    if (entry !== undefined) return yield* indexedAs({ branch, inode: entry }, indexName, top, stat);
  }
  return undefined;
}

function* indexedAs(layer: Layer, indexName: Name, top: Layer, stat: Stat): Task<Indexed> {
  const metacopy = (yield* layer.branch.overlayXattr(layer.inode, METACOPY)) !== undefined;
  return {
    layer,
    data: metacopy ? top : undefined,
    number: top.branch.numbers.of(top.branch.numberSpace, stat.ino),
    indexName,
  };
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

/** What the indexed file was copied from is like now, if it can still be found. */
export function* originStat(inode: UnionInode): Task<Stat | undefined> {
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

/** Write the count down relative to the real one: before a name comes or goes (X2). */
export function* holdUnionNlink(inode: UnionInode): Task<void> {
  if (inode.indexName === undefined || inode.unionNlink === undefined) return;
  const real = yield* inode.real.getattr();
  const record = encodeNlink({ relativeTo: 'U', difference: inode.unionNlink - real.nlink });
  yield* inode.branch.setOverlayXattr(inode.real, NLINK, record);
}

/** Write the count down relative to the lower's: while names are linked up, which changes nothing for the union. */
export function* startUnionNlink(layer: Layer, count: number, lowerNlink: number): Task<void> {
  const record = encodeNlink({ relativeTo: 'L', difference: count - lowerNlink });
  yield* layer.branch.setOverlayXattr(layer.inode, NLINK, record);
}

/** A name has come or gone: the record says so already (X2). The last one takes the entry with it (X3). */
export function* changeUnionNlink(inode: UnionInode, difference: number): Task<void> {
  const { indexName, branch } = inode;
  if (indexName === undefined || inode.unionNlink === undefined) return;
  inode.unionNlink += difference;
  if (inode.unionNlink > 0) return;
  let entry: Inode | undefined;
  try {
    entry = yield* branch.indexDir.lookup(indexName);
    if (entry !== undefined) yield* branch.indexDir.unlink(indexName, entry);
  } catch (error) {
    // The name is gone, so this is nobody's error: an entry that no name leads to takes room only.
    if (errnoOf(error) === undefined) throw error;
  } finally {
    entry?.forget();
  }
}

/** A name was hidden by a branch further left and is still a link: the record must be told (X2 does not hold). */
export function* loseHiddenName(inode: UnionInode): Task<void> {
  yield* changeUnionNlink(inode, -1);
  if ((inode.unionNlink ?? 0) <= 0) return;
  try {
    yield* holdUnionNlink(inode);
  } catch (error) {
    // Then the count is too high after the next mount: it costs room, never a file.
    if (errnoOf(error) === undefined) throw error;
  }
}
