/**
 * Mutex: a sleeping lock between tasks, first come first served.
 *
 * M1. Only a task that got a `MutexGuard` from `lock` may release it, once; a second release throws
 *     (seed row 15: a double unlock lets two writers into one page).
 * M2. The lock is handed over at release: a newcomer cannot overtake a sleeper.
 * A mutex belongs to a class; lockdep (lockdep.ts) learns the order of classes when it is on.
 */
import { assert } from '../../lib/assert.ts';
import type { Task } from '../task.ts';
import { WaitQueue } from '../wait-queue.ts';
import { lockAcquired, lockReleased, lockWanted } from './lockdep.ts';
import type { LockClass, LockOwner } from './lockdep.ts';

export class Mutex {
  readonly lockClass: LockClass;
  #held = false;
  #sleepers: WaitQueue | undefined;

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
      yield (this.#sleepers ??= new WaitQueue(`mutex ${this.lockClass.name}`)).sleep();
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
    // Handed over held (M2): the flag changes only if nobody waits.
    if (this.#sleepers?.wakeOne() !== true) this.#held = false;
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
