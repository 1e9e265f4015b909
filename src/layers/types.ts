/**
 * What the commands over layers take and give: diff, commit, discard of a workspace.
 *
 * Words: the *upper* is the branch that took all writes; the *lowers* are what it lies over, topmost
 * first; the *base* is the real directory that a commit changes (for now: the only lower). A *path*
 * is relative to the root, without leading or trailing slash, one char per byte.
 *
 * T1. Everything here works over vfs inodes; nothing here knows a path of the host.
 * T2. The path of a deletion (`D`) is the path in the base, every other path is the one in the view.
 *     They differ only beneath renamed directories; `from` then has the path in the base.
 */
import type { Inode, Name } from '../vfs/inode-operations.ts';
import type { ViewNode } from './view.ts';

/**
 * A added, M content changed, D deleted, R renamed (content may have changed too: `contentChanged`),
 * T another type under the same name, X only metadata changed (mode, owner, xattrs, links; times if asked).
 */
export type ChangeOp = 'A' | 'M' | 'D' | 'R' | 'T' | 'X';

export type ObjectType = 'file' | 'dir' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket';

export interface Change {
  path: string;
  op: ChangeOp;
  /** Of the new object; of the old one for D. */
  type: ObjectType;
  /** Set where it differs from `type` (op T). */
  oldType?: ObjectType;
  /** Permission bits, 0o7777. Of the old object for D. */
  mode: number;
  /** Set wherever there was an old object. */
  oldMode?: number;
  /** Bytes; of a symlink the length of its target; 0 for the others. Of the old object for D. */
  size: number;
  oldSize?: number;
  uid: number;
  gid: number;
  oldUid?: number;
  oldGid?: number;
  /** Path in the base, where it is not `path`: R, and whatever changed beneath a renamed directory. */
  from?: string;
  /** R and M: whether the bytes differ (a symlink's target, a device's number too). */
  contentChanged?: boolean;
  /** Names of the xattrs that were set, changed or taken away. */
  xattrs?: string[];
  /** Another path with the same inode, which comes first in the order of paths. */
  linkTo?: string;
  /** sha256, hex; regular files only, with `digest: true`. */
  digest?: string;
  oldDigest?: string;
  /** Only the time of modification differs (X, with `mtime: true`). */
  timesOnly?: boolean;
  /** Where in the upper a deletion is said, or, by an opaque directory, would be. Never printed. */
  upperPath?: string;
  /** An opaque directory says the deletion. Never printed. */
  hidden?: boolean;
  /** Where to read the contents: for patches and commits, never printed. */
  readonly newNode?: ViewNode;
  readonly oldNode?: ViewNode;
}

export interface Progress {
  phase: 'scan' | 'compare' | 'check' | 'stage' | 'apply' | 'clean';
  path: string;
  /** Objects dealt with so far in this phase, and of how many, where that is known. */
  done: number;
  total?: number;
  /** Bytes read or written so far in this phase. */
  bytes: number;
}

export type OnProgress = (progress: Progress) => void;

/** Which changes: by default all. */
export interface Selection {
  /** Only these paths and what lies beneath them. */
  paths?: readonly string[];
  /** Globs over paths, bytes as chars; `dir/**`, `*.o` (without a slash: any last component). */
  include?: readonly string[];
  exclude?: readonly string[];
}

export interface LayerSet {
  upper: Inode;
  /** Topmost first. */
  lowers: readonly Inode[];
  /** The upper's work directory (it has `work/` and `index/`), needed to see all hard links. */
  work?: Inode;
  /** An entry of the upper's root that is not part of the tree: a work directory that lies there. */
  hidden?: Name;
  /** Whose xattrs say opaque, redirect, …: by default both are understood. */
  xattrPrefix?: 'trusted.' | 'user.';
  /**
   * Read `.wh.NAME` and `.wh..wh..opq` of the upper as whiteouts. Default false: our union never writes
   * them, and what is called so there is somebody's file. Of lowers they are read but in the lowest.
   */
  dotWhiteouts?: boolean;
}

export interface DiffOptions extends LayerSet, Selection {
  /** Deleted and renamed directories as every entry beneath them too, not as one line. Default false. */
  expand?: boolean;
  /** A time of modification alone is a change (X). Default false. */
  mtime?: boolean;
  digest?: boolean;
  onProgress?: OnProgress;
}

export type ConflictMode = 'fail' | 'ours' | 'theirs';

export interface Conflict {
  path: string;
  /** `changed`: differs from what the workspace saw; `created`, `deleted`: since then; `mount`: not on the base's filesystem. */
  kind: 'changed' | 'created' | 'deleted' | 'mount';
  /** A sentence for people. */
  reason: string;
}

/** Since when the workspace looks at its base: whole seconds and nanoseconds. */
export interface Baseline {
  createdSec: number;
  createdNsec: number;
}

export interface CommitOptions extends LayerSet, Selection {
  /** Root of the real directory, writable. */
  base: Inode;
  /** Names this commit, unique among all: letters, digits, `-`. */
  id: string;
  /** Without it only entries with a recorded base state are checked for drift. */
  baseline?: Baseline;
  /** What to do where the base has changed beneath: default `fail`. */
  conflict?: ConflictMode;
  /** Free text for the journal, given back by recovery to `ownerAlive`: who runs this commit. */
  owner?: string;
  onProgress?: OnProgress;
}

export interface CommitResult {
  /** What was (dry run: would be) committed. */
  changes: Change[];
  /** What was left out because the base won (`theirs`), or why nothing was done (`fail`). */
  conflicts: Conflict[];
  /** False: dry run, nothing to do, or conflicts. */
  applied: boolean;
  bytes: number;
}

export interface RecoverOptions {
  base: Inode;
  /** Given: what a finished commit left of its own upper is cleaned too. */
  upper?: Inode;
  work?: Inode;
  hidden?: Name;
  xattrPrefix?: 'trusted.' | 'user.';
  dotWhiteouts?: boolean;
  /** Is the process that wrote this `owner` still at it? Then EBUSY. Default: never. */
  ownerAlive?: (owner: string) => boolean;
  onProgress?: OnProgress;
}

export interface Recovery {
  id: string;
  /**
   * `removed`: it had not begun, the staging was taken away; `completed`: rolled forward;
   * `undone`: rolled back; `pending`: the base is done, its upper (another one) must still be cleaned.
   */
  outcome: 'removed' | 'completed' | 'undone' | 'pending';
}

export interface DiscardOptions extends LayerSet, Selection {
  dryRun?: boolean;
  onProgress?: OnProgress;
}

export interface DiscardResult {
  /** The changes that are (would be) gone. */
  changes: Change[];
  applied: boolean;
}

/** A refusal with a sentence for people; `errno` for programs. */
export class LayerError extends Error {
  override readonly name = 'LayerError';
  readonly errno: number;
  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

/**
 * The functions, each in the file of its name:
 *   diff.ts     diffLayer(options: DiffOptions): Task<Change[]>            sorted by path
 *   commit.ts   planCommit(options: CommitOptions): Task<CommitPlan>       reads only; plan.changes, plan.conflicts
 *               applyCommit(plan: CommitPlan): Task<CommitResult>
 *   recover.ts  recoverCommit(options: RecoverOptions): Task<Recovery[]>   call before diff, commit, discard, mount
 *   discard.ts  discard(options: DiscardOptions): Task<DiscardResult>
 *   render.ts   renderNameStatus | renderNameOnly | renderDocker (changes, { nul?: boolean }): string
 *               renderJson(changes): string; renderSummary(changes): string
 *   patch.ts    patchOf(change: Change, options?: { binary?: boolean }): Task<string>
 *               renderStat(changes): Task<string>
 * What the renderers give has one char per byte: write it with encoding 'latin1'.
 * `renderDocker`, `renderStat` and `patchOf` want changes made with `expand: true`.
 */
