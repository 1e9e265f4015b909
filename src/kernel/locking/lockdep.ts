/**
 * Lockdep: learns in which order lock classes are taken, and throws on the first cycle, whether or
 * not the run would have hung. Off in production; tests turn it on with `setLockdep(true)`.
 *
 * Words: a *class* is a kind of lock (all copy-up locks are one class); an *owner* is a task; an edge
 * A -> B means that some owner took B while it held A.
 * L1. The graph of edges between classes has no cycle.
 * L2. Two locks of one class are nested only if the class is `nestable` (its users order them by
 *     ascending number, or parent before child, and say so at the place).
 * cf. Linux Documentation/locking/lockdep-design.rst
 */
export interface LockClass {
  readonly name: string;
  /** Two of this class may be held at once, in an order that the users guarantee. */
  readonly nestable: boolean;
}

/** Identity of a task: any object. */
export type LockOwner = object;

let enabled = false;
let held = new WeakMap<LockOwner, LockClass[]>();
let edges = new Map<LockClass, Set<LockClass>>();

export class LockOrderError extends Error {
  override name = 'LockOrderError';
}

/** Turn checking on or off, and forget all that was learned. */
export function setLockdep(on: boolean): void {
  enabled = on;
  held = new WeakMap();
  edges = new Map();
}

export function lockWanted(owner: LockOwner, wanted: LockClass): void {
  if (!enabled) return;
  for (const have of held.get(owner) ?? []) {
    if (have === wanted) {
      if (!wanted.nestable) throw new LockOrderError(`${wanted.name} taken twice by one task`);
      continue;
    }
    if (reaches(wanted, have)) {
      throw new LockOrderError(
        `${have.name} -> ${wanted.name}, but ${wanted.name} -> … -> ${have.name} was seen before`,
      );
    }
    let after = edges.get(have);
    if (after === undefined) edges.set(have, (after = new Set()));
    after.add(wanted);
  }
}

export function lockAcquired(owner: LockOwner, taken: LockClass): void {
  if (!enabled) return;
  const list = held.get(owner);
  if (list === undefined) held.set(owner, [taken]);
  else list.push(taken);
}

export function lockReleased(owner: LockOwner, released: LockClass): void {
  if (!enabled) return;
  const list = held.get(owner);
  const at = list?.lastIndexOf(released) ?? -1;
  if (at < 0) throw new LockOrderError(`${released.name} released by a task that does not hold it`);
  list!.splice(at, 1);
}

function reaches(from: LockClass, target: LockClass, seen = new Set<LockClass>()): boolean {
  if (from === target) return true;
  if (seen.has(from)) return false;
  seen.add(from);
  for (const next of edges.get(from) ?? []) if (reaches(next, target, seen)) return true;
  return false;
}
