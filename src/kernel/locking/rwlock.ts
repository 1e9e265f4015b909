/**
 * Reader-writer lock between tasks: many readers or one writer, first come first served.
 *
 * W1. A reader that comes while a writer waits queues behind it: writers do not starve.
 * W2. Guards are single-use, as for Mutex.
 */
import { assert } from '../../lib/assert.ts';
import type { Task } from '../task.ts';
import { WaitQueue } from '../wait-queue.ts';
import { lockAcquired, lockReleased, lockWanted } from './lockdep.ts';
import type { LockClass, LockOwner } from './lockdep.ts';

type Mode = 'read' | 'write';

export class RwLock {
  readonly lockClass: LockClass;
  readonly #queue: WaitQueue;
  /** What each sleeper of `#queue` wants, in the same order. */
  readonly #wanted: Mode[] = [];
  #readers = 0;
  #writing = false;

  constructor(lockClass: LockClass) {
    this.lockClass = lockClass;
    this.#queue = new WaitQueue(`rwlock ${lockClass.name}`);
  }

  read(owner: LockOwner): Task<RwGuard> {
    return this.#take('read', owner);
  }

  write(owner: LockOwner): Task<RwGuard> {
    return this.#take('write', owner);
  }

  *#take(mode: Mode, owner: LockOwner): Task<RwGuard> {
    lockWanted(owner, this.lockClass);
    if (this.#wanted.length > 0 || !this.#free(mode)) {
      this.#wanted.push(mode);
      yield this.#queue.sleep(); // Woken with the lock already counted as ours.
    } else {
      this.#count(mode);
    }
    lockAcquired(owner, this.lockClass);
    return new RwGuard(this, mode, owner);
  }

  #free(mode: Mode): boolean {
    return !this.#writing && (mode === 'read' || this.#readers === 0);
  }

  #count(mode: Mode): void {
    assert(this.#free(mode), 'a lock is taken when it is free');
    if (mode === 'read') this.#readers++;
    else this.#writing = true;
  }

  /** For RwGuard only. */
  releaseLocked(mode: Mode, owner: LockOwner): void {
    lockReleased(owner, this.lockClass);
    if (mode === 'read') this.#readers--;
    else this.#writing = false;
    assert(this.#readers >= 0, 'as many releases as takes');
    for (let next = this.#wanted[0]; next !== undefined && this.#free(next); next = this.#wanted[0]) {
      this.#wanted.shift();
      this.#count(next);
      this.#queue.wakeOne();
    }
  }
}

export class RwGuard {
  #lock: RwLock | undefined;
  readonly #mode: Mode;
  readonly #owner: LockOwner;

  constructor(lock: RwLock, mode: Mode, owner: LockOwner) {
    this.#lock = lock;
    this.#mode = mode;
    this.#owner = owner;
  }

  [Symbol.dispose](): void {
    const lock = this.#lock;
    assert(lock !== undefined, 'a lock token is used once');
    this.#lock = undefined;
    lock.releaseLocked(this.#mode, this.#owner);
  }
}
