/** After `run`: say what changed, and do with it as asked. Outside of the view, nothing mounted. */
import { renderNameStatus, renderSummary } from '../layers/render.ts';
import { type Change, LayerError } from '../layers/types.ts';
import { MountError } from '../mount/options.ts';
import { allChanges } from './changes.ts';
import { commitLayers, reportCommit } from './commit.ts';
import { EXIT_OK } from './exit.ts';
import { STDERR, ask, note, printBytes, table } from './output.ts';
import type { OnExit } from './run.ts';
import { recoverSubject } from './recover.ts';
import { findSubject, whileUnmounted } from './subject.ts';
import { type Workspace, removeWorkspace } from './workspace.ts';

/** Lines of the list that follows a run; `diff` shows all. */
const SHOWN_MAX = 40;

interface Exit {
  onExit: OnExit;
  /** What run will exit with, unless the commit fails. */
  status: number;
  temporary: boolean;
  /** Everything that the command wrote is in the upper. */
  flushed: boolean;
  json: boolean;
}

type Done = 'kept' | 'committed' | 'discarded' | 'conflict' | 'unchanged';

/**
 * A workspace nobody asked for, in which nothing is: for runs that did not get to the command. Why
 * they did not is what is to be told, so that it cannot be removed is no more than a remark.
 */
export async function dropIfUnused(workspace: Workspace): Promise<void> {
  try {
    const subject = findSubject(workspace.name);
    await whileUnmounted(subject, () => {
      if (allChanges(subject).length === 0) removeWorkspace(workspace);
      return EXIT_OK;
    });
  } catch (error) {
    if (!(error instanceof MountError) && !(error instanceof LayerError)) throw error;
    note(`palimpsest: the workspace ${workspace.name} is left over: ${error.message}`);
  }
}

/** A commit that was cut short must not show in the view. */
export const recoverBefore = (workspace: Workspace): void =>
  recoverSubject(findSubject(workspace.name));

function showChanges(changes: readonly Change[]): void {
  const shown = changes.length > SHOWN_MAX ? changes.slice(0, SHOWN_MAX) : changes;
  printBytes(renderNameStatus(shown), STDERR);
  if (changes.length > SHOWN_MAX) note(`and ${changes.length - SHOWN_MAX} more`);
}

async function decide(
  exit: Exit,
  workspace: Workspace,
  changes: readonly Change[],
): Promise<OnExit> {
  if (!exit.flushed) return 'keep';
  if (exit.onExit === 'commit' && exit.status !== EXIT_OK) {
    note(`palimpsest: the command failed (status ${exit.status}), so nothing is committed`);
    return 'keep';
  }
  if (exit.onExit !== 'ask') return exit.onExit;
  for (;;) {
    const question = `${workspace.name}: [k]eep, [c]ommit, [d]iscard, or [s]how the changes? `;
    const letter = await ask(question, 'kcds', 'k');
    if (letter === 'k') return 'keep';
    if (letter === 'c') return 'commit';
    if (letter === 'd') return 'discard';
    printBytes(renderNameStatus(changes), STDERR);
  }
}

function nextSteps(workspace: Workspace): void {
  const { name } = workspace;
  note(`Kept as workspace ${name}:`);
  const steps = [
    [`palimpsest diff ${name}`, 'what changed (--patch, --stat, --json)'],
    [`palimpsest run -s ${name} -- COMMAND`, 'go on'],
    [`palimpsest commit ${name}`, 'make it so in the real tree'],
    [`palimpsest discard ${name}`, 'throw it away'],
  ];
  note(table(steps.map(([command, what]) => [`  ${command}`, what!])));
}

async function commit(workspace: Workspace): Promise<[status: number, done: Done]> {
  const subject = findSubject(workspace.name);
  const options = { conflict: 'fail' as const };
  let done: Done = 'conflict';
  const status = await whileUnmounted(subject, () => {
    const outcome = commitLayers(subject, undefined, options);
    if (outcome.applied) {
      removeWorkspace(workspace);
      done = 'committed';
    }
    return reportCommit(outcome, options);
  });
  return [status, done];
}

/** The exit status of the whole. */
export async function afterRun(workspace: Workspace, exit: Exit): Promise<number> {
  const subject = findSubject(workspace.name);
  let changes: Change[];
  try {
    changes = allChanges(subject);
  } catch (error) {
    if (!(error instanceof LayerError) && !(error instanceof MountError)) throw error;
    note(`palimpsest: ${error.message}`);
    nextSteps(workspace);
    return exit.status === EXIT_OK ? 125 : exit.status;
  }
  const summary = renderSummary(changes).trimEnd();
  if (!exit.json) {
    note(`palimpsest: ${summary}`);
    showChanges(changes);
  }
  let done: Done = 'kept';
  let { status } = exit;
  if (changes.length === 0 && exit.temporary) {
    removeWorkspace(workspace);
    done = 'unchanged';
  } else {
    const decision = await decide(exit, workspace, changes);
    if (decision === 'discard') {
      removeWorkspace(workspace);
      done = 'discarded';
      if (!exit.json) note('Discarded.');
    } else if (decision === 'commit') {
      const [commitStatus, outcome] = await commit(workspace);
      done = outcome;
      if (commitStatus !== EXIT_OK) status = commitStatus;
    }
  }
  if ((done === 'kept' || done === 'conflict') && !exit.json) nextSteps(workspace);
  if (exit.json) {
    note(JSON.stringify({ version: 1, workspace: workspace.name, status, outcome: done, summary }));
  }
  return status;
}
