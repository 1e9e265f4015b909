/**
 * The C library, bound once a thread: the only file that imports koffi.
 *
 * N1. Addresses go in as numbers (`uintptr_t`): 100 ns cheaper than handing koffi a Buffer.
 * N2. A wrapper of this room returns what the call returned. Its plain form throws `fail(errno)`, its
 *     `try` form returns -errno, for callers who expect a miss: a throw costs more than the call.
 * N3. Nothing here decides: no retries but EINTR where nothing was done yet, no fallbacks but those
 *     for a kernel without the newer form of the same call.
 * N4. Variadic C functions are bound with fixed integer arguments: the x86-64 and the arm64 Linux
 *     calling conventions pass those alike.
 */
import koffi from 'koffi';
import { Errno } from '../abi/errno.ts';
import { fail } from '../kernel/error.ts';

/** A bound C function of integers. Results beyond 2^53 do not occur in the calls we bind. */
export interface NativeFunction {
  (...args: number[]): number;
  /** The same on a thread of libuv's pool; `errno()` is right inside the callback. */
  async(...args: unknown[]): void;
}

const library = koffi.load('libc.so.6');

/** Bind a function of the C library. Throws if the library has it not. */
export function libc(prototype: string): NativeFunction {
  return library.func(prototype) as unknown as NativeFunction;
}

/** errno of the last call that failed on this thread. */
export const errno = (): number => koffi.errno();

/** The address of memory that is not on V8's heap. */
export const rawAddress = (view: Uint8Array): number => Number(koffi.address(view));

const syscall7 = libc(
  'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)',
);

/** syscall(2), for what the C library does not wrap. -errno if it failed. */
export function trySyscall(number: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number {
  return outcome(syscall7(number, a, b, c, d, e, f));
}

/** What a C call returned, with -1 turned into -errno. */
export function outcome(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

/** The throwing form of an outcome. */
export function orFail(result: number): number {
  if (result < 0) fail(-result);
  return result;
}

/** True once for a call that a signal interrupted before it did anything. */
export const interrupted = (result: number): boolean => result === -Errno.EINTR;
