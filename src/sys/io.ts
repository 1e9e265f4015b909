/**
 * Data of open files: pread, pwrite, preadv2, ftruncate, fallocate, lseek, copy_file_range, FICLONE,
 * fsync, fdatasync, syncfs, sync_file_range.
 *
 * Memory is given as an address (memory.ts, addressOf); it must stay reachable during the call. The
 * functions named `...Wait` are tasks for calls that may take long (host-call.ts).
 */
import type { Task } from '../kernel/task.ts';
import { hostCall } from './host-call.ts';
import { Scratch } from './memory.ts';
import { libc, outcome } from './native.ts';

/** preadv2(2): fail with EAGAIN instead of waiting for storage. */
export const RWF_NOWAIT = 0x08;

const FICLONE = 0x4004_9409;
const SYNC_FILE_RANGE_WAIT_BEFORE = 1;

const preadCall = libc('int64_t pread(int fd, uintptr_t buffer, size_t length, int64_t position)');
const pwriteCall = libc(
  'int64_t pwrite(int fd, uintptr_t buffer, size_t length, int64_t position)',
);
const preadv2Call = libc(
  'int64_t preadv2(int fd, uintptr_t vectors, int count, int64_t position, int flags)',
);
const readCall = libc('int64_t read(int fd, uintptr_t buffer, size_t length)');
const writeCall = libc('int64_t write(int fd, uintptr_t buffer, size_t length)');
const writevCall = libc('int64_t writev(int fd, uintptr_t vectors, int count)');
const ftruncateCall = libc('int ftruncate(int fd, int64_t length)');
const fallocateCall = libc('int fallocate(int fd, int mode, int64_t position, int64_t length)');
const lseekCall = libc('int64_t lseek(int fd, int64_t offset, int whence)');
const copyFileRangeCall = libc(
  'int64_t copy_file_range(int from, uintptr_t fromAt, int to, uintptr_t toAt, size_t length, uint32_t flags)',
);
const fsyncCall = libc('int fsync(int fd)');
const fdatasyncCall = libc('int fdatasync(int fd)');
const syncfsCall = libc('int syncfs(int fd)');
const syncFileRangeCall = libc(
  'int sync_file_range(int fd, int64_t position, int64_t length, uint32_t flags)',
);
const ioctlNumberCall = libc('int ioctl(int fd, uint64_t request, int64_t argument)');

/** struct iovec: address, length. */
const vector = new Scratch(16);
/** The two positions of copy_file_range. */
const positions = new Scratch(16);

/** Bytes read, 0 at the end, or -errno. */
export function tryPread(fd: number, address: number, length: number, position: number): number {
  return outcome(preadCall(fd, address, length, position));
}

/** Bytes written, or -errno. */
export function tryPwrite(fd: number, address: number, length: number, position: number): number {
  return outcome(pwriteCall(fd, address, length, position));
}

/** What is in the page cache: bytes read, or -EAGAIN if reading would wait, or -errno. */
export function tryPreadNowait(
  fd: number,
  address: number,
  length: number,
  position: number,
): number {
  vector.putU64(0, address);
  vector.putU64(2, length);
  return outcome(preadv2Call(fd, vector.address, 1, position, RWF_NOWAIT));
}

/** read(2) by address: bytes or -errno. */
export function tryRead(fd: number, address: number, length: number): number {
  return outcome(readCall(fd, address, length));
}

/** write(2) by address: bytes or -errno. */
export function tryWrite(fd: number, address: number, length: number): number {
  return outcome(writeCall(fd, address, length));
}

/** writev(2): `vectors` is the address of `count` pairs of address and length, 8 bytes each. */
export function tryWritev(fd: number, vectors: number, count: number): number {
  return outcome(writevCall(fd, vectors, count));
}

export function tryFtruncate(fd: number, length: number): number {
  return outcome(ftruncateCall(fd, length));
}

/** fallocate(2); `mode` is a set of FALLOC_FL_. */
export function tryFallocate(fd: number, mode: number, position: number, length: number): number {
  return outcome(fallocateCall(fd, mode, position, length));
}

/** The position, or -errno. */
export function tryLseek(fd: number, offset: number, whence: number): number {
  return outcome(lseekCall(fd, offset, whence));
}

export interface CopyRange {
  from: number;
  fromPosition: number;
  to: number;
  toPosition: number;
  length: number;
}

/** Bytes copied, fewer than asked at the end of the source or whenever the host likes; or -errno. */
export function tryCopyFileRange(copy: CopyRange): number {
  return outcome(copyFileRangeCall(...copyArguments(copy, positions)));
}

/** The same on a thread where need be. */
export function copyFileRangeWait(copy: CopyRange): Task<number> {
  const own = new Scratch(16);
  return hostCall('copy_file_range', copyFileRangeCall, copyArguments(copy, own), own);
}

type CopyArguments = [number, number, number, number, number, number];

function copyArguments(copy: CopyRange, at: Scratch): CopyArguments {
  at.putU64(0, copy.fromPosition);
  at.putU64(2, copy.toPosition);
  return [copy.from, at.address, copy.to, at.address + 8, copy.length, 0];
}

/** ioctl FICLONE: the target shares all blocks of the source. 0 or -errno. */
export function tryFiclone(target: number, source: number): number {
  return outcome(ioctlNumberCall(target, FICLONE, source));
}

/** pread that may wait for storage. `keep` owns the memory. Bytes or -errno. */
export function preadWait(
  fd: number,
  address: number,
  length: number,
  position: number,
  keep: unknown,
): Task<number> {
  return hostCall('pread', preadCall, [fd, address, length, position], keep);
}

/** pwrite on a thread where need be. `keep` owns the memory. Bytes or -errno. */
export function pwriteWait(
  fd: number,
  address: number,
  length: number,
  position: number,
  keep: unknown,
): Task<number> {
  return hostCall('pwrite', pwriteCall, [fd, address, length, position], keep);
}

export function fsyncWait(fd: number): Task<number> {
  return hostCall('fsync', fsyncCall, [fd]);
}

export function fdatasyncWait(fd: number): Task<number> {
  return hostCall('fdatasync', fdatasyncCall, [fd]);
}

export function syncfsWait(fd: number): Task<number> {
  return hostCall('syncfs', syncfsCall, [fd]);
}

/** fsync(2) on the spot. 0 or -errno. */
export const tryFsync = (fd: number): number => outcome(fsyncCall(fd));

/** fdatasync(2) on the spot. 0 or -errno. */
export const tryFdatasync = (fd: number): number => outcome(fdatasyncCall(fd));

/** sync_file_range(2), which only waits for what is being written already. 0, or -errno of a failed write. */
export function tryWaitForRange(fd: number, position: number, length: number): number {
  return outcome(syncFileRangeCall(fd, position, length, SYNC_FILE_RANGE_WAIT_BEFORE));
}
