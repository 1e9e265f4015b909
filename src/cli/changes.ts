/** What diff, commit, discard and run share: finding the changes of a subject, and showing them. */
import { runSync } from '../kernel/task.ts';
import { diffLayer } from '../layers/diff.ts';
import type { Change, Conflict, OnProgress, Progress } from '../layers/types.ts';
import { bytesPath } from '../mount/paths.ts';
import { STDERR, formatBytes, isTerminal, styled, writeAll } from './output.ts';
import { OpenLayer, type Subject, type SubjectLayer } from './subject.ts';

export interface SelectionOptions {
  include?: string[];
  exclude?: string[];
}

/** Only what was given: an absent field and an empty list are not the same to a selection. */
export function selectionOf(
  given: SelectionOptions,
  paths: readonly string[] | undefined,
): { paths?: readonly string[]; include?: string[]; exclude?: string[] } {
  return {
    ...(paths === undefined || paths.includes('') ? {} : { paths }),
    ...(given.include === undefined ? {} : { include: given.include.map(bytesPath) }),
    ...(given.exclude === undefined ? {} : { exclude: given.exclude.map(bytesPath) }),
  };
}

/** Is everything meant, not a part? */
export const isWhole = (given: SelectionOptions, chosen: unknown): boolean =>
  chosen === undefined && given.include === undefined && given.exclude === undefined;

/** With several layers, a path alone does not say which: then it is shown whole. */
export function shownChanges(
  subject: Pick<Subject, 'layers'>,
  layer: SubjectLayer,
  changes: readonly Change[],
): Change[] {
  if (subject.layers.length === 1) return [...changes];
  const prefix = `${bytesPath(layer.view)}/`;
  return changes.map((change) => ({
    ...change,
    path: prefix + change.path,
    ...(change.from === undefined ? {} : { from: prefix + change.from }),
    ...(change.linkTo === undefined ? {} : { linkTo: prefix + change.linkTo }),
  }));
}

/** The layers that a command is to look at, opened one after the other. */
export function forEachLayer(
  subject: Subject,
  chosen: Map<SubjectLayer, string[]> | undefined,
  writable: boolean,
  action: (open: OpenLayer, paths: string[] | undefined) => void,
): void {
  for (const layer of subject.layers) {
    const paths = chosen?.get(layer);
    if (chosen !== undefined && paths === undefined) continue;
    using open = new OpenLayer(layer, writable);
    action(open, paths);
  }
}

/** All changes of all layers, as they are shown. Their contents cannot be read any more. */
export function allChanges(subject: Subject): Change[] {
  const changes: Change[] = [];
  forEachLayer(subject, undefined, false, (open) => {
    const found = runSync(diffLayer({ ...open.set, onProgress: progress() }));
    changes.push(...shownChanges(subject, open.layer, found));
  });
  return changes;
}

const PROGRESS_MS = 200;
/** Narrower than any terminal, so that the line never wraps. */
const LINE_CHARS_MAX = 79;

/** A line on the terminal that says how far it is, from the second `PROGRESS_MS` on. */
export function progress(): OnProgress {
  if (!isTerminal(STDERR)) return () => undefined;
  let shown = performance.now();
  return ({ phase, path, done, total, bytes }: Progress) => {
    const now = performance.now();
    if (now - shown < PROGRESS_MS) return;
    shown = now;
    const of = total === undefined ? '' : ` of ${total}`;
    const name = Buffer.from(path, 'latin1').toString('utf8');
    const line = `${phase}: ${done}${of}, ${formatBytes(bytes)} ${name}`;
    writeAll(STDERR, Buffer.from(`\r\u001B[K${line.slice(0, LINE_CHARS_MAX)}\r`));
  };
}

export function conflictLines(conflicts: readonly Conflict[], shownMax = 20): string {
  const lines = conflicts.slice(0, shownMax).map((conflict) => {
    const path = Buffer.from(conflict.path, 'latin1').toString('utf8');
    return `  ${styled(STDERR, 'bold', path)}: ${conflict.reason}`;
  });
  if (conflicts.length > shownMax) lines.push(`  and ${conflicts.length - shownMax} more`);
  return lines.join('\n');
}
