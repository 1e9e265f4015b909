/** What serving /dev/fuse needs beside read and write: blocking or not, and to wait without blocking. */
import type { Task } from '../kernel/task.ts';
import { hostCall } from './host-call.ts';
import { addressOf, Scratch } from './memory.ts';
import { libc, orFail, outcome } from './native.ts';
import { POLLIN } from './poll.ts';

const FIONBIO = 0x5421;

const ioctlCall = libc('int ioctl(int fd, uint64_t request, uintptr_t argument)');
const pollCall = libc('int poll(uintptr_t set, uint64_t count, int timeout)');
const flag = new Scratch(8);

/** Set or clear O_NONBLOCK of the open file that a descriptor means. */
export function setNonblocking(fd: number, on: boolean): void {
  flag.u32[0] = on ? 1 : 0;
  orFail(outcome(ioctlCall(fd, FIONBIO, flag.address)));
}

/** Wait until one of the descriptors can be read or has an error. How many, or -errno. */
export function pollReadable(fds: readonly number[]): Task<number> {
  // Memory of its own: the wait may lie on another thread while the same is asked for again.
  const set = new Scratch(fds.length * 8);
  fds.forEach((fd, slot) => {
    set.i32[slot * 2] = fd;
    set.u16[slot * 4 + 2] = POLLIN;
  });
  return hostCall('poll', pollCall, [set.address, fds.length, -1], set);
}

const writeCall = libc('int64_t write(int fd, uintptr_t buffer, size_t length)');

/** write(2) of a whole record on another thread. Bytes written, or -errno. */
export function writeRecord(fd: number, record: Uint8Array): Task<number> {
  return hostCall('write', writeCall, [fd, addressOf(record), record.length], record);
}

const FUSE_DEV_IOC_BACKING_OPEN = 0x4010_e501;
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004_e502;
/** struct fuse_backing_map: s32 fd, u32 flags, u64 padding. */
const backingMap = new Scratch(16);

/**
 * Have the kernel know the file of a descriptor as the backing of files of this mount. It reads and
 * writes that file with the rights of this thread at this moment. A backing id above 0, or -errno.
 */
export function tryBackingOpen(fuseFd: number, fd: number): number {
  backingMap.buffer.fill(0);
  backingMap.i32[0] = fd;
  return outcome(ioctlCall(fuseFd, FUSE_DEV_IOC_BACKING_OPEN, backingMap.address));
}

/** The end of a backing id; files open with it stay as they are. 0 or -errno. */
export function tryBackingClose(fuseFd: number, backingId: number): number {
  backingMap.u32[0] = backingId;
  return outcome(ioctlCall(fuseFd, FUSE_DEV_IOC_BACKING_CLOSE, backingMap.address));
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;

const socketpairCall = libc(
  'int socketpair(int domain, int type, int protocol, uintptr_t sockets)',
);

/** Two unix stream sockets, connected; not close-on-exec, for one goes to a child. */
export function socketPair(): [number, number] {
  const pair = new Scratch(8);
  orFail(outcome(socketpairCall(AF_UNIX, SOCK_STREAM, 0, pair.address)));
  return [pair.i32[0]!, pair.i32[1]!];
}
