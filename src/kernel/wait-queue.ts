/**
 * Wait queue: tasks that sleep until somebody wakes them, first come first served.
 *
 * Q1. `sleep` gives a Wait; once parked it is woken exactly once, or never.
 * Q2. Waking does not run the sleeper before `wake` returns to a task that has more to do: the
 *     sleeper's code runs inside `wake`, so call it last, or be ready for anything after it (T1).
 */
import { assert } from '../lib/assert.ts';
import type { Wait } from './task.ts';

class Sleeper implements Wait {
  readonly what: string;
  resume: (() => void) | undefined;
  constructor(what: string) {
    this.what = what;
  }
  /** Who would wake us is a parked task of this very thread: blocking would never end. */
  block(): boolean {
    return false;
  }
  park(resume: () => void): void {
    assert(this.resume === undefined, 'a wait is parked once');
    this.resume = resume;
  }
}

export class WaitQueue {
  readonly what: string;
  #sleepers: Sleeper[] = [];

  /** `what` names the queue in stall reports. */
  constructor(what: string) {
    this.what = what;
  }

  get length(): number {
    return this.#sleepers.length;
  }

  /** Yield the result to sleep. */
  sleep(): Wait {
    const sleeper = new Sleeper(this.what);
    this.#sleepers.push(sleeper);
    return sleeper;
  }

  /** Wake the first sleeper. False: nobody sleeps. */
  wakeOne(): boolean {
    for (;;) {
      const sleeper = this.#sleepers.shift();
      if (sleeper === undefined) return false;
      // Never parked: its task was unwound by a driver that could not wait.
      if (sleeper.resume === undefined) continue;
      sleeper.resume();
      return true;
    }
  }

  /** Wake all that sleep now; who goes to sleep meanwhile stays asleep. */
  wakeAll(): void {
    for (let count = this.#sleepers.length; count > 0; count--) this.wakeOne();
  }
}
