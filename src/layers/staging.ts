/**
 * The staging directory of a commit, `.palimpsest-commit-ID` at the root of the base:
 *
 *   owner     who runs it, written first
 *   journal   see journal.ts
 *   new/N     what will be put into the base; after an exchange, what was there
 *   old/N     what was taken away
 *   keep/N    what is on its way from one place of the base to another
 *
 * G1. `old` and `keep` are empty until the journal is sealed, and `keep` again when all is attached.
 * G2. The journal is removed last but for the directory: so what is without one can be dropped.
 */
import { Errno } from '../abi/errno.ts';
import { isDir } from '../abi/mode.ts';
import type { Task } from '../kernel/task.ts';
import { bytesOf, textOf } from '../lib/latin1.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import { readWhole } from './compare.ts';
import { writeAll } from './journal.ts';
import { ROOT } from './stage.ts';
import type { OnProgress } from './types.ts';
import { LayerError } from './types.ts';
import { STAGING_PREFIX } from './whiteout-format.ts';

const NEW = 'new' as Name;
const OLD = 'old' as Name;
const KEEP = 'keep' as Name;
const OWNER = 'owner' as Name;
export const JOURNAL = 'journal' as Name;

export const stagingName = (id: string): Name => (STAGING_PREFIX + id) as Name;

export interface StagingDir {
  readonly dir: Inode;
  /** `new/`. */
  readonly fresh: Inode;
}

export function* createStaging(base: Inode, id: string, owner: string): Task<StagingDir> {
  const dir = yield* base.mkdir(stagingName(id), 0o700, ROOT);
  const file = yield* dir.create(OWNER, 0o600, ROOT);
  yield* writeAll(file, bytesOf(owner), 0);
  yield* dir.mkdir(OLD, 0o700, ROOT);
  yield* dir.mkdir(KEEP, 0o700, ROOT);
  const fresh = yield* dir.mkdir(NEW, 0o700, ROOT);
  return { dir, fresh };
}

export function* ownerOf(dir: Inode): Task<string> {
  const file = yield* dir.lookup(OWNER);
  if (file === undefined) return '';
  return textOf(yield* readWhole(file, (yield* file.getattr()).size));
}

/** Ids of all commits that left a staging directory. */
export function* stagingIds(base: Inode): Task<string[]> {
  const ids: string[] = [];
  for (const entry of yield* base.readdir()) {
    if (entry.name.startsWith(STAGING_PREFIX)) ids.push(entry.name.slice(STAGING_PREFIX.length));
  }
  return ids.sort();
}

/** For a staging directory that was never sealed: G1 holds, or its content is not ours to drop. */
export function* checkNothingParked(dir: Inode, id: string): Task<void> {
  for (const name of [OLD, KEEP]) {
    const parked = yield* dir.lookup(name);
    if (parked !== undefined && (yield* parked.readdir()).length > 0) {
      throw new LayerError(
        Errno.EIO,
        `${stagingName(id)} in the base has files of an unfinished commit, but no journal: nothing was touched`,
      );
    }
  }
}

/** G2. */
export function* removeStaging(base: Inode, id: string, onProgress?: OnProgress): Task<void> {
  const name = stagingName(id);
  const dir = yield* base.lookup(name);
  if (dir === undefined) return;
  for (const part of [OLD, KEEP, NEW]) yield* removeEntry(dir, part, counterOf(onProgress));
  yield* removeEntry(dir, OWNER, undefined);
  yield* removeEntry(dir, JOURNAL, undefined);
  yield* base.rmdir(name, dir);
  dir.forget();
}

/** Gives the space back, though the journal must stay. */
export function* dropOld(dir: Inode, onProgress?: OnProgress): Task<void> {
  for (const part of [OLD, NEW]) {
    const parked = yield* dir.lookup(part);
    if (parked !== undefined) yield* emptyDir(parked, counterOf(onProgress));
  }
}

type Count = ((path: string) => void) | undefined;

export function counterOf(onProgress: OnProgress | undefined): Count {
  let done = 0;
  return (path) => onProgress?.({ phase: 'clean', path, done: ++done, bytes: 0 });
}

/** Whatever it is, with all that is in it. Nothing there: nothing done. */
export function* removeEntry(dir: Inode, name: Name, count: Count): Task<void> {
  const inode = yield* dir.lookup(name);
  if (inode === undefined) return;
  if (isDir(inode.type)) {
    yield* emptyDir(inode, count);
    yield* dir.rmdir(name, inode);
  } else {
    yield* dir.unlink(name, inode);
  }
  inode.forget();
  count?.(name);
}

/** `kept`: an entry that stays. */
export function* emptyDir(dir: Inode, count: Count, kept?: Name): Task<void> {
  for (const entry of yield* dir.readdir()) {
    if (entry.name !== kept) yield* removeEntry(dir, entry.name, count);
  }
}
