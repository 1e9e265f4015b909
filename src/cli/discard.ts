/** `palimpsest discard`: the changes are thrown away. */
import { runSync } from '../kernel/task.ts';
import { discard } from '../layers/discard.ts';
import { jsonOf, renderNameStatus, renderSummary } from '../layers/render.ts';
import type { Change } from '../layers/types.ts';
import {
  type SelectionOptions,
  forEachLayer,
  isWhole,
  progress,
  selectionOf,
  shownChanges,
} from './changes.ts';
import { EXIT_OK } from './exit.ts';
import { printBytes, printJson } from './output.ts';
import type { Subject, SubjectLayer } from './subject.ts';
import { findSubject, flushSubject, pathsByLayer, whileUnmounted } from './subject.ts';
import { removeWorkspace } from './workspace.ts';

export interface DiscardCommandOptions extends SelectionOptions {
  dryRun?: boolean;
  json?: boolean;
  quiet?: boolean;
}

function discardLayers(
  subject: Subject,
  chosen: Map<SubjectLayer, string[]> | undefined,
  options: DiscardCommandOptions,
): Change[] {
  const dryRun = options.dryRun === true;
  const changes: Change[] = [];
  forEachLayer(subject, chosen, !dryRun, (open, paths) => {
    const result = runSync(
      discard({
        ...open.set,
        ...selectionOf(options, paths),
        dryRun,
        onProgress: progress(),
      }),
    );
    changes.push(...shownChanges(subject, open.layer, result.changes));
  });
  return changes;
}

function report(changes: readonly Change[], options: DiscardCommandOptions): number {
  if (options.json === true) {
    printJson({ version: 1, applied: options.dryRun !== true, changes: changes.map(jsonOf) });
  } else if (options.quiet !== true) {
    if (options.dryRun === true) printBytes(renderNameStatus(changes));
    const verb = options.dryRun === true ? 'would discard' : 'discarded';
    printBytes(`${verb}: ${renderSummary(changes)}`, process.stderr);
  }
  return EXIT_OK;
}

export async function discardCommand(
  name: string,
  paths: string[],
  options: DiscardCommandOptions,
): Promise<number> {
  const subject = findSubject(name);
  const chosen = pathsByLayer(subject, paths);
  const whole = isWhole(options, chosen);
  if (options.dryRun === true) {
    await flushSubject(subject);
    return report(discardLayers(subject, chosen, options), options);
  }
  return whileUnmounted(subject, () => {
    const { workspace } = subject;
    const changes = discardLayers(subject, chosen, { ...options, dryRun: whole && workspace !== undefined });
    if (whole && workspace !== undefined) removeWorkspace(workspace);
    return report(changes, options);
  });
}
