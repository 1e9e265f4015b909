/** A commit that was cut short (killed, out of power) is finished or undone before anyone looks. */
import { accessSync, constants, readdirSync } from 'node:fs';
import { runSync } from '../kernel/task.ts';
import { recoverCommit } from '../layers/recover.ts';
import { STAGING_PREFIX } from '../layers/whiteout-format.ts';
import type { Recovery } from '../layers/types.ts';
import { isAlive, processStart, readRecords } from '../mount/state.ts';
import { note } from './output.ts';
import { OpenLayer, type Subject, type SubjectLayer, layersOfWorkspace } from './subject.ts';
import { listWorkspaces } from './workspace.ts';

/** Who commits: written into the journal, and asked for by whoever finds it. */
export const ownerText = (): string => `${process.pid}:${processStart(process.pid)}`;

function ownerAlive(owner: string): boolean {
  const [pid, start] = owner.split(':');
  return processStart(Number(pid)) === start;
}

/** What an unfinished commit leaves at the root of its base: looked for before anything is loaded. */
function hasStaging(path: string): boolean {
  return readdirSync(path).some((name) => name.startsWith(STAGING_PREFIX));
}

function canWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch (error) {
    // Whoever may not write there cannot have begun a commit there.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return false;
  }
}

const SENTENCES = {
  removed: 'a commit that had not begun was cleaned up',
  completed: 'an interrupted commit was completed',
  undone: 'an interrupted commit was undone',
} as const;

export function recoverLayer(layer: SubjectLayer): void {
  const [lower] = layer.lowers;
  if (lower === undefined || layer.lowers.length > 1) return;
  if (!hasStaging(lower) || !canWrite(lower)) return;
  const outcomes = recoverWith(layer);
  if (outcomes.includes('pending')) recoverOthers(layer, lower);
  for (const outcome of outcomes) {
    if (outcome !== 'pending') note(`palimpsest: ${layer.view}: ${SENTENCES[outcome]}`);
  }
}

function recoverWith(layer: SubjectLayer): Recovery['outcome'][] {
  using open = new OpenLayer(layer, true);
  const base = open.set.lowers[0]!;
  const { upper, work, hidden } = open.set;
  const recoveries = runSync(
    recoverCommit({
      base,
      upper,
      ...(work === undefined ? {} : { work }),
      ...(hidden === undefined ? {} : { hidden }),
      ownerAlive,
    }),
  );
  return recoveries.map(({ outcome }) => outcome);
}

/** The commit was of another workspace: its own upper has to be cleaned. */
function recoverOthers(layer: SubjectLayer, base: string): void {
  const running = new Set(
    readRecords()
      .filter(isAlive)
      .map((record) => record.plan.workspace),
  );
  for (const workspace of listWorkspaces()) {
    if (running.has(workspace.name)) continue;
    for (const other of layersOfWorkspace(workspace)) {
      if (other.upper === layer.upper || other.lowers[0] !== base) continue;
      if (recoverWith(other).includes('completed')) {
        note(`palimpsest: an interrupted commit of the workspace ${workspace.name} was completed`);
      }
    }
  }
}

/** Only while nobody serves it: a daemon has the upper open. */
export function recoverSubject(subject: Subject): void {
  if (subject.records.length > 0) return;
  for (const layer of subject.layers) recoverLayer(layer);
}
