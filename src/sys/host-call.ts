/**
 * A host call that may take long, as a Wait: the sync driver makes it on the spot, the async driver
 * on a thread of libuv's pool.
 *
 * H1. Arguments are numbers; what they point at is named in `keep` and so lives until the end.
 * H2. The caller keeps descriptors among the arguments open until the wait is over.
 * H3. `result` is the call's result or -errno, read after the yield.
 * H4. At most IN_FLIGHT_MAX calls are with the pool; later ones wait for their turn, first come first
 *     served. koffi throws if it is given too many, and the pool has few threads anyway.
 */
import type { Task, Wait } from '../kernel/task.ts';
import { errno, interrupted, type NativeFunction, outcome } from './native.ts';

/** Calls handed to the pool at once: some for each of its threads (4 by default), none too many. */
const IN_FLIGHT_MAX = 64;

/** Of this thread: how many calls are with the pool, and what starts the next ones. */
let inFlightCount = 0;
const turns: (() => void)[] = [];

/** A call is over: whoever waits longest is next. */
function passTurn(): void {
  const next = turns.shift();
  if (next === undefined) inFlightCount--;
  else next();
}

export class HostCall implements Wait {
  readonly what: string;
  /** The call's result, or -errno. Meaningful once the wait is over. */
  result = 0;
  readonly #call: NativeFunction;
  readonly #args: readonly number[];
  /** Only held. */
  readonly keep: unknown;

  constructor(what: string, call: NativeFunction, args: readonly number[], keep?: unknown) {
    this.what = what;
    this.#call = call;
    this.#args = args;
    this.keep = keep;
  }

  block(): boolean {
    this.result = outcome(this.#call(...this.#args));
    return true;
  }

  park(resume: () => void): void {
    if (inFlightCount >= IN_FLIGHT_MAX) {
      turns.push(() => this.#submit(resume));
      return;
    }
    inFlightCount++;
    this.#submit(resume);
  }

  #submit(resume: () => void): void {
    this.#call.async(...this.#args, (error: unknown, result: number) => {
      // At once: errno is this call's only until the next call.
      this.result = result < 0 ? -errno() : result;
      passTurn();
      // Not of the host: koffi could not make the call.
      if (error !== null && error !== undefined) throw error;
      resume();
    });
  }
}

/** Make a call that may take long, again if a signal interrupts it. Its result, or -errno. */
export function* hostCall(
  what: string,
  call: NativeFunction,
  args: readonly number[],
  keep?: unknown,
): Task<number> {
  for (;;) {
    const wait = new HostCall(what, call, args, keep);
    yield wait;
    if (!interrupted(wait.result)) return wait.result;
  }
}
