/**
 * The steps of a commit, done and undone. Each can be repeated: it looks whether it was done before.
 *
 * P1. All detaches come before all attaches and exchanges, these before all attributes; a mark lies
 *     between. So what a step finds tells unambiguously whether it was done:
 *       detach    done if the parked name exists (nothing leaves it before the mark);
 *       attach    done if the staged name does not exist (nothing else takes it);
 *       exchange  done if the base's name is the new inode.
 * P2. Detaches go by old paths, deepest first; attaches by new paths, shallowest first.
 * P3. Undoing goes the other way round, likewise with a mark, and ends with the attributes at the old
 *     paths: renames change the times of directories.
 */
import { Errno } from '../abi/errno.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../abi/fcntl.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import type { Journal, Phase, Step } from './journal.ts';
import { mark } from './journal.ts';
import { quotePath } from './render.ts';
import { applyAttributes } from './stage.ts';
import type { OnProgress } from './types.ts';
import { LayerError } from './types.ts';
import { componentsOf, lastName, parentPath } from './view.ts';

export interface Staging {
  readonly base: Inode;
  readonly dir: Inode;
  readonly journalFile: Inode;
  readonly journal: Journal;
  readonly onProgress?: OnProgress | undefined;
}

/** A name in a directory, and what is under it. */
export interface Place {
  readonly dir: Inode;
  readonly name: Name;
  readonly inode: Inode | undefined;
}

/** Undefined: the directory of the place is not there. */
export function* placeOf(root: Inode, path: string): Task<Place | undefined> {
  let dir: Inode | undefined = root;
  for (const name of componentsOf(parentPath(path))) {
    dir = yield* dir.lookup(name);
    if (dir === undefined) return undefined;
  }
  const name = lastName(path);
  return { dir, name, inode: yield* dir.lookup(name) };
}

function* needPlace(root: Inode, path: string): Task<Place> {
  const place = yield* placeOf(root, path);
  if (place === undefined) throw broken(path);
  return place;
}

const broken = (path: string): LayerError =>
  new LayerError(Errno.ESTALE, `${quotePath(path)}: changed while it was committed`);

/** Rolls forward up to and with `committed`. */
export function* forward(staging: Staging): Task<void> {
  yield* phase(staging, 'detached', detaches(staging.journal), (step) => redo(staging, step));
  yield* phase(staging, 'attached', attaches(staging.journal), (step) => redo(staging, step));
  yield* phase(staging, 'committed', attributes(staging.journal), (step) => redo(staging, step));
}

/** Rolls back, from wherever `forward` stopped before `committed`. */
export function* backward(staging: Staging): Task<void> {
  const { journal } = staging;
  if (!journal.phases.has('undo')) yield* mark(journal, staging.journalFile, 'undo');
  const begun = journal.phases.has('detached');
  const late = begun ? attaches(journal).reverse() : [];
  yield* phase(staging, 'undo-attached', late, (step) => undo(staging, step));
  const early = [...detaches(journal).reverse(), ...attributes(journal).reverse()];
  yield* phase(staging, 'undone', early, (step) => undo(staging, step));
}

const detaches = (journal: Journal): Step[] => journal.steps.filter((s) => s.kind === 'detach');
const attaches = (journal: Journal): Step[] =>
  journal.steps.filter((s) => s.kind === 'attach' || s.kind === 'exchange');
const attributes = (journal: Journal): Step[] =>
  journal.steps.filter((s) => s.kind === 'attributes');

function* phase(
  staging: Staging,
  end: Phase,
  steps: readonly Step[],
  run: (step: Step) => Task<void>,
): Task<void> {
  if (staging.journal.phases.has(end)) return;
  for (const [i, step] of steps.entries()) {
    yield* run(step);
    staging.onProgress?.({
      phase: 'apply',
      path: step.path,
      done: i + 1,
      total: steps.length,
      bytes: 0,
    });
  }
  yield* mark(staging.journal, staging.journalFile, end);
}

function* redo(staging: Staging, step: Step): Task<void> {
  switch (step.kind) {
    case 'detach':
      return yield* park(staging, step.path, step.parked);
    case 'attach':
      return yield* unpark(staging, step.staged, step.path);
    case 'exchange':
      return yield* exchange(staging, step, true);
    case 'attributes':
      return yield* setAttributes(staging, step.path, step.to);
  }
}

function* undo(staging: Staging, step: Step): Task<void> {
  switch (step.kind) {
    case 'detach':
      return yield* unpark(staging, step.parked, step.path);
    case 'attach':
      return yield* park(staging, step.path, step.staged);
    case 'exchange':
      return yield* exchange(staging, step, false);
    case 'attributes':
      return yield* setAttributes(staging, step.oldPath, step.from);
  }
}

type AttributesStep = Extract<Step, { kind: 'attributes' }>;

/** Nothing to do where there is no such side of the step. */
function* setAttributes(
  staging: Staging,
  path: string | undefined,
  attributes: AttributesStep['to'],
): Task<void> {
  if (path === undefined || attributes === undefined) return;
  const place = yield* needPlace(staging.base, path);
  if (place.inode === undefined) throw broken(path);
  yield* applyAttributes(place.inode, attributes);
}

/** From the base into the staging directory. Done if it is there: names there are used once (P1). */
function* park(staging: Staging, path: string, parked: string): Task<void> {
  const target = yield* needPlace(staging.dir, parked);
  if (target.inode !== undefined) return;
  const source = yield* placeOf(staging.base, path);
  if (source?.inode === undefined) throw broken(path);
  yield* source.dir.rename(
    source.name,
    source.inode,
    target.dir,
    target.name,
    undefined,
    RENAME_NOREPLACE,
  );
}

/** From the staging directory into the base. Done if it is no longer there. */
function* unpark(staging: Staging, staged: string, path: string): Task<void> {
  const source = yield* needPlace(staging.dir, staged);
  if (source.inode === undefined) return;
  const target = yield* needPlace(staging.base, path);
  if (target.inode !== undefined) throw broken(path);
  yield* source.dir.rename(
    source.name,
    source.inode,
    target.dir,
    target.name,
    undefined,
    RENAME_NOREPLACE,
  );
}

function* exchange(
  staging: Staging,
  step: Extract<Step, { kind: 'exchange' }>,
  wantNew: boolean,
): Task<void> {
  const place = yield* placeOf(staging.base, step.path);
  const staged = yield* needPlace(staging.dir, step.staged);
  if (place?.inode === undefined || staged.inode === undefined) {
    // The directory above had not come to its place: then neither had this.
    if (!wantNew && staged.inode !== undefined) return;
    throw broken(step.path);
  }
  const isNew = (yield* place.inode.getattr()).ino === step.ino;
  if (isNew === wantNew) return;
  yield* staged.dir.rename(
    staged.name,
    staged.inode,
    place.dir,
    place.name,
    place.inode,
    RENAME_EXCHANGE,
  );
}
