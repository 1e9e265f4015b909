/**
 * The simulated driver: runs many tasks at once and picks at every step, by a seed, which one goes on.
 *
 * S1. A run is a function of its seed: the same tasks and seed give the same interleaving.
 * S2. `settle` runs until all tasks are over; tasks that all sleep with nobody to wake them are a
 *     deadlock, and it says what each of them waits for.
 */
import { Prng } from '../lib/prng.ts';
import type { Task, Wait } from '../kernel/task.ts';

interface Running {
  readonly name: string;
  readonly task: Task<unknown>;
  waitsFor: Wait | undefined;
}

export class DeadlockError extends Error {
  override name = 'DeadlockError';
}

/** A wait that is over at the next step: a preemption point of a simulated task. */
export const preempt: Wait = {
  what: 'preemption',
  block: () => true,
  park: (resume) => resume(),
};

export class SimulatedScheduler {
  readonly #random: Prng;
  readonly #runnable: Running[] = [];
  readonly #sleeping = new Set<Running>();
  /** Names in the order in which they ran: to print for a failing seed. */
  readonly history: string[] = [];

  constructor(seed: number) {
    this.#random = new Prng(seed);
  }

  add(name: string, task: Task<unknown>): void {
    this.#runnable.push({ name, task, waitsFor: undefined });
  }

  /** Errors: what a task throws; DeadlockError. */
  settle(): void {
    while (this.#runnable.length > 0) this.#step();
    if (this.#sleeping.size === 0) return;
    const stuck = [...this.#sleeping].map((r) => `${r.name} waits for ${r.waitsFor?.what}`);
    throw new DeadlockError(stuck.join('; '));
  }

  #step(): void {
    const [running] = this.#runnable.splice(this.#random.below(this.#runnable.length), 1);
    this.history.push(running!.name);
    const step = running!.task.next();
    if (step.done) return;
    running!.waitsFor = step.value;
    this.#sleeping.add(running!);
    step.value.park(() => {
      this.#sleeping.delete(running!);
      this.#runnable.push(running!);
    });
  }
}
