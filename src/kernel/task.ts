/**
 * Tasks: an operation that may wait is written once, as a generator, and called with `yield*`.
 *
 * A task runs until it must wait and then yields a `Wait`; a driver decides what waiting means:
 *  - `runSync` does the wait on the spot, or fails with EDEADLK if that cannot be done;
 *  - `start` (async) parks the task and resumes it later;
 *  - the simulated driver (sim/) picks the next runnable task by a seed.
 *
 * T1. Between two yields a task is alone. After a yield nothing is known: re-check, and name the race.
 * T2. A Wait is used once, by one task. Its outcome is read from the Wait object after the yield.
 * T3. A driver resumes a task exactly once per Wait.
 */
import { Errno } from '../abi/errno.ts';
import { FsError } from './error.ts';

export interface Wait {
  /** For stall reports: what is waited for. */
  readonly what: string;
  /** Satisfy the wait on the spot, blocking this thread if need be. False: cannot. */
  block(): boolean;
  /** Call `resume` once, later, when the wait is over. Never calls it before returning. */
  park(resume: () => void): void;
}

export type Task<T> = Generator<Wait, T, void>;

/** The sync driver. Errors: what the task throws; EDEADLK where a wait needs the async API. */
export function runSync<T>(task: Task<T>): T {
  for (let step = task.next(); ; step = task.next()) {
    if (step.done) return step.value;
    if (!step.value.block()) {
      // Unwind the task's finally blocks and locks before giving up on it.
      const error = new FsError(Errno.EDEADLK, `${step.value.what} needs the async API`);
      task.throw(error);
      throw error;
    }
  }
}

/** Where an async task's end goes. Exactly one of the two is called, once. */
export interface Completion<T> {
  done(value: T): void;
  failed(error: unknown): void;
}

/** The async driver: runs on the spot up to the first wait, then goes on when it is over. */
export function start<T>(task: Task<T>, completion: Completion<T>): void {
  let value: T;
  for (;;) {
    let step: IteratorResult<Wait, T>;
    try {
      step = task.next();
    } catch (error) {
      completion.failed(error);
      return;
    }
    if (step.done) {
      value = step.value;
      break;
    }
    step.value.park(() => start(task, completion));
    return;
  }
  completion.done(value);
}

/** The async driver as a promise: for doors that speak promises. */
export function runAsync<T>(task: Task<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    start(task, { done: resolve, failed: reject });
  });
}

/** A task that is over at once. */
// oxlint-disable-next-line require-yield
export function* taskOf<T>(value: T): Task<T> {
  return value;
}
