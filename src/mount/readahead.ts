/**
 * Read-ahead of a mount: the kernel gives a FUSE mount the 128 KiB of a disk, and INIT may only lower
 * that. A request of 1 MiB costs little more than one of 128 KiB, so the first read of a big file is
 * several times faster with more. The setting is the mount's own and goes with it.
 */
import { writeFileSync } from 'node:fs';
import { decodeDevice } from '../abi/device.ts';

const READAHEAD_KIB = 1024;

/** Errors a user namespace and a read-only /sys give are no matter: then it is the kernel's default. */
const FORGIVEN = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOENT']);

/** `device` is st_dev of the mount's root. */
export function raiseReadahead(device: number): void {
  const { major, minor } = decodeDevice(device);
  try {
    writeFileSync(`/sys/class/bdi/${major}:${minor}/read_ahead_kb`, `${READAHEAD_KIB}\n`);
  } catch (error) {
    if (!FORGIVEN.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
