/** The clocks: the wall clock with nanoseconds, and one that never goes back. */
import { Scratch } from './memory.ts';
import { libc } from './native.ts';

const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;
const NSEC_PER_SEC = 1_000_000_000;

const clockGettimeCall = libc('int clock_gettime(int clock, uintptr_t time)');
/** struct timespec: i64 seconds, i64 nanoseconds. */
const time = new Scratch(16);

export interface Timestamp {
  sec: number;
  nsec: number;
}

/** The wall clock. */
export function now(): Timestamp {
  clockGettimeCall(CLOCK_REALTIME, time.address);
  return { sec: time.i64(0), nsec: time.u32[2]! };
}

/** Nanoseconds since the machine started: exact for the first 104 days. */
export function monotonicNs(): number {
  clockGettimeCall(CLOCK_MONOTONIC, time.address);
  return time.u64(0) * NSEC_PER_SEC + time.u32[2]!;
}
