/**
 * Base drift: what changed in the base since the workspace looked at it.
 *
 * A copied-up inode has what the base looked like in `overlay.palimpsest.base`:
 * `ino mtimeSec.mtimeNsec ctimeSec.ctimeNsec size typeoctal`. Where that is missing (whiteouts, new
 * names, uppers that the kernel made) the workspace's time of creation decides: what has a later
 * ctime is drift.
 *
 * F1. A directory's times say nothing: any sibling's commit changes them. What counts is that it is the
 *     same inode, and, beneath a deleted one, each entry for itself.
 * F2. What the workspace shows unchanged is never a conflict: no change, no check.
 */
import { BASE } from '../fs/union/format.ts';
import { S_IFMT, isDir } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import { textOf } from '../lib/latin1.ts';
import type { Inode } from '../vfs/inode-operations.ts';
import type { DiffContext } from './diff-context.ts';
import type { Baseline, Change, Conflict } from './types.ts';
import { isDirNode, metadataInode, parentPath, statOf, walkBeneath } from './view.ts';
import type { ViewNode } from './view.ts';
import { overlayXattr } from './whiteout-format.ts';

export interface BaseRecord {
  ino: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  size: number;
  /** S_IFMT bits. */
  type: number;
}

/** Undefined: none, or not of this format. */
export function parseBaseRecord(text: string): BaseRecord | undefined {
  const match = /^(\d+) (-?\d+)\.(\d+) (-?\d+)\.(\d+) (\d+) ([0-7]+)$/.exec(text);
  if (match === null) return undefined;
  const [ino, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec, size] = match.slice(1, 7).map(Number);
  return {
    ino: ino!,
    mtimeSec: mtimeSec!,
    mtimeNsec: mtimeNsec!,
    ctimeSec: ctimeSec!,
    ctimeNsec: ctimeNsec!,
    size: size!,
    type: Number.parseInt(match[7]!, 8) & S_IFMT,
  };
}

function isRecord(record: BaseRecord, stat: Stat): boolean {
  const same = record.ino === stat.ino && record.type === (stat.mode & S_IFMT);
  if (!same || isDir(record.type)) return same;
  return (
    record.size === stat.size &&
    record.mtimeSec === stat.mtimeSec &&
    record.mtimeNsec === stat.mtimeNsec &&
    record.ctimeSec === stat.ctimeSec &&
    record.ctimeNsec === stat.ctimeNsec
  );
}

interface DriftContext {
  readonly diff: DiffContext;
  readonly baseline: Baseline | undefined;
  /** Device of the base's root: nothing can be moved from or to another one. */
  readonly device: string;
  /** Inode numbers of all that the upper speaks of beneath. */
  readonly oldInos: Set<number>;
}

const deviceOf = (stat: Stat): string => `${stat.devMajor}:${stat.devMinor}`;

export function* findDrift(
  diff: DiffContext,
  changes: readonly Change[],
  base: Inode,
  baseline: Baseline | undefined,
): Task<Map<Change, Conflict>> {
  const oldInos = new Set(diff.coveredInos);
  for (const { oldNode } of diff.changes)
    if (oldNode !== undefined) oldInos.add((yield* statOf(oldNode)).ino);
  const device = deviceOf(yield* base.getattr());
  const ctx = { diff, baseline, device, oldInos };
  const conflicts = new Map<Change, Conflict>();
  for (const change of changes) {
    const conflict = yield* conflictOf(ctx, change);
    if (conflict !== undefined) conflicts.set(change, conflict);
  }
  return conflicts;
}

function* conflictOf(ctx: DriftContext, change: Change): Task<Conflict | undefined> {
  const { oldNode } = change;
  const { path } = change;
  if (oldNode === undefined) return yield* conflictOfAddition(ctx, change);
  const stat = yield* statOf(oldNode);
  const inPlace = change.op === 'X' && isDirNode(oldNode);
  if (!inPlace && deviceOf(stat) !== ctx.device) {
    return { path, kind: 'mount', reason: 'lies on another filesystem than the root of the base' };
  }
  const record = yield* recordOf(ctx, change);
  if (record !== undefined) {
    if (isRecord(record, stat)) return yield* conflictBeneath(ctx, change);
    // The copy is of another file of the base, which was renamed over this one.
    if (!ctx.oldInos.has(record.ino) || record.ino === stat.ino) {
      return {
        path,
        kind: 'changed',
        reason: 'the base was changed since it was copied into the workspace',
      };
    }
  }
  if (!isDirNode(oldNode) && isLater(ctx, stat)) {
    return { path, kind: 'changed', reason: 'the base was changed since the workspace was made' };
  }
  if (isDirNode(oldNode) && change.op === 'D' && isBornLater(ctx, stat)) {
    return { path, kind: 'created', reason: 'was made in the base since the workspace was made' };
  }
  return yield* conflictBeneath(ctx, change);
}

function* recordOf(ctx: DriftContext, change: Change): Task<BaseRecord | undefined> {
  const piece = change.newNode?.pieces[0];
  if (piece === undefined || piece.layer !== 0) return undefined;
  const value = yield* overlayXattr(ctx.diff.layers[0]!, piece.inode, BASE);
  return value === undefined ? undefined : parseBaseRecord(textOf(value));
}

/** A copy of something that the base no longer has, and that no other change accounts for. */
function* conflictOfAddition(ctx: DriftContext, change: Change): Task<Conflict | undefined> {
  const { path } = change;
  const parent = ctx.diff.dirs.get(parentPath(path))?.counterpart;
  if (parent !== undefined && deviceOf(yield* statOf(parent)) !== ctx.device) {
    return { path, kind: 'mount', reason: 'lies on another filesystem than the root of the base' };
  }
  const record = yield* recordOf(ctx, change);
  if (record === undefined || ctx.oldInos.has(record.ino)) return undefined;
  return {
    path,
    kind: 'deleted',
    reason: 'was taken out of the base since it was copied into the workspace',
  };
}

/** Where a whole directory goes away: all that is in it. */
function* conflictBeneath(ctx: DriftContext, change: Change): Task<Conflict | undefined> {
  const { oldNode } = change;
  const goes = change.op === 'D' || change.op === 'T';
  if (oldNode === undefined || !goes || !isDirNode(oldNode)) return undefined;
  let conflict: Conflict | undefined;
  const visit = function* (node: ViewNode): Task<void> {
    if (conflict !== undefined) return;
    const stat = yield* metadataInode(node).getattr();
    const { path } = node;
    if (deviceOf(stat) !== ctx.device) {
      conflict = { path, kind: 'mount', reason: 'another filesystem is mounted here' };
    } else if (isDirNode(node) ? isBornLater(ctx, stat) : isLater(ctx, stat)) {
      conflict = {
        path,
        kind: 'created',
        reason: 'is newer in the base than the workspace, which deletes it',
      };
    }
  };
  yield* walkBeneath(oldNode, visit, (node) => ctx.diff.moved.has(node.path));
  return conflict;
}

function isLater(ctx: DriftContext, stat: Stat): boolean {
  return ctx.baseline !== undefined && isAfter(stat.ctimeSec, stat.ctimeNsec, ctx.baseline);
}

/** Of directories: the time of birth where the filesystem knows it. */
function isBornLater(ctx: DriftContext, stat: Stat): boolean {
  if (ctx.baseline === undefined) return false;
  if (stat.btimeSec === 0 && stat.btimeNsec === 0) return isLater(ctx, stat);
  return isAfter(stat.btimeSec, stat.btimeNsec, ctx.baseline);
}

const isAfter = (sec: number, nsec: number, baseline: Baseline): boolean =>
  sec > baseline.createdSec || (sec === baseline.createdSec && nsec > baseline.createdNsec);
