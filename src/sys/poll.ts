/** poll(2) and eventfd(2). */
import { Scratch } from './memory.ts';
import { interrupted, libc, orFail, outcome } from './native.ts';
import { tryRead, tryWrite } from './io.ts';

export const POLLIN = 0x1;
export const POLLOUT = 0x4;
export const POLLERR = 0x8;
export const POLLHUP = 0x10;
export const POLLNVAL = 0x20;

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

const pollCall = libc('int poll(uintptr_t set, uint64_t count, int timeout)');
const eventfdCall = libc('int eventfd(uint32_t value, int flags)');

/** A fixed set of descriptors to wait for, in memory that is made once. */
export class PollSet {
  readonly #count: number;
  /** struct pollfd: i32 fd, i16 events, i16 revents. */
  readonly #memory: Scratch;

  constructor(count: number) {
    this.#count = count;
    this.#memory = new Scratch(Math.max(1, count) * 8);
    for (let slot = 0; slot < count; slot++) this.#memory.i32[slot * 2] = -1;
  }

  /** Wait for `events` of `fd` in this slot; a negative descriptor is skipped. */
  set(slot: number, fd: number, events: number): void {
    this.#memory.i32[slot * 2] = fd;
    this.#memory.u16[slot * 4 + 2] = events;
  }

  /** What the last wait found in this slot. */
  revents(slot: number): number {
    return this.#memory.u16[slot * 4 + 3]!;
  }

  /** How many slots are ready; 0 after `timeoutMs` (-1: never) or a signal. */
  wait(timeoutMs: number): number {
    const result = outcome(pollCall(this.#memory.address, this.#count, timeoutMs));
    return interrupted(result) ? 0 : orFail(result);
  }
}

const counter = new Scratch(8);

/** A non-blocking eventfd of value 0. */
export function eventfd(): number {
  return orFail(outcome(eventfdCall(0, EFD_NONBLOCK | EFD_CLOEXEC)));
}

/** Add 1: whoever polls the descriptor wakes up. */
export function eventfdSignal(fd: number): void {
  counter.putU64(0, 1);
  orFail(tryWrite(fd, counter.address, 8));
}

/** The count since the last call, which becomes 0; or -errno (-EAGAIN: it is 0). */
export function tryEventfdDrain(fd: number): number {
  const result = tryRead(fd, counter.address, 8);
  return result < 0 ? result : counter.u64(0);
}
