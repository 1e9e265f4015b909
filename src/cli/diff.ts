/** `palimpsest diff`. Each form is made by src/layers; here is which, and over which layers. */
import { runSync } from '../kernel/task.ts';
import { diffLayer } from '../layers/diff.ts';
import { patchOf, renderStat } from '../layers/patch.ts';
import {
  renderDocker,
  renderJson,
  renderNameOnly,
  renderNameStatus,
  renderSummary,
} from '../layers/render.ts';
import { type Change, LayerError } from '../layers/types.ts';
import { MountError } from '../mount/options.ts';
import {
  type SelectionOptions,
  forEachLayer,
  progress,
  selectionOf,
  shownChanges,
} from './changes.ts';
import { EXIT_CHANGES, EXIT_OK, EXIT_USAGE, ExitError } from './exit.ts';
import { printBytes } from './output.ts';
import { recoverSubject } from './recover.ts';
import { findSubject, flushSubject, pathsByLayer } from './subject.ts';

export interface DiffCommandOptions extends SelectionOptions {
  nameStatus?: boolean;
  nameOnly?: boolean;
  stat?: boolean;
  patch?: boolean;
  json?: boolean;
  docker?: boolean;
  summary?: boolean;
  null?: boolean;
  expand?: boolean;
  mtime?: boolean;
  exitCode?: boolean;
  quiet?: boolean;
}

function render(changes: readonly Change[], options: DiffCommandOptions): string {
  const nul = { nul: options.null === true };
  if (options.json === true) return renderJson(changes);
  if (options.docker === true) return renderDocker(changes, nul);
  if (options.nameOnly === true) return renderNameOnly(changes, nul);
  return renderNameStatus(changes, nul);
}

/** Patches are printed as they are made: all of them together may be larger than memory. */
function printLayer(changes: readonly Change[], options: DiffCommandOptions): void {
  if (options.quiet === true || options.summary === true) return;
  if (options.stat === true) printBytes(runSync(renderStat(changes)));
  else if (options.patch !== true) printBytes(render(changes, options));
  if (options.patch !== true) return;
  for (const change of changes) printBytes(runSync(patchOf(change)));
}

async function diff(name: string, paths: string[], options: DiffCommandOptions): Promise<number> {
  const subject = findSubject(name);
  const chosen = pathsByLayer(subject, paths);
  await flushSubject(subject);
  recoverSubject(subject);
  const wantsEntries = options.expand ?? options.docker ?? options.stat ?? options.patch ?? false;
  const all: Change[] = [];
  forEachLayer(subject, chosen, false, (open, layerPaths) => {
    const found = runSync(
      diffLayer({
        ...open.set,
        ...selectionOf(options, layerPaths),
        expand: wantsEntries,
        mtime: options.mtime === true,
        digest: options.json === true,
        onProgress: progress(),
      }),
    );
    const changes = shownChanges(subject, open.layer, found);
    printLayer(changes, options);
    all.push(...changes);
  });
  if (options.summary === true && options.quiet !== true) printBytes(renderSummary(all));
  const tells = options.exitCode === true || options.quiet === true;
  return tells && all.length > 0 ? EXIT_CHANGES : EXIT_OK;
}

/** With --exit-code every failure is 2, so that 1 always means changes. */
export async function diffCommand(
  name: string,
  paths: string[],
  options: DiffCommandOptions,
): Promise<number> {
  try {
    return await diff(name, paths, options);
  } catch (error) {
    if (error instanceof LayerError || error instanceof MountError) {
      throw new ExitError(EXIT_USAGE, error.message);
    }
    throw error;
  }
}
