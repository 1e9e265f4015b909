/**
 * Taking out of an upper what its base has now, so that a second commit finds nothing.
 *
 * An entry is *settled* if nothing uncommitted is in it: it was committed, or it equals the base. A
 * directory is *transparent* if the base shows through it under its own path. Settled entries of
 * transparent directories are removed; others stay, equal to the base, and no diff shows them.
 *
 * U1. Every prune can be repeated.
 * U2. What the view shows is the same before and after.
 */
import { Errno } from '../abi/errno.ts';
import { isDir } from '../abi/mode.ts';
import { BASE, ORIGIN, REDIRECT, encodeBase } from '../fs/union/format.ts';
import { errnoOf } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import { bytesOf } from '../lib/latin1.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import type { DiffContext, UpperDir } from './diff-context.ts';
import type { Prune } from './journal.ts';
import { exposedBy, staleOrigins } from './origins.ts';
import { counterOf, emptyDir, removeEntry } from './staging.ts';
import { placeOf } from './steps.ts';
import type { Change, OnProgress } from './types.ts';
import { joinPath, parentPath } from './view.ts';
import { overlayXattr } from './whiteout-format.ts';
import type { Layer, LayerEntry } from './whiteout-format.ts';

interface PruneContext {
  readonly diff: DiffContext;
  /** By path in the upper. */
  readonly open: Set<string>;
  readonly committed: Set<string>;
  readonly renamed: Set<string>;
  readonly prunes: Prune[];
}

/** `settled`: what was committed, or was given up for the base's. */
export function* prunesOf(diff: DiffContext, settled: ReadonlySet<Change>): Task<Prune[]> {
  if (settled.size === diff.changes.length) return [{ kind: 'prune-all' }];
  const ctx: PruneContext = {
    diff,
    open: new Set(),
    committed: new Set(),
    renamed: new Set(),
    prunes: [],
  };
  for (const change of diff.changes) {
    const path =
      change.upperPath !== undefined && change.op === 'D' ? change.upperPath : change.path;
    (settled.has(change) ? ctx.committed : ctx.open).add(path);
    // What an opaque directory deletes is as open as the directory.
    if (!settled.has(change) && change.hidden === true) ctx.open.add(parentPath(path));
    if (change.op !== 'R') continue;
    // The whiteout at the old place goes when the new place does.
    const cover = change.type === 'dir' ? diff.leftAt.get(change.oldNode!.path) : change.upperPath;
    if (cover !== undefined && !settled.has(change)) ctx.open.add(cover);
    if (settled.has(change) && change.type === 'dir') ctx.renamed.add(change.path);
  }
  pruneDir(ctx, diff.dirs.get('')!, true);
  pruneIndex(ctx);
  const staying = diff.changes.filter((change) => !settled.has(change));
  const exposed = yield* exposedBy(diff, (path) => ctx.open.has(path));
  for (const path of yield* staleOrigins(diff, exposed, staying))
    ctx.prunes.push({ kind: 'prune-origin', path });
  return ctx.prunes;
}

const isSettled = (ctx: PruneContext, path: string, entry: LayerEntry): boolean => {
  if (ctx.open.has(path)) return false;
  if (entry.inode === undefined || !isDir(entry.inode.type)) return true;
  const dir = ctx.diff.dirs.get(path)!;
  return dir.entries.every((child) => isSettled(ctx, joinPath(path, child.name), child));
};

function pruneDir(ctx: PruneContext, dir: UpperDir, transparent: boolean): void {
  for (const entry of dir.entries) {
    const path = joinPath(dir.node.path, entry.name);
    const isSub = entry.inode !== undefined && isDir(entry.inode.type);
    if (transparent && isSettled(ctx, path, entry)) {
      ctx.prunes.push({ kind: 'prune', path });
    } else if (isSub) {
      const sub = ctx.diff.dirs.get(path)!;
      if (ctx.renamed.has(path)) {
        ctx.prunes.push({
          kind: 'prune-redirect',
          path,
          redirect: transparent ? null : `/${path}`,
        });
      } else {
        pruneRedirect(ctx, sub, transparent);
      }
      pruneDir(
        ctx,
        sub,
        transparent && !sub.flags.opaque && (!sub.redirected || ctx.renamed.has(path)),
      );
    } else if (ctx.committed.has(path) && entry.inode !== undefined) {
      ctx.prunes.push({ kind: 'prune-baseline', path });
    }
  }
}

/** A directory that goes on in one whose own path was changed by this commit. */
function pruneRedirect(ctx: PruneContext, sub: UpperDir, transparent: boolean): void {
  const from = sub.merge?.path;
  if (from === undefined || sub.flags.redirect === undefined) return;
  const moved = newBasePath(ctx, from);
  if (moved === from) return;
  const isOwn = moved === sub.node.path && transparent;
  ctx.prunes.push({
    kind: 'prune-redirect',
    path: sub.node.path,
    redirect: isOwn ? null : `/${moved}`,
  });
}

/** Where the commit has put what was at this path of the base. */
function newBasePath(ctx: PruneContext, from: string): string {
  for (let prefix = from; prefix !== ''; prefix = parentPath(prefix)) {
    const to = ctx.diff.moved.get(prefix);
    if (to !== undefined && ctx.renamed.has(to)) return to + from.slice(prefix.length);
  }
  return from;
}

/** An index entry would go on showing the old inode under names that the upper no longer has. */
function pruneIndex(ctx: PruneContext): void {
  for (const [ino, names] of ctx.diff.links) {
    if (names.every((name) => !ctx.open.has(name.path)))
      ctx.prunes.push({ kind: 'prune-index', ino });
  }
}

// -- doing it --

export interface PruneTarget {
  readonly upper: Layer;
  readonly work: Inode | undefined;
  readonly base: Inode;
}

export function* runPrunes(
  target: PruneTarget,
  prunes: readonly Prune[],
  onProgress?: OnProgress,
): Task<void> {
  const count = counterOf(onProgress);
  for (const prune of prunes) {
    switch (prune.kind) {
      case 'prune-all':
        yield* emptyUpper(target, count);
        break;
      case 'prune':
        yield* pruneEntry(target, prune.path, count);
        break;
      case 'prune-redirect':
        yield* setRedirect(target, prune.path, prune.redirect);
        break;
      case 'prune-baseline':
        yield* renewBaseline(target, prune.path);
        break;
      case 'prune-origin':
        yield* dropOrigin(target.upper, prune.path);
        break;
      case 'prune-index':
        yield* removeIndexed(target.work, prune.ino);
        break;
    }
  }
}

/** The upper, its index, and what an unclean end left in `work/`. */
export function* emptyUpper(target: PruneTarget, count: ReturnType<typeof counterOf>): Task<void> {
  yield* emptyDir(target.upper.root, count, target.upper.hidden);
  for (const name of ['index', 'work'] as Name[]) {
    const dir = yield* target.work?.lookup(name) ?? nothing();
    if (dir !== undefined) yield* emptyDir(dir, undefined);
  }
}

// oxlint-disable-next-line require-yield
function* nothing(): Task<Inode | undefined> {
  return undefined;
}

/** The entry and a `.wh.` that says the same. */
function* pruneEntry(
  target: PruneTarget,
  path: string,
  count: ReturnType<typeof counterOf>,
): Task<void> {
  const place = yield* placeOf(target.upper.root, path);
  if (place === undefined) return;
  if (target.upper.dotWhiteouts) {
    const dotted = `.wh.${place.name}` as Name;
    if (dotted.length <= 255) yield* removeEntry(place.dir, dotted, undefined);
  }
  yield* removeEntry(place.dir, place.name, count);
}

function* setRedirect(target: PruneTarget, path: string, redirect: string | null): Task<void> {
  const inode = (yield* placeOf(target.upper.root, path))?.inode;
  if (inode === undefined) return;
  for (const prefix of target.upper.prefixes) {
    if (
      (yield* overlayXattr({ ...target.upper, prefixes: [prefix] }, inode, REDIRECT)) === undefined
    )
      continue;
    if (redirect === null) yield* inode.removexattr!(prefix + REDIRECT);
    else yield* inode.setxattr!(prefix + REDIRECT, bytesOf(redirect), 0);
  }
}

/** See origins.ts. What it was copied from no longer says anything about drift either. */
export function* dropOrigin(upper: Layer, path: string): Task<void> {
  const inode = (yield* placeOf(upper.root, path))?.inode;
  if (inode === undefined) return;
  for (const prefix of upper.prefixes) {
    for (const name of [ORIGIN, BASE]) {
      const there = yield* overlayXattr({ ...upper, prefixes: [prefix] }, inode, name);
      if (there !== undefined) yield* inode.removexattr!(prefix + name);
    }
  }
}

/** U2: the copy stays, and has seen the base as it is now. */
function* renewBaseline(target: PruneTarget, path: string): Task<void> {
  const copy = (yield* placeOf(target.upper.root, path))?.inode;
  const based = (yield* placeOf(target.base, path))?.inode;
  if (copy?.setxattr === undefined || based === undefined) return;
  const value = encodeBase(yield* based.getattr());
  for (const prefix of target.upper.prefixes) {
    try {
      yield* copy.setxattr(prefix + BASE, value, 0);
      return;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== Errno.EOPNOTSUPP && errno !== Errno.EPERM) throw error;
    }
  }
}

export function* removeIndexed(work: Inode | undefined, ino: number): Task<void> {
  const index = yield* work?.lookup('index' as Name) ?? nothing();
  if (index === undefined) return;
  for (const entry of yield* index.readdir()) {
    if (entry.ino !== ino) continue;
    const inode = yield* index.lookup(entry.name);
    if (inode !== undefined && !isDir(inode.type)) yield* removeEntry(index, entry.name, undefined);
  }
}
