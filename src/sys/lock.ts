/** flock(2): advisory locks of an open file description, also of a directory. */
import { libc, outcome } from './native.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

const flockCall = libc('int flock(int fd, int operation)');

/** Take the exclusive lock, without waiting: 0, or -errno (-EWOULDBLOCK: another has it). */
export function tryFlockExclusive(fd: number): number {
  return outcome(flockCall(fd, LOCK_EX | LOCK_NB));
}
