/**
 * How much the processors have to do: whether more threads want to run than there are processors.
 *
 * Told by the second last field of /proc/loadavg, `running/all`, which counts every thread that runs or
 * waits for a processor at that moment, ours among them. cf. proc_loadavg(5), fs/proc/loadavg.c
 */
import { availableParallelism } from 'node:os';
import { AT_FDCWD, O_RDONLY } from '../abi/fcntl.ts';
import { monotonicNs } from './clock.ts';
import { tryPread } from './io.ts';
import { Scratch } from './memory.ts';
import { tryOpenat } from './open.ts';

/** An answer is good for so long: asking costs as much as a poll(2), and threads come and go slowly. */
const FRESH_NS = 500_000;
const SPACE = 32;
const ZERO = 48;
const NINE = 57;
/** The averages of 1, 5 and 15 minutes come before. */
const FIELDS_BEFORE = 3;
const LINE_BYTES = 64;

/** The running threads of a line of /proc/loadavg; 0 if it is not such a line. */
export function runningThreads(line: Uint8Array): number {
  let at = 0;
  for (let field = 0; field < FIELDS_BEFORE; field++) {
    at = line.indexOf(SPACE, at) + 1;
    if (at === 0) return 0;
  }
  let running = 0;
  for (; line[at]! >= ZERO && line[at]! <= NINE; at++) running = running * 10 + line[at]! - ZERO;
  return running;
}

export class ProcessorLoad {
  readonly #processors = availableParallelism();
  readonly #line = new Scratch(LINE_BYTES);
  /** Of /proc/loadavg, or -errno: then nothing is ever crowded. */
  readonly #fd = tryOpenat(AT_FDCWD, '/proc/loadavg', O_RDONLY);
  #askedNs = -Infinity;
  #crowded = false;

  /** Someone waits for a processor, or did half a millisecond ago. */
  get crowded(): boolean {
    if (this.#fd < 0) return false;
    const now = monotonicNs();
    if (now - this.#askedNs < FRESH_NS) return this.#crowded;
    this.#askedNs = now;
    const bytes = tryPread(this.#fd, this.#line.address, LINE_BYTES, 0);
    const line = this.#line.bytes.subarray(0, Math.max(bytes, 0));
    this.#crowded = runningThreads(line) > this.#processors;
    return this.#crowded;
  }
}
