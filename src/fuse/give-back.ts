/**
 * Giving memory back after many inodes were forgotten.
 *
 * The kernel gives up what it knows in bursts: under memory pressure, after `rm -r`, on drop_caches. What
 * the engine held for those inodes is garbage then, and would stay so: V8 collects when more is
 * allocated, or in the event loop's idle time, and an engine without requests does neither.
 *
 * G1. Collected is only when no request waits, and none has come for GIVE_BACK_IDLE_MS.
 * G2. A collection takes time for what is alive and gains what is not: it is due when at least
 *     GIVE_BACK_NODES_MIN inodes were forgotten since the last one, and GIVE_BACK_RATIO times as many
 *     as are still known. So its pause is bounded by what was just forgotten, and a mount that only
 *     makes and removes files pays it once in so many.
 */
import { GIVE_BACK_IDLE_MS, GIVE_BACK_NODES_MIN, GIVE_BACK_RATIO } from './limits.ts';

/** The node table, as far as this needs it. */
export interface Forgetting {
  /** Inodes known. */
  readonly size: number;
  /** Inodes forgotten, ever. */
  readonly forgottenCount: number;
  /** Give own memory back that is free. */
  trim(): void;
}

export class GiveBack {
  readonly #nodes: Forgetting;
  readonly #collect: () => void;
  /** `forgottenCount` at the last collection. */
  #mark = 0;

  /** `collect` frees what is not reachable. */
  constructor(nodes: Forgetting, collect: () => void) {
    this.#nodes = nodes;
    this.#collect = collect;
  }

  get #due(): boolean {
    const forgotten = this.#nodes.forgottenCount - this.#mark;
    return forgotten >= GIVE_BACK_NODES_MIN && forgotten >= this.#nodes.size * GIVE_BACK_RATIO;
  }

  /** Milliseconds after which a wait for requests calls `rest`; -1: it need not. */
  get idleMs(): number {
    return this.#due ? GIVE_BACK_IDLE_MS : -1;
  }

  /** Nothing has come for that long. */
  rest(): void {
    if (!this.#due) return;
    this.#mark = this.#nodes.forgottenCount;
    this.#nodes.trim();
    this.#collect();
  }
}
