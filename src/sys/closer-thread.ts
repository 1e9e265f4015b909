/** The thread of closer.ts: closes what is submitted, and sleeps when that is nothing. */
import { workerData } from 'node:worker_threads';
import { CLAIMED, closeClaimed, SUBMITTED } from './closer.ts';

const state = workerData as Int32Array;
for (;;) {
  closeClaimed(state);
  // Asleep only if nothing has come since: the value compared is the one that was all claimed.
  Atomics.wait(state, SUBMITTED, Atomics.load(state, CLAIMED));
}
