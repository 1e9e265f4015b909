/**
 * Discard: an upper, or some paths of it, forgotten, so that the base shows again.
 *
 * As a whole it is emptied, its work directory too. By paths, the entries and whiteouts of those are
 * taken away, and what cannot be taken away by itself is refused with the name of what must go along:
 *
 * K1. A renamed directory comes back with both ends or not at all.
 * K2. Nothing that was not named is lost: a directory goes only if all that is new in it was named.
 * K3. What lies beneath a directory that was replaced by a new one comes back only with all of it.
 */
import { Errno } from '../abi/errno.ts';
import { isDir } from '../abi/mode.ts';
import { errnoOf } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import { pruneTarget } from './commit.ts';
import type { DiffContext, UpperDir } from './diff-context.ts';
import { diffAll, isChosen } from './diff.ts';
import { exposedBy, staleOrigins } from './origins.ts';
import { dropOrigin, emptyUpper, removeIndexed } from './prune.ts';
import { quotePath } from './render.ts';
import { selectsOf } from './selection.ts';
import { applyAttributes, attributesOf } from './stage.ts';
import { counterOf, removeEntry } from './staging.ts';
import { placeOf } from './steps.ts';
import type { Change, DiscardOptions, DiscardResult } from './types.ts';
import { LayerError } from './types.ts';
import { metadataInode, parentPath } from './view.ts';

export function* discard(options: DiscardOptions): Task<DiscardResult> {
  const { paths: _paths, include: _include, exclude: _exclude, ...whole } = options;
  const diff = yield* diffAll({ ...whole, mtime: true });
  const selects = selectsOf(options);
  const chosen = new Set(diff.changes.filter((change) => isChosen(change, selects)));
  const changes = [...chosen].filter((change) => change.timesOnly !== true);
  const everything = chosen.size === diff.changes.length && selects('');
  if (!everything) checkSeparable(diff, chosen);
  if (options.dryRun === true) return { changes, applied: false };
  const target = pruneTarget({ ...options, base: options.lowers[0] ?? options.upper });
  if (everything) yield* emptyUpper(target, counterOf(options.onProgress));
  else yield* discardSome({ diff, chosen, options });
  yield* options.upper.fs.syncfs();
  return { changes, applied: everything || chosen.size > 0 };
}

// -- what can be taken by itself --

function checkSeparable(diff: DiffContext, chosen: ReadonlySet<Change>): void {
  for (const change of chosen) {
    const missing = neededWith(diff, chosen, change);
    if (missing === undefined) continue;
    const what = quotePath(change.path);
    throw new LayerError(
      Errno.EINVAL,
      `${what} cannot be discarded without ${quotePath(missing.path)}: ${missing.why}`,
    );
  }
}

interface Missing {
  path: string;
  why: string;
}

const upperPathOf = (change: Change): string =>
  change.op === 'D' && change.upperPath !== undefined ? change.upperPath : change.path;

function neededWith(
  diff: DiffContext,
  chosen: ReadonlySet<Change>,
  change: Change,
): Missing | undefined {
  return (
    missingBeneath(diff, chosen, change) ??
    missingAbove(diff, chosen, change) ??
    missingEnd(diff, chosen, change) ??
    missingName(diff, chosen, change)
  );
}

const isNewDir = (change: Change): boolean =>
  change.type === 'dir' && (change.op === 'A' || change.op === 'T' || change.op === 'R');

/** K2. */
function missingBeneath(
  diff: DiffContext,
  chosen: ReadonlySet<Change>,
  change: Change,
): Missing | undefined {
  if (!isNewDir(change)) return undefined;
  const left = leftBeneath(diff, chosen, change.path);
  return left === undefined ? undefined : { path: left.path, why: 'it is in that directory' };
}

/** A change in this directory of the upper that is to stay. */
function leftBeneath(
  diff: DiffContext,
  chosen: ReadonlySet<Change>,
  path: string,
): Change | undefined {
  return diff.changes.find(
    (other) =>
      !chosen.has(other) && other.timesOnly !== true && upperPathOf(other).startsWith(`${path}/`),
  );
}

/** K3: the nearest directory above that hides the base, unless all of it goes. */
function missingAbove(
  diff: DiffContext,
  chosen: ReadonlySet<Change>,
  change: Change,
): Missing | undefined {
  if (change.op === 'A') return undefined;
  const dir = hidingDir(diff, upperPathOf(change));
  if (dir === undefined) return undefined;
  const { path } = dir.node;
  const left = leftBeneath(diff, chosen, path);
  return left === undefined ? undefined : { path, why: 'that directory was replaced by a new one' };
}

function hidingDir(diff: DiffContext, path: string): UpperDir | undefined {
  for (let parent = parentPath(path); parent !== ''; parent = parentPath(parent)) {
    const dir = diff.dirs.get(parent);
    if (dir !== undefined && dir.merge === undefined && dir.counterpart !== undefined) return dir;
  }
  return undefined;
}

/** K1, from either side. */
function missingEnd(
  diff: DiffContext,
  chosen: ReadonlySet<Change>,
  change: Change,
): Missing | undefined {
  const old = change.oldNode;
  if (change.op === 'R' && change.type === 'dir') {
    const cover = diff.leftAt.get(old!.path);
    const covering = diff.changes.find((other) =>
      cover === undefined ? isAbove(other, old!.path) : other.op !== 'D' && other.path === cover,
    );
    if (covering !== undefined && !chosen.has(covering)) {
      return { path: covering.path, why: 'it took the place of what was renamed' };
    }
  }
  if (change.op === 'R' && change.type !== 'dir' && change.hidden === true) {
    const above = diff.changes.find((other) => isAbove(other, old!.path));
    if (above !== undefined && !chosen.has(above)) {
      return { path: above.path, why: 'it was renamed out of that directory, which is gone' };
    }
  }
  for (const [from, to] of diff.moved) {
    const renamed = diff.changes.find((other) => other.op === 'R' && other.path === to);
    if (renamed === undefined || chosen.has(renamed)) continue;
    if (change.op === 'D' && change.type === 'dir' && from.startsWith(`${change.path}/`)) {
      return { path: to, why: 'it was renamed out of that directory' };
    }
    if (change.op !== 'D' && diff.leftAt.get(from) === change.path) {
      return { path: to, why: 'it was renamed from there' };
    }
  }
  return undefined;
}

const isAbove = (change: Change, path: string): boolean =>
  (change.op === 'D' || change.op === 'T') && path.startsWith(`${change.path}/`);

/** Names that the upper has in its index alone cannot be told apart from the others. */
function missingName(
  diff: DiffContext,
  chosen: ReadonlySet<Change>,
  change: Change,
): Missing | undefined {
  if (change.op === 'D') return undefined;
  for (const names of diff.links.values()) {
    if (!names.some((name) => name.path === change.path) || !names.some((name) => name.indexed))
      continue;
    const other = diff.changes.find(
      (c) => !chosen.has(c) && c.op !== 'D' && names.some((name) => name.path === c.path),
    );
    if (other !== undefined) return { path: other.path, why: 'both are names of one file' };
  }
  return undefined;
}

// -- doing it --

interface DiscardContext {
  readonly diff: DiffContext;
  readonly chosen: ReadonlySet<Change>;
  readonly options: DiscardOptions;
}

function* discardSome(ctx: DiscardContext): Task<void> {
  const { diff, chosen } = ctx;
  const removals = new Set<string>();
  for (const change of chosen) {
    if (change.op === 'D') {
      if (change.hidden !== true) removals.add(upperPathOf(change));
    } else if (change.op !== 'X' || change.type !== 'dir') {
      removals.add(change.path);
      const cover =
        change.op === 'R' ? (change.upperPath ?? diff.leftAt.get(change.oldNode!.path)) : undefined;
      if (cover !== undefined) removals.add(cover);
    }
    const hiding = change.op === 'A' ? undefined : hidingDir(diff, upperPathOf(change));
    if (hiding !== undefined) removals.add(hiding.node.path);
  }
  const inos = linkedInos(ctx);
  const goes = (path: string): boolean => removals.has(path) || hasAncestor(removals, path);
  const exposed = yield* exposedBy(diff, (path) => !goes(path));
  const staying = diff.changes.filter((change) => !goes(change.path));
  const stale = yield* staleOrigins(diff, exposed, staying);
  // New ends before old ones: cut off between, nothing is there twice.
  for (const path of inOrder(diff, removals)) yield* removeFromUpper(ctx, path);
  for (const ino of inos) yield* removeIndexed(ctx.options.work, ino);
  for (const path of stale) yield* dropOrigin(diff.layers[0]!, path);
  for (const change of chosen) {
    if (change.op === 'X' && change.type === 'dir') yield* restoreMetadata(ctx, change);
  }
}

function linkedInos(ctx: DiscardContext): Set<number> {
  const paths = new Set([...ctx.chosen].map((change) => change.path));
  const inos = new Set<number>();
  for (const [ino, names] of ctx.diff.links)
    if (names.some((name) => paths.has(name.path))) inos.add(ino);
  return inos;
}

/** Objects first, whiteouts after them; nothing beneath a directory that goes. */
function inOrder(diff: DiffContext, removals: ReadonlySet<string>): string[] {
  const kept = [...removals].filter((path) => !hasAncestor(removals, path));
  const whiteouts = new Set<string>();
  for (const dir of diff.dirs.values()) {
    for (const entry of dir.entries) {
      if (entry.inode === undefined)
        whiteouts.add(dir.node.path === '' ? entry.name : `${dir.node.path}/${entry.name}`);
    }
  }
  return kept.sort(
    (a, b) => Number(whiteouts.has(a)) - Number(whiteouts.has(b)) || (a < b ? -1 : 1),
  );
}

function hasAncestor(removals: ReadonlySet<string>, path: string): boolean {
  for (let parent = parentPath(path); parent !== ''; parent = parentPath(parent)) {
    if (removals.has(parent)) return true;
  }
  return false;
}

function* removeFromUpper(ctx: DiscardContext, path: string): Task<void> {
  const { upper, work, onProgress } = ctx.options;
  const place = yield* placeOf(upper, path);
  if (place === undefined) return;
  const count = counterOf(onProgress);
  if (ctx.diff.layers[0]!.dotWhiteouts) {
    const dotted = `.wh.${place.name}` as Name;
    if (dotted.length <= 255) yield* removeEntry(place.dir, dotted, undefined);
  }
  if (place.inode === undefined) return;
  const trash: Inode | undefined =
    work === undefined ? undefined : yield* work.lookup('work' as Name);
  if (!isDir(place.inode.type) || trash === undefined)
    return yield* removeEntry(place.dir, place.name, count);
  // Out of sight at once; what a crash leaves there the next mount removes.
  const parked = `discarded-${(yield* place.inode.getattr()).ino}` as Name;
  yield* removeEntry(trash, parked, undefined);
  try {
    yield* place.dir.rename(place.name, place.inode, trash, parked, undefined, 0);
  } catch (error) {
    // Opened as two filesystems: then it goes piece by piece where it is.
    if (errnoOf(error) !== Errno.EXDEV) throw error;
    return yield* removeEntry(place.dir, place.name, count);
  }
  yield* removeEntry(trash, parked, count);
}

function* restoreMetadata(ctx: DiscardContext, change: Change): Task<void> {
  const inode = (yield* placeOf(ctx.options.upper, change.path))?.inode;
  if (inode === undefined) return;
  yield* applyAttributes(inode, yield* attributesOf(metadataInode(change.oldNode!)));
}
