/** `palimpsest commit`: the changes become the real tree's. */
import { randomUUID } from 'node:crypto';
import { runSync } from '../kernel/task.ts';
import { applyCommit, planCommit } from '../layers/commit.ts';
import { jsonOf, renderNameStatus, renderSummary } from '../layers/render.ts';
import {
  type Change,
  type CommitResult,
  type Conflict,
  type ConflictMode,
} from '../layers/types.ts';
import { MountError } from '../mount/options.ts';
import {
  type SelectionOptions,
  conflictLines,
  isWhole,
  progress,
  selectionOf,
  shownChanges,
} from './changes.ts';
import { EXIT_CONFLICT, EXIT_OK } from './exit.ts';
import { STDERR, note, printBytes, printJson } from './output.ts';
import { ownerText, recoverLayer } from './recover.ts';
import { OpenLayer, type Subject, type SubjectLayer } from './subject.ts';
import { findSubject, flushSubject, pathsByLayer, whileUnmounted } from './subject.ts';
import { removeWorkspace } from './workspace.ts';

export interface CommitCommandOptions extends SelectionOptions {
  dryRun?: boolean;
  conflict: ConflictMode;
  json?: boolean;
  quiet?: boolean;
}

type Plan = ReturnType<typeof planCommit> extends Generator<unknown, infer P, void> ? P : never;

interface PlannedLayer {
  open: OpenLayer;
  plan: Plan;
}

export interface CommitOutcome {
  changes: Change[];
  conflicts: Conflict[];
  applied: boolean;
}

function planLayer(
  open: OpenLayer,
  paths: string[] | undefined,
  options: CommitCommandOptions,
): Plan {
  const { layer, set } = open;
  const [base] = set.lowers;
  if (base === undefined || set.lowers.length > 1) {
    throw new MountError(
      'refused',
      `commit needs exactly one branch beneath the topmost: ${layer.view} has ${set.lowers.length}`,
    );
  }
  return runSync(
    planCommit({
      ...set,
      ...selectionOf(options, paths),
      base,
      id: randomUUID(),
      conflict: options.conflict,
      owner: ownerText(),
      onProgress: progress(),
      ...(layer.baseline === undefined ? {} : { baseline: layer.baseline }),
    }),
  );
}

/** Every layer is checked before any is changed. The caller sees to it that nobody serves them. */
export function commitLayers(
  subject: Subject,
  chosen: Map<SubjectLayer, string[]> | undefined,
  options: CommitCommandOptions,
): CommitOutcome {
  using opened = new DisposableStack();
  const layers = subject.layers.filter((layer) => chosen === undefined || chosen.has(layer));
  if (options.dryRun !== true) for (const layer of layers) recoverLayer(layer);
  const planned = layers.map((layer): PlannedLayer => {
    const open = opened.use(new OpenLayer(layer, options.dryRun !== true));
    return { open, plan: planLayer(open, chosen?.get(layer), options) };
  });
  const shown = (layer: SubjectLayer, changes: readonly Change[]): Change[] =>
    shownChanges(subject, layer, changes);
  const conflicts = planned.flatMap(({ plan }) => [...plan.conflicts]);
  const stopped = options.conflict === 'fail' && conflicts.length > 0;
  if (stopped || options.dryRun === true) {
    const changes = planned.flatMap(({ open, plan }) => shown(open.layer, plan.changes));
    return { changes, conflicts, applied: false };
  }
  const results = planned.map(({ open, plan }): [OpenLayer, CommitResult] => [
    open,
    runSync(applyCommit(plan)),
  ]);
  return {
    changes: results.flatMap(([open, result]) => shown(open.layer, result.changes)),
    conflicts: results.flatMap(([, result]) => result.conflicts),
    applied: true,
  };
}

/** What a person reads about a commit; the conflicts decide the status. */
export function reportCommit(outcome: CommitOutcome, options: CommitCommandOptions): number {
  const { changes, conflicts, applied } = outcome;
  const failed = options.conflict === 'fail' && conflicts.length > 0;
  if (options.json === true) {
    printJson({ version: 1, applied, changes: changes.map(jsonOf), conflicts });
  } else if (failed) {
    note(
      'palimpsest: nothing was committed: the real tree has changed since the workspace was made',
    );
    note(conflictLines(conflicts));
    note('Use --conflict ours (the workspace wins) or theirs (the real tree wins).');
  } else if (options.quiet !== true) {
    const who = options.conflict === 'theirs' ? 'left as they are' : 'overwritten';
    if (conflicts.length > 0) note(`palimpsest: ${who}:\n${conflictLines(conflicts)}`);
    if (options.dryRun === true) printBytes(renderNameStatus(changes));
    const verb = options.dryRun === true ? 'would commit' : 'committed';
    printBytes(`${verb}: ${renderSummary(changes)}`, STDERR);
  }
  return failed ? EXIT_CONFLICT : EXIT_OK;
}

export async function commitCommand(
  name: string,
  paths: string[],
  options: CommitCommandOptions,
): Promise<number> {
  const subject = findSubject(name);
  const chosen = pathsByLayer(subject, paths);
  if (options.dryRun === true) {
    await flushSubject(subject);
    return reportCommit(commitLayers(subject, chosen, options), options);
  }
  return whileUnmounted(subject, () => {
    const outcome = commitLayers(subject, chosen, options);
    const whole = isWhole(options, chosen);
    // A workspace whose changes are all in the real tree has nothing left to say.
    const leftOut = options.conflict === 'theirs' && outcome.conflicts.length > 0;
    const isDone = outcome.applied && whole && !leftOut;
    if (isDone && subject.workspace !== undefined) removeWorkspace(subject.workspace);
    return reportCommit(outcome, options);
  });
}
