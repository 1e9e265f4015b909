/**
 * Which changes go together: a selection is widened until it can be committed by itself.
 *
 * A new object needs its new parents. A rename has two ends: what comes to a place needs the leaving
 * of what was there, and a directory cannot go away before what was renamed out of it has left.
 */
import { Errno } from '../abi/errno.ts';
import type { Task } from '../kernel/task.ts';
import { isChosen } from './diff.ts';
import type { DiffContext } from './diff-context.ts';
import { quotePath } from './render.ts';
import { selfAndParents } from './selection.ts';
import type { Selects } from './selection.ts';
import type { Change } from './types.ts';
import { LayerError } from './types.ts';
import { isDirNode, statOf, walkBeneath } from './view.ts';
import type { ViewNode } from './view.ts';

export function* chooseChanges(diff: DiffContext, selects: Selects): Task<Set<Change>> {
  const chosen = new Set<Change>();
  const queue = diff.changes.filter((change) => isChosen(change, selects));
  const index = indexOf(diff);
  for (let change = queue.pop(); change !== undefined; change = queue.pop()) {
    if (chosen.has(change)) continue;
    chosen.add(change);
    queue.push(...neededBy(diff, index, change));
    if (index.indexed.size > 0) queue.push(...(yield* namesOfSameFile(index, change)));
  }
  refuseTornMetacopies(diff, chosen);
  return chosen;
}

interface ChangeIndex {
  /** All but deletions, by path in the view. */
  readonly at: Map<string, Change>;
  readonly deletions: Map<string, Change>;
  /** Inode numbers in the base of files whose change some name has by the index alone. */
  readonly indexed: Map<number, Change[]>;
}

function indexOf(diff: DiffContext): ChangeIndex {
  const at = new Map<string, Change>();
  const deletions = new Map<string, Change>();
  for (const change of diff.changes) {
    if (change.op === 'D') deletions.set(change.upperPath ?? change.path, change);
    else at.set(change.path, change);
  }
  return { at, deletions, indexed: indexedChanges(diff, at) };
}

function indexedChanges(diff: DiffContext, at: ReadonlyMap<string, Change>): Map<number, Change[]> {
  const indexed = new Map<number, Change[]>();
  for (const names of diff.links.values()) {
    const origin = names.find((name) => name.indexed === true && at.has(name.path))?.oldIno;
    if (origin === undefined) continue;
    indexed.set(
      origin,
      names.map((name) => at.get(name.path)).filter((change) => change !== undefined),
    );
  }
  return indexed;
}

/**
 * A union asks its index only for a file of several names beneath. When one of them goes, the change
 * of the others would be seen no more: they go together.
 */
function* namesOfSameFile(index: ChangeIndex, change: Change): Task<Change[]> {
  const { oldNode } = change;
  if (oldNode === undefined) return [];
  const needed: Change[] = [];
  const visit = function* (node: ViewNode): Task<void> {
    if (!isDirNode(node)) needed.push(...(index.indexed.get((yield* statOf(node)).ino) ?? []));
  };
  yield* visit(oldNode);
  if (isDirNode(oldNode) && (change.op === 'D' || change.op === 'T'))
    yield* walkBeneath(oldNode, visit);
  return needed;
}

function neededBy(diff: DiffContext, index: ChangeIndex, change: Change): Change[] {
  const needed: (Change | undefined)[] = [];
  if (change.op !== 'D') {
    for (const parent of selfAndParents(change.path).slice(1)) {
      const made = index.at.get(parent);
      if (made !== undefined && made.op !== 'X' && made.op !== 'M') needed.push(made);
    }
    // Its place must be free.
    needed.push(index.deletions.get(change.path));
    const leaving = diff.moved.get(change.path);
    if (leaving !== undefined) needed.push(index.at.get(leaving));
  }
  const old = change.oldNode;
  if (old !== undefined && (change.op === 'D' || change.op === 'T')) {
    for (const [from, to] of diff.moved)
      if (from.startsWith(`${old.path}/`)) needed.push(index.at.get(to));
  }
  return needed.filter((c) => c !== undefined);
}

/** The data of a file whose metadata alone was copied up would be gone from where it is looked for. */
function refuseTornMetacopies(diff: DiffContext, chosen: Set<Change>): void {
  if (chosen.size === diff.changes.length) return;
  const gone = new Set<string>();
  for (const { op, oldNode } of chosen)
    if (oldNode !== undefined && op !== 'X') gone.add(oldNode.path);
  for (const change of diff.changes) {
    const dataPath = change.newNode?.dataPath;
    if (dataPath === undefined || chosen.has(change)) continue;
    // Under its own name nothing but a commit of itself touches it.
    if ((change.op === 'X' || change.op === 'M') && dataPath === change.oldNode!.path) continue;
    if (!selfAndParents(dataPath).some((path) => gone.has(path))) continue;
    throw new LayerError(
      Errno.EINVAL,
      `${quotePath(change.path)} was renamed and still has its data in the base: name it too`,
    );
  }
}
