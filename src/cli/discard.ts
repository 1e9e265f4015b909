/** `palimpsest discard`: the changes are thrown away. */
import { existsSync } from 'node:fs';
import { runSync } from '../kernel/task.ts';
import { discard } from '../layers/discard.ts';
import { jsonOf, renderNameStatus, renderSummary } from '../layers/render.ts';
import { type Change, LayerError } from '../layers/types.ts';
import { MountError } from '../mount/options.ts';
import {
  type SelectionOptions,
  forEachLayer,
  isWhole,
  progress,
  selectionOf,
  shownChanges,
} from './changes.ts';
import { EXIT_OK } from './exit.ts';
import { STDERR, note, printBytes, printJson } from './output.ts';
import type { Subject, SubjectLayer } from './subject.ts';
import { recoverLayer } from './recover.ts';
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

/** A commit of this workspace that was cut short has its other half in the real tree. */
function recoverIfReadable(subject: Subject): void {
  for (const layer of subject.layers) {
    if (existsSync(layer.view)) recoverLayer(layer);
  }
}

/** For the report. A workspace whose tree has gone can still be thrown away. */
function changesIfReadable(subject: Subject): Change[] {
  try {
    return discardLayers(subject, undefined, { dryRun: true });
  } catch (error) {
    if (!(error instanceof MountError) && !(error instanceof LayerError)) throw error;
    note(`palimpsest: ${error.message}`);
    return [];
  }
}

function report(changes: readonly Change[], options: DiscardCommandOptions): number {
  if (options.json === true) {
    printJson({ version: 1, applied: options.dryRun !== true, changes: changes.map(jsonOf) });
  } else if (options.quiet !== true) {
    if (options.dryRun === true) printBytes(renderNameStatus(changes));
    const verb = options.dryRun === true ? 'would discard' : 'discarded';
    printBytes(`${verb}: ${renderSummary(changes)}`, STDERR);
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
    if (!whole || workspace === undefined) {
      return report(discardLayers(subject, chosen, options), options);
    }
    recoverIfReadable(subject);
    const changes = changesIfReadable(subject);
    removeWorkspace(workspace);
    return report(changes, options);
  });
}
