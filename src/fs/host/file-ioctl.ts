/** The ioctls that are about a file or directory itself: flags, version, project. */
import { Errno } from '../../abi/errno.ts';
import { S_IFDIR, S_IFREG } from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import {
  FS_IOC_FSGETXATTR,
  FS_IOC_FSSETXATTR,
  FS_IOC_GETFLAGS,
  FS_IOC_GETVERSION,
  FS_IOC_SETFLAGS,
  FS_IOC_SETVERSION,
  ioctl,
} from '../../sys/ioctl.ts';
import { tryClose } from '../../sys/open.ts';
import { dataFd } from './anchor.ts';
import { FdAccess } from './descriptor-cache.ts';
import { openListing } from './file-data.ts';
import type { HostInode } from './host-inode.ts';

/** Errors: ENOTTY no such command here; EROFS; what the host's filesystem answers. */
export function fileIoctl(
  inode: HostInode,
  command: number,
  input: Uint8Array,
  outputBytes: number,
): Uint8Array {
  const changes = changesFile(command);
  if (changes && inode.fs.readOnly) fail(Errno.EROFS);
  if (inode.type === S_IFREG) {
    return ioctl(dataFd(inode, FdAccess.Read), command, input, outputBytes);
  }
  if (inode.type !== S_IFDIR) fail(Errno.ENOTTY);
  const fd = openListing(inode);
  try {
    return ioctl(fd, command, input, outputBytes);
  } finally {
    tryClose(fd);
  }
}

/** Errors: ENOTTY. */
function changesFile(command: number): boolean {
  switch (command) {
    case FS_IOC_GETFLAGS:
    case FS_IOC_GETVERSION:
    case FS_IOC_FSGETXATTR:
      return false;
    case FS_IOC_SETFLAGS:
    case FS_IOC_SETVERSION:
    case FS_IOC_FSSETXATTR:
      return true;
    default:
      return fail(Errno.ENOTTY);
  }
}
