/**
 * From chosen changes to staged copies and steps: what a commit will do, prepared so that doing it is
 * renames and attributes only.
 *
 * N1. A new directory is staged with all that is new in it and attached by one rename. What is
 *     renamed into it comes after.
 * N2. Names of one upper inode become names of one inode: of the base's own where it stays and has
 *     no other names, else of one staged copy.
 * N3. Metadata is changed in place only where no name of the inode is outside of the commit.
 * N4. A directory's times are the upper's, set after everything else.
 */
import { isDir } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import { assert } from '../lib/assert.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import type { DiffContext, LinkName, UpperDir } from './diff-context.ts';
import type { Attributes, Step } from './journal.ts';
import { wereOne } from './links.ts';
import { selfAndParents } from './selection.ts';
import { applyAttributes, attributesOf, stageCopy, timesOf } from './stage.ts';
import type { StagingDir } from './staging.ts';
import type { Change, OnProgress, Progress } from './types.ts';
import { isDirNode, lastName, metadataInode, parentPath, statOf } from './view.ts';
import type { ViewNode } from './view.ts';
import { isWhiteoutInode } from './whiteout-format.ts';

interface StageContext {
  readonly diff: DiffContext;
  readonly chosen: ReadonlySet<Change>;
  /** All changes are chosen. */
  readonly complete: boolean;
  readonly staging: StagingDir;
  /** New directories, by path in the view. */
  readonly stagedDirs: Map<string, Inode>;
  /** What names of an upper inode are links of, by its number. */
  readonly linkTargets: Map<number, Inode>;
  /** Paths whose inode in the base stays and is given its new attributes there. */
  readonly inPlace: Set<string>;
  readonly groupOf: Map<string, { ino: number; names: readonly LinkName[] }>;
  readonly steps: Step[];
  /** Paths in the view of directories of which an entry comes or goes. */
  readonly touched: Set<string>;
  count: number;
  readonly progress: Progress;
  readonly onProgress: OnProgress | undefined;
}

export function* stageCommit(input: {
  diff: DiffContext;
  chosen: ReadonlySet<Change>;
  staging: StagingDir;
  onProgress?: OnProgress | undefined;
}): Task<Step[]> {
  const { diff, chosen, staging, onProgress } = input;
  const ctx: StageContext = {
    diff,
    chosen,
    staging,
    onProgress,
    complete: chosen.size === diff.changes.length,
    stagedDirs: new Map(),
    linkTargets: new Map(),
    inPlace: new Set(),
    groupOf: new Map(),
    steps: [],
    touched: new Set(),
    count: 0,
    progress: { phase: 'stage', path: '', done: 0, total: chosen.size, bytes: 0 },
  };
  yield* planLinks(ctx);
  stepsOfDepartures(ctx);
  for (const change of [...chosen, ...unchangedLinks(ctx)].sort((a, b) =>
    a.path < b.path ? -1 : 1,
  )) {
    if (change.op !== 'D') yield* stageChange(ctx, change);
  }
  yield* settleStagedDirs(ctx);
  yield* stepsOfDirectories(ctx);
  return inOrder(ctx.steps);
}

/** steps.ts, P2. */
function inOrder(steps: readonly Step[]): Step[] {
  const depth = (step: Step): number => step.path.split('/').length;
  const detaches = steps.filter((s) => s.kind === 'detach').sort((a, b) => depth(b) - depth(a));
  const attaches = steps
    .filter((s) => s.kind === 'attach' || s.kind === 'exchange')
    .sort((a, b) => depth(a) - depth(b));
  return [...detaches, ...attaches, ...steps.filter((s) => s.kind === 'attributes')];
}

const nextName = (ctx: StageContext): Name => String(ctx.count++) as Name;

// -- what leaves --

function stepsOfDepartures(ctx: StageContext): void {
  /** Paths in the base that go as a whole; `false`: to come back elsewhere. */
  const goes = new Map<string, boolean>();
  for (const change of ctx.chosen) {
    const old = change.oldNode;
    if (old === undefined) continue;
    if (change.op === 'R') goes.set(old.path, change.type !== 'dir');
    else if (change.op === 'D' || change.op === 'T') goes.set(old.path, true);
  }
  for (const change of ctx.chosen) {
    if (change.op !== 'D' && change.op !== 'R') continue;
    const old = change.oldNode!;
    const parent = selfAndParents(old.path)
      .slice(1)
      .find((path) => goes.has(path));
    // It goes along with the directory that it is in.
    if (parent !== undefined && goes.get(parent) === true && goes.get(old.path) === true) continue;
    const parked = `${goes.get(old.path) === true ? 'old' : 'keep'}/${nextName(ctx)}`;
    ctx.steps.push({ kind: 'detach', path: old.path, parked });
    if (change.op === 'R' && change.type === 'dir') attachAt(ctx, change.path, parked);
  }
}

function attachAt(ctx: StageContext, path: string, staged: string): void {
  ctx.steps.push({ kind: 'attach', path, staged });
  ctx.touched.add(parentPath(path));
}

// -- links --

function* planLinks(ctx: StageContext): Task<void> {
  const chosenAt = new Map([...ctx.chosen].filter((c) => c.op !== 'D').map((c) => [c.path, c]));
  for (const [ino, names] of ctx.diff.links) {
    if (names.length < 2) continue;
    for (const name of names) ctx.groupOf.set(name.path, { ino, names });
    const anchor = yield* anchorOf(names, chosenAt);
    if (anchor === undefined) continue;
    for (const name of names) if (name.oldIno === anchor.oldIno) ctx.inPlace.add(name.path);
    if (!wereOne(names)) ctx.linkTargets.set(ino, metadataInode(anchor.oldNode!));
  }
}

/** N2: the name whose inode in the base can stay: its bytes do, and all its names are of the group. */
function* anchorOf(
  names: readonly LinkName[],
  chosenAt: ReadonlyMap<string, Change>,
): Task<LinkName | undefined> {
  for (const name of names) {
    if (name.oldNode === undefined || name.oldIno === undefined) continue;
    const same = names.filter((other) => other.oldIno === name.oldIno);
    if (same.some((other) => !keepsBytes(chosenAt.get(other.path)))) continue;
    if ((yield* statOf(name.oldNode)).nlink === same.length) return name;
  }
  return undefined;
}

const keepsBytes = (change: Change | undefined): boolean =>
  change === undefined || (change.op === 'X' && change.contentChanged !== true);

/** Unchanged names of an inode that is staged anew: they must follow it. As changes of metadata. */
function unchangedLinks(ctx: StageContext): Change[] {
  if (!ctx.complete) return [];
  const known = new Set(ctx.diff.changes.filter((c) => c.op !== 'D').map((c) => c.path));
  const following: Change[] = [];
  for (const [path, group] of ctx.groupOf) {
    if (known.has(path) || ctx.inPlace.has(path) || !group.names.some((n) => known.has(n.path)))
      continue;
    const name = group.names.find((n) => n.path === path)!;
    if (name.oldNode === undefined) continue;
    following.push({
      path,
      op: 'X',
      type: 'file',
      mode: 0,
      size: 0,
      uid: 0,
      gid: 0,
      newNode: name.node,
      oldNode: name.oldNode,
    });
  }
  return following;
}

// -- what comes --

function* stageChange(ctx: StageContext, change: Change): Task<void> {
  const node = change.newNode!;
  note(ctx, change.path);
  if (change.op === 'R' && change.type === 'dir') return;
  if (change.op === 'X' && (yield* staysInPlace(ctx, change))) {
    if (!isDirNode(node)) yield* stepOfMetadata(ctx, change);
    return;
  }
  const parent = ctx.stagedDirs.get(parentPath(change.path));
  if (parent !== undefined) {
    yield* stageObject(ctx, parent, lastName(change.path), node);
    return;
  }
  const name = nextName(ctx);
  const staged = yield* stageObject(ctx, ctx.staging.fresh, name, node);
  yield* stepOfArrival(ctx, change, { name: `new/${name}`, inode: staged });
}

function* staysInPlace(ctx: StageContext, change: Change): Task<boolean> {
  if (change.type === 'dir') return true;
  if (ctx.inPlace.has(change.path)) return true;
  if (ctx.groupOf.has(change.path)) return false;
  return (yield* statOf(change.oldNode!)).nlink === 1;
}

function* stepOfMetadata(ctx: StageContext, change: Change): Task<void> {
  const old = change.oldNode!;
  ctx.steps.push({
    kind: 'attributes',
    path: change.path,
    oldPath: old.path,
    to: yield* attributesOf(metadataInode(change.newNode!)),
    from: yield* attributesOf(metadataInode(old)),
  });
}

function* stageObject(ctx: StageContext, dir: Inode, name: Name, node: ViewNode): Task<Inode> {
  const group = ctx.groupOf.get(node.path);
  const target = group === undefined ? undefined : ctx.linkTargets.get(group.ino);
  if (target !== undefined) {
    yield* dir.link(name, target);
    return (yield* dir.lookup(name))!;
  }
  const onBytes = (bytes: number): void => {
    ctx.progress.bytes += bytes;
  };
  const staged = yield* stageCopy(dir, name, node, onBytes);
  if (group !== undefined) ctx.linkTargets.set(group.ino, staged);
  if (isDir(staged.type)) ctx.stagedDirs.set(node.path, staged);
  return staged;
}

function* stepOfArrival(
  ctx: StageContext,
  change: Change,
  staged: { name: string; inode: Inode },
): Task<void> {
  const { path, op } = change;
  const replaces = op === 'M' || op === 'T' || op === 'X' || (yield* isOccupied(ctx, path));
  if (!replaces) return attachAt(ctx, path, staged.name);
  const { ino } = yield* staged.inode.getattr();
  ctx.steps.push({ kind: 'exchange', path, staged: staged.name, ino });
  ctx.touched.add(parentPath(path));
}

/** A whiteout lies there in the base itself: nothing to anybody, but in the way. */
function* isOccupied(ctx: StageContext, path: string): Task<boolean> {
  const dir = ctx.diff.dirs.get(parentPath(path))?.counterpart;
  if (dir === undefined) return false;
  const there = yield* metadataInode(dir).lookup(lastName(path));
  return there !== undefined && (yield* isWhiteoutInode(ctx.diff.layers[1]!, there, true));
}

function note(ctx: StageContext, path: string): void {
  ctx.progress.path = path;
  ctx.progress.done++;
  ctx.onProgress?.(ctx.progress);
}

// -- directories --

/** Their times, which staging their children has changed. */
function* settleStagedDirs(ctx: StageContext): Task<void> {
  for (const [path, staged] of [...ctx.stagedDirs].reverse()) {
    const stat = yield* statOf(ctx.diff.dirs.get(path)!.node);
    yield* applyAttributes(staged, timesOf(stat));
  }
}

function* stepsOfDirectories(ctx: StageContext): Task<void> {
  touchParentsOfDepartures(ctx);
  const chosenAt = new Map([...ctx.chosen].filter((c) => c.op !== 'D').map((c) => [c.path, c]));
  for (const [path, dir] of ctx.diff.dirs) {
    if (path === '') continue;
    if (ctx.stagedDirs.has(path)) {
      const times = timesOf(yield* statOf(dir.node));
      if (ctx.touched.has(path)) ctx.steps.push({ kind: 'attributes', path, to: times });
    } else if (dir.counterpart !== undefined) {
      yield* stepOfDirectory(ctx, dir, chosenAt.get(path));
    }
  }
}

function touchParentsOfDepartures(ctx: StageContext): void {
  const viewPaths = new Map<string, string>();
  for (const [path, dir] of ctx.diff.dirs) {
    if (dir.counterpart !== undefined) viewPaths.set(dir.counterpart.path, path);
  }
  for (const step of ctx.steps) {
    const parent = step.kind === 'detach' ? viewPaths.get(parentPath(step.path)) : undefined;
    if (parent !== undefined) ctx.touched.add(parent);
  }
}

function* stepOfDirectory(
  ctx: StageContext,
  dir: UpperDir,
  change: Change | undefined,
): Task<void> {
  const { path } = dir.node;
  const old = dir.counterpart!;
  const isWhole = change !== undefined && change.timesOnly !== true;
  const before = yield* statOf(old);
  const after = yield* statOf(dir.node);
  const wanted = ctx.complete || change !== undefined;
  if (!ctx.touched.has(path) && !isWhole && !(wanted && mtimeDiffers(before, after))) return;
  const from: Attributes = isWhole ? yield* attributesOf(metadataInode(old)) : timesOf(before);
  const to: Attributes = isWhole ? yield* attributesOf(metadataInode(dir.node)) : timesOf(after);
  assert(isDirNode(old), 'a directory stands for a directory');
  ctx.steps.push({
    kind: 'attributes',
    path,
    oldPath: old.path,
    from,
    ...(wanted ? { to } : {}),
  });
}

const mtimeDiffers = (a: Stat, b: Stat): boolean =>
  a.mtimeSec !== b.mtimeSec || a.mtimeNsec !== b.mtimeNsec;
