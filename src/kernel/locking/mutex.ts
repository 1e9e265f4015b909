/**
 * Mutex: a sleeping lock between tasks, first come first served.
 *
 * M1. Only a task that got a `MutexGuard` from `lock` may release it, once; a second release throws
 *     (seed row 15: a double unlock lets two writers into one page).
 * M2. The lock is handed over at release: a newcomer cannot overtake a sleeper.
 * A mutex belongs to a class; lockdep (lockdep.ts) learns the order of classes when it is on.
 */
import { assert } from '../../lib/assert.ts';
import type { Task, Wait } from '../task.ts';
import { lockAcquired, lockReleased, lockWanted } from './lockdep.ts';
import type { LockClass, LockOwner } from './lockdep.ts';

class MutexWait implements Wait {
  readonly what: string;
  resume: (() => void) | undefined;
  constructor(what: string) {
    this.what = what;
  }
  block(): boolean {
    return false; // The holder is a parked task of this very thread: blocking would never end.
  }
  park(resume: () => void): void {
    this.resume = resume;
  }
}

export class Mutex {
  readonly lockClass: LockClass;
  #held = false;
  #sleepers: MutexWait[] | undefined;

  constructor(lockClass: LockClass) {
    this.lockClass = lockClass;
  }

  get held(): boolean {
    return this.#held;
  }

  /** Take the lock; `owner` tells one task from another for lockdep. Release it with `using`. */
  *lock(owner: LockOwner): Task<MutexGuard> {
    lockWanted(owner, this.lockClass);
    if (this.#held) {
      const wait = new MutexWait(`mutex ${this.lockClass.name}`);
      (this.#sleepers ??= []).push(wait);
      yield wait;
      assert(this.#held, 'a mutex is handed over held');
    }
    this.#held = true;
    lockAcquired(owner, this.lockClass);
    return new MutexGuard(this, owner);
  }

  /** For MutexGuard only. */
  releaseLocked(owner: LockOwner): void {
    assert(this.#held, 'a mutex that is released is held');
    lockReleased(owner, this.lockClass);
    const next = this.#sleepers?.shift();
    if (next === undefined) {
      this.#held = false;
      return;
    }
    assert(next.resume !== undefined, 'a sleeper is parked');
    next.resume();
  }
}

export class MutexGuard {
  #mutex: Mutex | undefined;
  readonly #owner: LockOwner;

  constructor(mutex: Mutex, owner: LockOwner) {
    this.#mutex = mutex;
    this.#owner = owner;
  }

  [Symbol.dispose](): void {
    const mutex = this.#mutex;
    assert(mutex !== undefined, 'a lock token is used once');
    this.#mutex = undefined;
    mutex.releaseLocked(this.#owner);
  }
}
