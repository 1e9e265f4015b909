/** getattr and setattr of a union inode: the real one's, with the union's number and link count. */
import { S_IFDIR, DT_DIR } from '../../abi/mode.ts';
import type { Stat } from '../../abi/stat.ts';
import type { Task } from '../../kernel/task.ts';
import type { SetAttr } from '../../vfs/inode-operations.ts';
import { copyUp } from './copy-up.ts';
import type { UnionInode } from './inode.ts';
import { readdir } from './readdir.ts';

export function* getattr(inode: UnionInode): Task<Stat> {
  const stat = yield* inode.real.getattr();
  return yield* asUnionStat(inode, stat);
}

/** Turn the real inode's record into the union's. */
export function* asUnionStat(inode: UnionInode, stat: Stat): Task<Stat> {
  stat.ino = inode.ino;
  // A lower file has its links still; one on a writable branch has lost them with its names.
  if (inode.orphan && !inode.branch.writable) stat.nlink = 0;
  else if (inode.unionNlink !== undefined) stat.nlink = inode.unionNlink;
  if (inode.orphan && inode.type === S_IFDIR) stat.nlink = 0;
  else if (inode.lowers !== undefined && inode.lowers.length > 0) {
    stat.nlink = 2 + (yield* subdirectoryCount(inode));
  }
  // A metacopy file is a hole of the right size: what it takes on disk is what its data takes.
  if (inode.data !== undefined) stat.blocks = (yield* inode.data.inode.getattr()).blocks;
  return stat;
}

/** find(1) trusts a directory's link count, so a merged one is counted, once. */
function* subdirectoryCount(dir: UnionInode): Task<number> {
  if (dir.subdirectories === undefined) {
    let count = 0;
    for (const entry of yield* readdir(dir)) if (entry.type === DT_DIR) count++;
    dir.subdirectories = count;
  }
  return dir.subdirectories;
}

export function* setattr(inode: UnionInode, changes: SetAttr): Task<void> {
  if (yield* isTimeFlush(inode, changes)) return;
  if (changes.size === undefined) {
    yield* copyUp(inode, 'metadata');
    yield* inode.real.setattr(changes);
  } else {
    yield* truncate(inode, changes, changes.size);
  }
}

/** Only what is left is copied up, so the host sees no change of size: the mtime is moved by hand. */
function* truncate(inode: UnionInode, changes: SetAttr, size: number): Task<void> {
  if (changes.mtime === undefined && (yield* getattr(inode)).size === size) {
    const { size: _same, ...others } = changes;
    if (Object.keys(others).length > 0) yield* setattr(inode, others);
    return;
  }
  if (yield* copyUp(inode, 'data', { mtime: 'now', ...changes })) return;
  yield* inode.real.setattr(changes);
}

/**
 * After unlink, rename and link the kernel writes back times that it has not changed. That must not
 * copy a lower file up, least of all one that was just removed.
 */
function* isTimeFlush(inode: UnionInode, changes: SetAttr): Task<boolean> {
  const { mtime } = changes;
  if (inode.branch.writable || mtime === undefined || mtime === 'now') return false;
  if (changes.mode !== undefined || changes.uid !== undefined || changes.gid !== undefined) return false;
  if (changes.size !== undefined || changes.atime !== undefined || changes.killPriv === true) return false;
  const stat = yield* inode.real.getattr();
  return stat.mtimeSec === mtime.sec && stat.mtimeNsec === mtime.nsec;
}
