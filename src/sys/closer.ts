/**
 * The last close of removed files, on a thread of its own.
 *
 * close(2) of the only descriptor of a file without a name gives its blocks back, and that takes as long
 * as several requests. Nobody waits for it, but for one thing: who finds the disk full must be able to
 * have back at once what was removed before (`settle`). So XFS does with its inodegc workers.
 *
 * G1. A slot of the ring holds a descriptor from `submit` until somebody has claimed it; claims go in
 *     order, by one compare-and-swap, so each descriptor is closed once.
 * G2. `settle` claims too: it depends on the thread only for the one close that this is in.
 * G3. The thread is started at the first `wake`, and holds no process back from its end: what is then
 *     not closed yet is closed by the kernel.
 */
import { Worker } from 'node:worker_threads';
import { tryClose } from './open.ts';
import { programFile } from './program-file.ts';

/** Descriptors that may wait to be closed: half of those that fs/host keeps from its caches. */
export const CLOSING_MAX = 128;
/** The thread is woken for so many: a wake-up costs about as much as a close. */
const WAKE_COUNT = 16;

/** Where in the shared state: counts that only grow, modulo 2^32, then the ring. */
export const SUBMITTED = 0;
export const CLAIMED = 1;
export const CLOSED = 2;
export const RING = 3;

/** Close what has been submitted and not claimed, oldest first. Both threads do this (G1). */
export function closeClaimed(state: Int32Array): void {
  for (;;) {
    const claimed = Atomics.load(state, CLAIMED);
    if (claimed === Atomics.load(state, SUBMITTED)) return;
    // Read before the claim: after it the slot may be filled again.
    const fd = Atomics.load(state, RING + (claimed >>> 0) % CLOSING_MAX);
    if (Atomics.compareExchange(state, CLAIMED, claimed, (claimed + 1) | 0) !== claimed) continue;
    tryClose(fd);
    Atomics.add(state, CLOSED, 1);
    Atomics.notify(state, CLOSED);
  }
}

export class Closer {
  readonly #state = new Int32Array(new SharedArrayBuffer((RING + CLOSING_MAX) * 4));
  #thread: Worker | undefined;
  /** Submitted since the thread was woken last. */
  #unheard = 0;

  /** Submitted and not closed yet. */
  get pending(): number {
    return (Atomics.load(this.#state, SUBMITTED) - Atomics.load(this.#state, CLOSED)) | 0;
  }

  /** Take over a descriptor. False: too many wait, close it yourself. */
  submit(fd: number): boolean {
    if (this.pending >= CLOSING_MAX) return false;
    const submitted = Atomics.load(this.#state, SUBMITTED);
    Atomics.store(this.#state, RING + (submitted >>> 0) % CLOSING_MAX, fd);
    Atomics.store(this.#state, SUBMITTED, (submitted + 1) | 0);
    this.#unheard++;
    if (this.#unheard >= WAKE_COUNT) this.wake();
    return true;
  }

  /** Let the thread begin with what it has not been woken for. Call it before a long sleep. */
  wake(): void {
    if (this.#unheard === 0) return;
    this.#unheard = 0;
    this.#thread ??= this.#startThread();
    Atomics.notify(this.#state, SUBMITTED);
  }

  /** Close all of it now. False: there was nothing to close. */
  settle(): boolean {
    if (this.pending === 0) return false;
    this.#unheard = 0;
    closeClaimed(this.#state);
    for (;;) {
      const closed = Atomics.load(this.#state, CLOSED);
      if (closed === Atomics.load(this.#state, SUBMITTED)) return true;
      Atomics.wait(this.#state, CLOSED, closed);
    }
  }

  /** For tests: the thread ends. */
  async stop(): Promise<void> {
    await this.#thread?.terminate();
    this.#thread = undefined;
  }

  #startThread(): Worker {
    const thread = new Worker(programFile(new URL('./closer-thread.ts', import.meta.url)), {
      workerData: this.#state,
      // It runs one loop over one array.
      resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16, stackSizeMb: 1 },
    });
    // Without the thread all stays right: `submit` refuses when the ring is full, and `settle` closes.
    thread.on('error', () => undefined);
    thread.unref();
    return thread;
  }
}
