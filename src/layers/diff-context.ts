/** The record that the passes of a diff share, and how one change is written down. */
import {
  PERMISSION_BITS,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import { metadataDiffers } from './compare.ts';
import type { Difference } from './compare.ts';
import type { Selects } from './selection.ts';
import type { Change, ChangeOp, DiffOptions, ObjectType, Progress } from './types.ts';
import { statOf } from './view.ts';
import type { ViewNode } from './view.ts';
import type { DirFlags, Layer, LayerEntry } from './whiteout-format.ts';

/** A directory of the upper, as the first pass found it. */
export interface UpperDir {
  readonly node: ViewNode;
  readonly entries: readonly LayerEntry[];
  readonly flags: DirFlags;
  /** The directory beneath that it continues, by name or by redirect; undefined if opaque or new. */
  readonly merge: ViewNode | undefined;
  /** It is a renamed one. */
  redirected: boolean;
  /** The directory of the base that stands for it: what it continues or, if opaque, hides. */
  counterpart: ViewNode | undefined;
}

/** A name of an upper inode that has several. */
export interface LinkName {
  readonly path: string;
  readonly node: ViewNode;
  readonly oldNode: ViewNode | undefined;
  /** Inode number beneath, if there was something of the same type. */
  readonly oldIno: number | undefined;
  /** The upper has it in its index alone. */
  readonly indexed?: boolean;
}

export interface DiffContext {
  readonly options: DiffOptions;
  readonly layers: readonly Layer[];
  readonly oldRoot: ViewNode | undefined;
  readonly selects: Selects;
  /** By path in the view. */
  readonly dirs: Map<string, UpperDir>;
  /** Directories that were renamed: path in the base to path in the view. */
  readonly moved: Map<string, string>;
  /** Of renamed directories: path in the base to the path in the upper of what covers its old place. */
  readonly leftAt: Map<string, string>;
  /** By inode number in the upper. */
  readonly links: Map<number, LinkName[]>;
  /** Inode numbers of all in the base that the upper has something over, changed or not. */
  readonly coveredInos: Set<number>;
  changes: Change[];
  readonly progress: Progress;
}

const TYPES = new Map<number, ObjectType>([
  [S_IFREG, 'file'],
  [S_IFDIR, 'dir'],
  [S_IFLNK, 'symlink'],
  [S_IFCHR, 'char'],
  [S_IFBLK, 'block'],
  [S_IFIFO, 'fifo'],
]);

export const objectTypeOf = (mode: number): ObjectType => TYPES.get(mode & S_IFMT) ?? 'socket';

const sizeOf = (stat: Stat): number => ((stat.mode & S_IFMT) === S_IFDIR ? 0 : stat.size);

/** What a change says besides the two objects. */
export interface ChangeDetail {
  difference?: Difference;
  from?: string;
}

/** `newNode` is undefined for D, `oldNode` for A. */
export function* makeChange(
  op: ChangeOp,
  newNode: ViewNode | undefined,
  oldNode: ViewNode | undefined,
  detail: ChangeDetail = {},
): Task<Change> {
  const node = newNode ?? oldNode!;
  const stat = detail.difference?.newStat ?? (yield* statOf(node));
  const type = objectTypeOf(stat.mode);
  const change: Change = {
    path: node.path,
    op,
    type,
    mode: stat.mode & PERMISSION_BITS,
    size: sizeOf(stat),
    uid: stat.uid,
    gid: stat.gid,
    ...(newNode === undefined ? {} : { newNode }),
    ...(oldNode === undefined ? {} : { oldNode }),
  };
  if (oldNode !== undefined) {
    const before =
      newNode === undefined ? stat : (detail.difference?.oldStat ?? (yield* statOf(oldNode)));
    describeOld(change, before);
  }
  const from =
    detail.from ?? (oldNode !== undefined && oldNode.path !== node.path ? oldNode.path : undefined);
  if (from !== undefined) change.from = from;
  if (detail.difference !== undefined) describeDifference(change, detail.difference);
  return change;
}

function describeOld(change: Change, before: Stat): void {
  const oldType = objectTypeOf(before.mode);
  if (oldType !== change.type) change.oldType = oldType;
  change.oldMode = before.mode & PERMISSION_BITS;
  change.oldSize = sizeOf(before);
  change.oldUid = before.uid;
  change.oldGid = before.gid;
}

function describeDifference(change: Change, difference: Difference): void {
  change.contentChanged = difference.content;
  if (difference.xattrs.length > 0) change.xattrs = difference.xattrs;
  if (change.op === 'X' && !metadataDiffers(difference) && difference.mtime)
    change.timesOnly = true;
}

/** The letter of an object that was there before under the same name, or undefined: no change. */
export function opOf(difference: Difference, mtimeCounts: boolean): 'M' | 'X' | undefined {
  if (difference.content) return 'M';
  if (metadataDiffers(difference)) return 'X';
  return mtimeCounts && difference.mtime ? 'X' : undefined;
}

export function tick(ctx: DiffContext, phase: Progress['phase'], path: string): void {
  const { progress, options } = ctx;
  if (progress.phase !== phase) {
    progress.phase = phase;
    progress.done = 0;
    progress.bytes = 0;
  }
  progress.path = path;
  progress.done++;
  options.onProgress?.(progress);
}

export const byPath = (a: Change, b: Change): number => {
  if (a.path !== b.path) return a.path < b.path ? -1 : 1;
  // A directory that went away for another one of the same name comes first.
  return Number(b.op === 'D') - Number(a.op === 'D');
};
