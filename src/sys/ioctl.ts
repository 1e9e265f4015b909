/** ioctl(2) with a record, and the ones that name a filesystem. */
import { Errno } from '../abi/errno.ts';
import { fail } from '../kernel/error.ts';
import { addressOf, Scratch } from './memory.ts';
import { libc, outcome } from './native.ts';

export const FS_IOC_GETFLAGS = 0x8008_6601;
export const FS_IOC_SETFLAGS = 0x4008_6602;
export const FS_IOC_GETVERSION = 0x8008_7601;
export const FS_IOC_SETVERSION = 0x4008_7602;
export const FS_IOC_FSGETXATTR = 0x801c_581f;
export const FS_IOC_FSSETXATTR = 0x401c_5820;
const FS_IOC_GETFSUUID = 0x8011_1500;

const ioctlCall = libc('int ioctl(int fd, uint64_t request, uintptr_t argument)');
const record = new Scratch(4096);

/** ioctl(2) on a record of up to 4096 bytes that is read and written in place. Result or -errno. */
export function tryIoctl(fd: number, request: number, memory: Uint8Array): number {
  return outcome(ioctlCall(fd, request, addressOf(memory)));
}

/** ioctl(2) whose argument is a number, not an address. Result or -errno. */
export function tryIoctlNumber(fd: number, request: number, argument: number): number {
  return outcome(ioctlCall(fd, request, argument));
}

/** ioctl(2): `input` goes in, `outputBytes` come out. */
export function ioctl(
  fd: number,
  request: number,
  input: Uint8Array,
  outputBytes: number,
): Uint8Array {
  if (Math.max(input.length, outputBytes) > record.byteCount) fail(Errno.EINVAL);
  record.buffer.fill(0, 0, Math.max(input.length, outputBytes));
  record.buffer.set(input);
  const result = outcome(ioctlCall(fd, request, record.address));
  if (result < 0) fail(-result);
  return record.copy(0, outputBytes);
}

/**
 * The UUID of a filesystem, 16 bytes, or undefined where it has none or the kernel does not tell
 * (before Linux 6.9). The descriptor may not be O_PATH.
 */
export function filesystemUuid(fd: number): Uint8Array | undefined {
  // struct fsuuid2: u8 length, u8 uuid[16].
  record.buffer.fill(0, 0, 17);
  const result = outcome(ioctlCall(fd, FS_IOC_GETFSUUID, record.address));
  if (result < 0 || record.buffer[0] !== 16) return undefined;
  return record.copy(1, 17);
}
