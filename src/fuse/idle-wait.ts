/**
 * Waiting for the next request without going to sleep for it, where that pays.
 *
 * A program that works through files asks again some microseconds after each answer. A thread that has
 * gone to sleep by then must be woken on an idle processor. In a virtual machine, where an idle processor
 * is handed back to the host, that was four fifths of a request (docs/decisions/0005). So the engine looks
 * for a while before it sleeps, as KVM does for a halted guest
 * (Documentation/virt/kvm/halt-polling.rst), and as there the while adapts itself:
 *
 * I1. Seen while looking: it stays as it is.
 * I2. Seen soon after going to sleep, within LOOK_MAX_US of the wait's start: it should have looked
 *     longer. The while doubles, from LOOK_MIN_US.
 * I3. Seen later than that: looking was in vain. It halves, and below LOOK_MIN_US there is none.
 * So a busy mount looks for at most LOOK_MAX_US a request, and an idle one not at all.
 *
 * I4. Between two looks the processor is offered to whoever else is ready for it, the caller above all.
 * I5. No looking while more threads want to run than there are processors: a thread that waits behind
 *     another processor's work does not come to one that never idles, and no processor is asleep then.
 */
import { monotonicNs } from '../sys/clock.ts';
import { ProcessorLoad } from '../sys/load.ts';
import { yieldProcessor } from '../sys/process.ts';
import { LOOK_MAX_US, LOOK_MIN_US } from './limits.ts';

/** A poll(2) of the descriptors waited for: how many are ready, within a time in ms, -1 for no end. */
export interface Pollable {
  wait(timeoutMs: number): number;
}

export interface IdleWaitHost {
  /** Nanoseconds on a clock that does not go back. */
  now(): number;
  yieldProcessor(): void;
  /** More threads want to run than there are processors. */
  readonly load: { readonly crowded: boolean };
}

const host = (): IdleWaitHost => ({ now: monotonicNs, yieldProcessor, load: new ProcessorLoad() });

export class IdleWait {
  readonly #pollable: Pollable;
  readonly #beforeSleep: () => void;
  readonly #host: IdleWaitHost;

  #lookUs = 0;

  /** `beforeSleep` is called each time before the thread goes to sleep. */
  constructor(pollable: Pollable, beforeSleep = (): void => undefined, on = host()) {
    this.#pollable = pollable;
    this.#beforeSleep = beforeSleep;
    this.#host = on;
  }

  /** How long the next wait looks before it sleeps, in microseconds. */
  get lookUs(): number {
    return this.#lookUs;
  }

  /** Until something is ready: how many, or 0 after a signal or `sleepMs` of sleep (-1: no end). */
  wait(sleepMs = -1): number {
    const { now } = this.#host;
    let ready = this.#pollable.wait(0);
    if (ready > 0) return ready;
    const start = now();
    if (this.#lookUs > 0 && !this.#host.load.crowded) {
      const end = start + this.#lookUs * 1000;
      do {
        this.#host.yieldProcessor();
        ready = this.#pollable.wait(0);
        if (ready > 0) return ready;
      } while (now() < end);
    }
    this.#beforeSleep();
    ready = this.#pollable.wait(sleepMs);
    this.#adapt((now() - start) / 1000);
    return ready;
  }

  #adapt(waitedUs: number): void {
    const look = this.#lookUs;
    if (waitedUs <= LOOK_MAX_US) {
      this.#lookUs = look === 0 ? LOOK_MIN_US : Math.min(look * 2, LOOK_MAX_US);
    } else {
      this.#lookUs = look >= 2 * LOOK_MIN_US ? look / 2 : 0;
    }
  }
}
