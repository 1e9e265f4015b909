/**
 * Commit: what an upper changes is put into its base, all or nothing.
 *
 * Order (each before the next): check everything; stage copies of all that is new in a directory of
 * the base's filesystem; seal a journal of the steps; do the steps, all of them renames and
 * attributes; take out of the upper what the base has; remove the staging.
 *
 * C1. Until the seal the base is as it was; from the mark `committed` it is as the view was. Between, a
 *     crash is rolled forward by `recoverCommit`, an error is rolled back here.
 * C2. Nothing that was replaced or deleted is removed before `committed`.
 * C3. Metadata of the root is not committed: it is the mount's.
 * Not here: keeping others from the base meanwhile. Two commits at once must be kept apart by the
 * caller; a change beneath between plan and seal is refused, one after it stops the steps.
 */
import { Errno } from '../abi/errno.ts';
import { S_IFMT, isDir } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import { chooseChanges } from './choose.ts';
import { stageCommit } from './commit-stage.ts';
import type { DiffContext } from './diff-context.ts';
import { diffAll } from './diff.ts';
import { findDrift } from './drift.ts';
import { JOURNAL_FORMAT, identityOf, mark, readJournal, writeJournal } from './journal.ts';
import type { Journal, Prune, Step } from './journal.ts';
import { prunesOf, runPrunes } from './prune.ts';
import { quotePath } from './render.ts';
import { selectsOf } from './selection.ts';
import { ROOT } from './stage.ts';
import { JOURNAL, createStaging, removeStaging, stagingIds, stagingName } from './staging.ts';
import { backward, forward, placeOf } from './steps.ts';
import type { Staging } from './steps.ts';
import type { Change, CommitOptions, CommitResult, Conflict } from './types.ts';
import { LayerError } from './types.ts';
import { statOf } from './view.ts';
import { layerOf } from './whiteout-format.ts';

/** What a commit would do. Reads only. */
export interface CommitPlan {
  readonly options: CommitOptions;
  /** What will be committed, for people: without what changes times alone. */
  readonly changes: readonly Change[];
  readonly conflicts: readonly Conflict[];
  /** True: `applyCommit` will refuse. */
  readonly refused: boolean;
  /** To be copied. */
  readonly bytes: number;
  readonly diff: DiffContext;
  readonly chosen: ReadonlySet<Change>;
  /** Given up for what the base has: leaves the upper, does not come into the base. */
  readonly givenUp: ReadonlySet<Change>;
  /** What the base looked like, for the check before the seal. */
  readonly seen: ReadonlyMap<Change, string>;
}

export function* planCommit(options: CommitOptions): Task<CommitPlan> {
  yield* checkOptions(options);
  const { paths: _paths, include: _include, exclude: _exclude, ...whole } = options;
  const diff = yield* diffAll({ ...whole, mtime: true });
  const wanted = yield* chooseChanges(diff, selectsOf(options));
  const found = yield* findDrift(diff, [...wanted], options.base, options.baseline);
  const mode = options.conflict ?? 'fail';
  const conflicts = [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  const givenUp = mode === 'theirs' ? withBeneath(wanted, found) : new Set<Change>();
  const chosen = new Set([...wanted].filter((change) => !givenUp.has(change)));
  const refused =
    mode === 'fail'
      ? conflicts.length > 0
      : mode === 'ours' && conflicts.some((conflict) => conflict.kind === 'mount');
  return {
    options,
    diff,
    chosen,
    givenUp,
    conflicts,
    refused,
    changes: [...chosen]
      .filter((c) => c.timesOnly !== true)
      .sort((a, b) => (a.path < b.path ? -1 : 1)),
    bytes: yield* bytesOf(chosen),
    seen: yield* snapshotOf(chosen),
  };
}

function* checkOptions(options: CommitOptions): Task<void> {
  const { base, lowers, id } = options;
  if (lowers.length !== 1) {
    throw new LayerError(Errno.EINVAL, 'a commit needs a workspace over exactly one directory');
  }
  if (!/^[A-Za-z0-9-]{1,64}$/.test(id))
    throw new LayerError(Errno.EINVAL, `not a name for a commit: ${id}`);
  const a = yield* base.getattr();
  const b = yield* lowers[0]!.getattr();
  if (a.ino !== b.ino)
    throw new LayerError(Errno.EINVAL, 'the base is not what the workspace lies over');
  for (const other of yield* stagingIds(base)) {
    if (yield* isUnfinished(options, other)) {
      throw new LayerError(
        Errno.EBUSY,
        `an unfinished commit is in the base (${stagingName(other)})`,
      );
    }
  }
}

/** Another upper's commit that is through with the base does not stand in the way. */
function* isUnfinished(options: CommitOptions, id: string): Task<boolean> {
  const dir = yield* options.base.lookup(stagingName(id));
  const file = dir === undefined ? undefined : yield* dir.lookup(JOURNAL);
  const journal = file === undefined ? undefined : yield* readJournal(file);
  if (journal === undefined || !journal.phases.has('committed')) return true;
  return journal.header.upper.ino === (yield* options.upper.getattr()).ino;
}

/** With a directory that is given up goes all that the upper has in it. */
function withBeneath(
  wanted: ReadonlySet<Change>,
  found: ReadonlyMap<Change, Conflict>,
): Set<Change> {
  const dropped = new Set(found.keys());
  const dirs = [...dropped].filter((c) => c.op !== 'D' && c.op !== 'X' && c.type === 'dir');
  for (const change of wanted) {
    const path = change.upperPath ?? change.path;
    if (dirs.some((dir) => path.startsWith(`${dir.path}/`))) dropped.add(change);
  }
  return dropped;
}

function* bytesOf(chosen: ReadonlySet<Change>): Task<number> {
  let bytes = 0;
  const counted = new Set<number>();
  for (const change of chosen) {
    if (change.op === 'D' || change.op === 'X' || change.type !== 'file') continue;
    const stat = yield* statOf(change.newNode!);
    if (counted.has(stat.ino)) continue;
    counted.add(stat.ino);
    bytes += change.newNode!.pieces.length > 1 ? stat.size : Math.min(stat.size, stat.blocks * 512);
  }
  return bytes;
}

/** Of directories only which one it is: their times change with every sibling. */
function fingerprint(stat: Stat): string {
  const same = `${stat.ino} ${stat.mode & S_IFMT}`;
  if (isDir(stat.mode)) return same;
  return `${same} ${stat.size} ${stat.mtimeSec}.${stat.mtimeNsec} ${stat.mode} ${stat.uid} ${stat.gid}`;
}

function* snapshotOf(chosen: ReadonlySet<Change>): Task<Map<Change, string>> {
  const seen = new Map<Change, string>();
  for (const change of chosen) {
    if (change.oldNode !== undefined) seen.set(change, fingerprint(yield* statOf(change.oldNode)));
  }
  return seen;
}

// -- apply --

/** Errors: LayerError where it refuses; what the filesystem says, with the base as it was. */
export function* applyCommit(plan: CommitPlan): Task<CommitResult> {
  const result = {
    changes: [...plan.changes],
    conflicts: [...plan.conflicts],
    bytes: plan.bytes,
  };
  if (plan.refused) {
    if (plan.options.conflict !== 'ours') return { ...result, applied: false };
    const [mount] = plan.conflicts.filter((conflict) => conflict.kind === 'mount');
    throw new LayerError(
      Errno.EXDEV,
      `${quotePath(mount!.path)} ${mount!.reason}: nothing was committed`,
    );
  }
  if (plan.chosen.size === 0) {
    yield* pruneOnly(plan);
    return { ...result, applied: plan.givenUp.size > 0 };
  }
  yield* checkSpace(plan);
  const staging = yield* prepare(plan);
  try {
    yield* forward(staging);
  } catch (error) {
    yield* rollBack(plan, staging, error);
    throw error;
  }
  yield* finish(staging, plan.options);
  return { ...result, applied: true };
}

/** Nothing to put into the base: copies that equal it, and what was given up, leave the upper. */
function* pruneOnly(plan: CommitPlan): Task<void> {
  const prunes = yield* prunesOf(plan.diff, plan.givenUp);
  yield* runPrunes(pruneTarget(plan.options), prunes, plan.options.onProgress);
}

/** Beside the data: names, inodes, the journal. A guess on the safe side. */
const BYTES_PER_CHANGE = 4096;

function* checkSpace(plan: CommitPlan): Task<void> {
  const space = yield* plan.options.base.fs.statfs();
  const free = space.bavail * space.frsize;
  const need = plan.bytes + plan.chosen.size * BYTES_PER_CHANGE;
  if (need > free) {
    throw new LayerError(
      Errno.ENOSPC,
      `the base needs ${need} bytes for this commit and has ${free}`,
    );
  }
  // Filesystems that make inodes as they go say 0 of 0.
  if (space.files > 0 && space.ffree < plan.chosen.size) {
    throw new LayerError(Errno.ENOSPC, `the base has only ${space.ffree} inodes left`);
  }
}

/** Up to the seal. Failing leaves the base as it was, without a trace. */
function* prepare(plan: CommitPlan): Task<Staging> {
  const { base, id, onProgress } = plan.options;
  try {
    const dirs = yield* createStaging(base, id, plan.options.owner ?? '');
    const steps = yield* stageCommit({
      diff: plan.diff,
      chosen: plan.chosen,
      staging: dirs,
      onProgress,
    });
    const journalFile = yield* dirs.dir.create(JOURNAL, 0o600, ROOT);
    const prunes = yield* prunesOf(plan.diff, new Set([...plan.chosen, ...plan.givenUp]));
    yield* checkUnchanged(plan);
    yield* base.fs.syncfs();
    const journal = yield* seal(plan, { journalFile, steps, prunes });
    return { base, dir: dirs.dir, journalFile, journal, onProgress };
  } catch (error) {
    yield* removeStaging(base, id);
    throw error;
  }
}

function* seal(
  plan: CommitPlan,
  content: { journalFile: Parameters<typeof writeJournal>[0]; steps: Step[]; prunes: Prune[] },
): Task<Journal> {
  const { upper, id, owner } = plan.options;
  const header = {
    kind: 'header',
    format: JOURNAL_FORMAT,
    id,
    owner: owner ?? '',
    upper: identityOf(yield* upper.getattr()),
  } as const;
  return yield* writeJournal(content.journalFile, {
    header,
    steps: content.steps,
    prunes: content.prunes,
  });
}

function* checkUnchanged(plan: CommitPlan): Task<void> {
  for (const [change, seen] of plan.seen) {
    const { path } = change.oldNode!;
    const now = (yield* placeOf(plan.options.base, path))?.inode;
    if (now === undefined || fingerprint(yield* now.getattr()) !== seen) {
      throw new LayerError(
        Errno.EAGAIN,
        `${quotePath(path)} changed in the base during the commit: nothing was committed`,
      );
    }
  }
}

/** Failure of this leaves the journal for `recoverCommit`, and says so. */
function* rollBack(plan: CommitPlan, staging: Staging, cause: unknown): Task<void> {
  try {
    yield* backward(staging);
    yield* removeStaging(staging.base, plan.options.id, plan.options.onProgress);
  } catch (error) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const then = error instanceof Error ? error.message : String(error);
    throw new LayerError(
      Errno.EIO,
      `the commit failed (${why}) and could not be rolled back (${then}); ` +
        `everything is kept in ${stagingName(plan.options.id)} of the base, and recovery will try again`,
    );
  }
}

type FinishOptions = Pick<
  CommitOptions,
  'upper' | 'work' | 'hidden' | 'base' | 'xattrPrefix' | 'dotWhiteouts' | 'onProgress'
>;

export const pruneTarget = (options: FinishOptions): Parameters<typeof runPrunes>[0] => ({
  upper: {
    ...layerOf(options.upper, options.xattrPrefix, options.dotWhiteouts ?? false),
    hidden: options.hidden,
  },
  work: options.work,
  base: options.base,
});

/** After `committed`: there is only forward. */
export function* finish(staging: Staging, options: FinishOptions): Task<void> {
  const { journal, journalFile } = staging;
  if (!journal.phases.has('pruned')) {
    yield* runPrunes(pruneTarget(options), journal.prunes, options.onProgress);
    // The upper may lie on another filesystem than the mark.
    yield* options.upper.fs.syncfs();
    yield* mark(journal, journalFile, 'pruned');
  }
  yield* removeStaging(staging.base, journal.header.id, options.onProgress);
}
