/**
 * What an upper changes of the layers beneath, by content.
 *
 * Two passes over the upper, never over the whole base: the first finds the directories and what
 * each continues beneath (so that renames are known), the second compares entry by entry.
 *
 * D1. A copy that equals what is beneath, in content and metadata, is no change.
 * D2. A directory in which only children changed is not listed. Nor is the root ever: its metadata
 *     is the mount's, not the tree's.
 * D3. A deleted directory is one D, unless `expand`; a deletion is found by whiteouts and by opaque
 *     directories alike, at any depth.
 * D4. A renamed directory is one R, unless `expand`; beneath it, only what differs is listed.
 * D5. The result is sorted by the bytes of the path.
 */
import { Errno } from '../abi/errno.ts';
import { S_IFREG, isDir } from '../abi/mode.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import { compareNodes, digestOf } from './compare.ts';
import { byPath, makeChange, opOf, tick } from './diff-context.ts';
import type { DiffContext, UpperDir } from './diff-context.ts';
import { addIndexedNames, describeLinks } from './links.ts';
import { pairRenamedFiles } from './renames.ts';
import { selectsOf, selfAndParents } from './selection.ts';
import type { Selects } from './selection.ts';
import type { Change, DiffOptions } from './types.ts';
import { LayerError } from './types.ts';
import {
  childrenOf,
  isDirNode,
  joinPath,
  layersOf,
  lookupChild,
  lookupPath,
  rootOf,
  walkBeneath,
} from './view.ts';
import type { ViewNode } from './view.ts';
import { dirFlags, entriesOfLayer, isMetacopy, redirectOfFile } from './whiteout-format.ts';
import type { DirFlags, LayerEntry } from './whiteout-format.ts';

export function* diffLayer(options: DiffOptions): Task<Change[]> {
  const ctx = yield* diffAll(options);
  const { selects } = ctx;
  const chosen = ctx.changes.filter((c) => isChosen(c, selects));
  if (options.digest === true) for (const change of chosen) yield* addDigests(ctx, change);
  return chosen;
}

/** Both ends of a rename choose it. */
export const isChosen = (change: Change, selects: Selects): boolean =>
  selects(change.path) || (change.from !== undefined && selects(change.from));

/** All changes, sorted, with what the passes found out: for commit and discard. */
export function* diffAll(options: DiffOptions): Task<DiffContext> {
  const ctx = contextOf(options);
  yield* scanDir(ctx, nodeOf(ctx, '', options.upper), ctx.oldRoot);
  forgetMovesInPlace(ctx);
  yield* diffDir(ctx, ctx.dirs.get('')!, ctx.oldRoot);
  yield* pairRenamedFiles(ctx);
  yield* addIndexedNames(ctx);
  yield* describeLinks(ctx);
  ctx.changes.sort(byPath);
  return ctx;
}

function contextOf(options: DiffOptions): DiffContext {
  const layers = layersOf(options);
  return {
    options,
    layers,
    oldRoot: rootOf(layers, 1),
    selects: selectsOf(options),
    dirs: new Map(),
    moved: new Map(),
    leftAt: new Map(),
    links: new Map(),
    coveredInos: new Set(),
    changes: [],
    progress: { phase: 'scan', path: '', done: 0, bytes: 0 },
  };
}

/** A node of the view whose topmost piece is the upper's. */
function nodeOf(ctx: DiffContext, path: string, inode: Inode, beneath?: ViewNode): ViewNode {
  const pieces = [{ layer: 0, inode }, ...(beneath?.pieces ?? [])];
  return { layers: ctx.layers, path, type: inode.type, pieces };
}

// -- first pass --

function* scanDir(ctx: DiffContext, bare: ViewNode, sameName: ViewNode | undefined): Task<void> {
  const { inode } = bare.pieces[0]!;
  const layer = ctx.layers[0]!;
  const flags = yield* dirFlags(layer, inode);
  const merge = yield* mergeOf(ctx, bare.path, sameName, flags);
  const redirected =
    merge !== undefined && flags.redirect !== undefined && merge.path !== sameName?.path;
  const node = nodeOf(ctx, bare.path, inode, merge);
  const entries = yield* entriesOfLayer(layer, inode, flags);
  ctx.dirs.set(bare.path, { node, entries, flags, merge, redirected, counterpart: undefined });
  if (redirected) ctx.moved.set(merge.path, bare.path);
  tick(ctx, 'scan', bare.path);
  for (const entry of entries) {
    if (entry.inode === undefined || !isDir(entry.inode.type)) continue;
    const beneath =
      merge === undefined || entry.whiteout ? undefined : yield* lookupChild(merge, entry.name);
    yield* scanDir(ctx, nodeOf(ctx, joinPath(bare.path, entry.name), entry.inode), beneath);
  }
}

/**
 * A redirect to the own path is a rename only if a directory above was renamed away: else the base has
 * it where it is, and it was merely taken into a directory made anew and back.
 */
function forgetMovesInPlace(ctx: DiffContext): void {
  for (const [from, to] of ctx.moved) {
    if (from !== to) continue;
    const above = selfAndParents(from)
      .slice(1)
      .map((path) => ({ path, to: ctx.moved.get(path) }));
    if (above.some((dir) => dir.to !== undefined && dir.to !== dir.path)) continue;
    ctx.moved.delete(from);
    ctx.dirs.get(to)!.redirected = false;
  }
}

/** Which directory beneath goes on in this one. */
function* mergeOf(
  ctx: DiffContext,
  path: string,
  sameName: ViewNode | undefined,
  flags: DirFlags,
): Task<ViewNode | undefined> {
  if (flags.opaque) return undefined;
  let merge = sameName;
  if (flags.redirect !== undefined) merge = yield* redirectTarget(ctx, path, flags.redirect);
  return merge !== undefined && isDirNode(merge) ? merge : undefined;
}

function* redirectTarget(
  ctx: DiffContext,
  path: string,
  redirect: string,
): Task<ViewNode | undefined> {
  if (redirect.startsWith('/')) {
    return ctx.oldRoot === undefined ? undefined : yield* lookupPath(ctx.oldRoot, redirect);
  }
  if (redirect.includes('/') || redirect === '..' || redirect === '.') {
    throw new LayerError(Errno.EIO, `${path}: its redirect is not a name: the upper is damaged`);
  }
  const parent = ctx.dirs.get(path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '');
  return parent?.merge === undefined
    ? undefined
    : yield* lookupChild(parent.merge, redirect as Name);
}

// -- second pass --

/**
 * `counterpart`: the directory of the base that stands for this one, if any. It is what `dir`
 * merges with, or, if `dir` is opaque, what it hides.
 */
function* diffDir(ctx: DiffContext, dir: UpperDir, counterpart: ViewNode | undefined): Task<void> {
  dir.counterpart = counterpart;
  const names = new Set<string>();
  for (const entry of dir.entries) {
    names.add(entry.name);
    const path = joinPath(dir.node.path, entry.name);
    const old =
      counterpart === undefined ? undefined : yield* stillThere(ctx, counterpart, entry.name, path);
    tick(ctx, 'compare', path);
    if (entry.inode === undefined) {
      if (old !== undefined) yield* recordDeletion(ctx, old, { upperPath: path });
    } else if (isDir(entry.inode.type)) {
      yield* diffSubdirectory(ctx, path, old);
    } else {
      yield* diffNonDirectory(ctx, dir, entry, old);
    }
  }
  if (counterpart === undefined) return;
  if (dir.merge === undefined) yield* recordHidden(ctx, dir, counterpart, names);
  else if (ctx.options.expand === true && dir.merge.path !== dir.node.path) {
    yield* recordCarried(ctx, dir, names);
  }
}

/** What the base has under that name, unless it was renamed away. */
function* stillThere(
  ctx: DiffContext,
  dir: ViewNode,
  name: Name,
  coveredBy: string,
): Task<ViewNode | undefined> {
  const old = yield* lookupChild(dir, name);
  if (old === undefined || !ctx.moved.has(old.path)) return old;
  ctx.leftAt.set(old.path, coveredBy);
  return undefined;
}

function* diffSubdirectory(ctx: DiffContext, path: string, old: ViewNode | undefined): Task<void> {
  const dir = ctx.dirs.get(path)!;
  if (dir.redirected) {
    if (old !== undefined) yield* recordDeletion(ctx, old, { upperPath: path, hidden: true });
    const difference = yield* compareNodes(dir.merge!, dir.node, { skipContent: true });
    ctx.changes.push(
      yield* makeChange('R', dir.node, dir.merge, { difference, from: dir.merge!.path }),
    );
    return yield* diffDir(ctx, dir, dir.merge);
  }
  if (old === undefined || !isDirNode(old)) {
    if (old !== undefined) yield* recordBeneath(ctx, old);
    ctx.changes.push(yield* makeChange(old === undefined ? 'A' : 'T', dir.node, old));
    return yield* diffDir(ctx, dir, undefined);
  }
  const difference = yield* compareNodes(old, dir.node, { skipContent: true });
  yield* recordIfChanged(ctx, dir.node, old, difference);
  yield* diffDir(ctx, dir, old);
}

function* diffNonDirectory(
  ctx: DiffContext,
  dir: UpperDir,
  entry: LayerEntry,
  old: ViewNode | undefined,
): Task<void> {
  const node = yield* fileNode(ctx, dir, entry);
  const stat = yield* entry.inode!.getattr();
  const sameType = old !== undefined && old.type === node.type;
  if (stat.nlink > 1) yield* noteLink(ctx, stat.ino, node, old);
  if (old === undefined) {
    ctx.changes.push(yield* makeChange('A', node, undefined));
  } else if (!sameType) {
    if (isDirNode(old)) yield* recordBeneath(ctx, old);
    ctx.changes.push(yield* makeChange('T', node, old));
  } else {
    const skipContent = !ctx.selects(node.path) && !ctx.selects(old.path);
    const onBytes = (bytes: number): void => {
      ctx.progress.bytes += bytes;
    };
    const difference = yield* compareNodes(old, node, { skipContent, onBytes });
    yield* recordIfChanged(ctx, node, old, difference);
  }
}

function* noteLink(
  ctx: DiffContext,
  ino: number,
  node: ViewNode,
  old: ViewNode | undefined,
): Task<void> {
  const names = ctx.links.get(ino) ?? [];
  const oldNode = old !== undefined && old.type === node.type ? old : undefined;
  const oldIno =
    oldNode === undefined ? undefined : (yield* oldNode.pieces[0]!.inode.getattr()).ino;
  names.push({ path: node.path, node, oldNode, oldIno });
  ctx.links.set(ino, names);
}

/** With the piece that has the data, where the upper has only the metadata. */
function* fileNode(ctx: DiffContext, dir: UpperDir, entry: LayerEntry): Task<ViewNode> {
  const inode = entry.inode!;
  const path = joinPath(dir.node.path, entry.name);
  if (inode.type !== S_IFREG || !(yield* isMetacopy(ctx.layers[0]!, inode)))
    return nodeOf(ctx, path, inode);
  const redirect = yield* redirectOfFile(ctx.layers[0]!, inode);
  let beneath: ViewNode | undefined;
  if (redirect?.startsWith('/') === true) {
    beneath = ctx.oldRoot === undefined ? undefined : yield* lookupPath(ctx.oldRoot, redirect);
  } else if (dir.merge !== undefined) {
    beneath = yield* lookupChild(dir.merge, (redirect ?? entry.name) as Name);
  }
  if (beneath === undefined || beneath.type !== S_IFREG) {
    throw new LayerError(
      Errno.EIO,
      `${path}: only its metadata is in the upper, and its data is gone from the base`,
    );
  }
  return { ...nodeOf(ctx, path, inode, beneath), dataPath: beneath.path };
}

function* recordIfChanged(
  ctx: DiffContext,
  node: ViewNode,
  old: ViewNode,
  difference: Parameters<typeof opOf>[0],
): Task<void> {
  ctx.coveredInos.add(difference.oldStat.ino);
  const op = opOf(difference, ctx.options.mtime === true);
  const carried = ctx.options.expand === true && old.path !== node.path;
  if (op === undefined && !carried) return;
  ctx.changes.push(yield* makeChange(carried ? 'R' : op!, node, old, { difference }));
}

function* recordDeletion(
  ctx: DiffContext,
  old: ViewNode,
  said: { upperPath: string; hidden?: boolean },
): Task<void> {
  ctx.changes.push({ ...(yield* makeChange('D', undefined, old)), ...said });
  yield* recordBeneath(ctx, old);
}

/** With `expand`: all beneath a directory that is gone, but for what was renamed out of it. */
function* recordBeneath(ctx: DiffContext, old: ViewNode): Task<void> {
  if (ctx.options.expand !== true || !isDirNode(old)) return;
  const record = function* (node: ViewNode): Task<void> {
    ctx.changes.push(yield* makeChange('D', undefined, node));
  };
  yield* walkBeneath(old, record, (node) => ctx.moved.has(node.path));
}

/** What an opaque directory hides. */
function* recordHidden(
  ctx: DiffContext,
  dir: UpperDir,
  counterpart: ViewNode,
  names: Set<string>,
): Task<void> {
  for (const old of yield* childrenOf(counterpart)) {
    const name = old.path.slice(old.path.lastIndexOf('/') + 1);
    if (names.has(name) || ctx.moved.has(old.path)) continue;
    const upperPath = joinPath(dir.node.path, name);
    yield* recordDeletion(ctx, old, { upperPath, hidden: true });
  }
}

/** With `expand`: what came along unchanged with a renamed directory. */
function* recordCarried(ctx: DiffContext, dir: UpperDir, names: Set<string>): Task<void> {
  const base = dir.merge!;
  const record = function* (old: ViewNode): Task<void> {
    const path = dir.node.path + old.path.slice(base.path.length);
    ctx.changes.push(yield* makeChange('R', { ...old, path }, old));
  };
  for (const old of yield* childrenOf(base)) {
    const name = old.path.slice(old.path.lastIndexOf('/') + 1);
    if (names.has(name) || ctx.moved.has(old.path)) continue;
    yield* record(old);
    if (isDirNode(old)) yield* walkBeneath(old, record, (node) => ctx.moved.has(node.path));
  }
}

function* addDigests(ctx: DiffContext, change: Change): Task<void> {
  const onBytes = (bytes: number): void => {
    ctx.progress.bytes += bytes;
  };
  const { newNode, oldNode } = change;
  if (newNode?.type === S_IFREG) change.digest = yield* digestOf(newNode, onBytes);
  if (oldNode?.type === S_IFREG) change.oldDigest = yield* digestOf(oldNode, onBytes);
}
