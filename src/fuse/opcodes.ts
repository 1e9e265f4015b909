/** The opcode table: what each request is called, how long its body is at least, and who serves it. */
import { Errno } from '../abi/errno.ts';
import type { Task } from '../kernel/task.ts';
import {
  ACCESS_IN,
  BATCH_FORGET_IN,
  BMAP_IN,
  COPY_FILE_RANGE_IN,
  CREATE_IN,
  FALLOCATE_IN,
  FLUSH_IN,
  FORGET_IN,
  FSYNC_IN,
  GETATTR_IN,
  GETXATTR_IN,
  INIT_COMPAT_IN,
  INTERRUPT_IN,
  IOCTL_IN,
  LINK_IN,
  LK_IN,
  LSEEK_IN,
  MKDIR_IN,
  MKNOD_IN,
  OPEN_IN,
  Opcode,
  POLL_IN,
  READ_IN,
  RELEASE_IN,
  RENAME2_IN,
  RENAME_IN,
  SETATTR_IN,
  SETXATTR_COMPAT_IN,
  STATX_IN,
  SYNCFS_IN,
  WRITE_IN,
} from './abi.ts';
import type { Door } from './door.ts';
import { negotiate } from './init.ts';
import type { Request } from './request.ts';
import * as attributes from './serve-attributes.ts';
import * as data from './serve-data.ts';
import * as directory from './serve-directory.ts';
import * as names from './serve-names.ts';

/** The error field of the reply: 0 or a negative errno; as a task, if it may have to wait. */
export type Handler = (door: Door, request: Request) => Task<number> | number;

export interface Operation {
  readonly name: string;
  /** Bytes of the body below which the request is malformed. */
  readonly bodyBytesMin: number;
  readonly serve: Handler;
  /** It changes the filesystem: EROFS where that is read-only. */
  readonly changes: boolean;
  /** The kernel waits for no reply. */
  readonly silent: boolean;
}

const notHere: Handler = () => -Errno.ENOSYS;
const done: Handler = () => 0;

function init(door: Door, request: Request): number {
  const agreement = negotiate(request, door.options.dataMode);
  if (typeof agreement === 'number') return agreement;
  door.agreement = agreement;
  return 0;
}

function destroy(door: Door): number {
  door.destroyed = true;
  return 0;
}

/**
 * INTERRUPT is answered ENOSYS once, and none comes again: a request that waits for a host call cannot
 * be called off, and one that does not is over before an INTERRUPT could be read. A killed process
 * whose request has not been read yet is let go by the kernel itself.
 */
const interrupt = notHere;

const reads = (name: string, bodyBytesMin: number, serve: Handler): Operation => ({
  name,
  bodyBytesMin,
  serve,
  changes: false,
  silent: false,
});
const changes = (name: string, bodyBytesMin: number, serve: Handler): Operation => ({
  name,
  bodyBytesMin,
  serve,
  changes: true,
  silent: false,
});
const silent = (name: string, bodyBytesMin: number, serve: Handler): Operation => ({
  name,
  bodyBytesMin,
  serve,
  changes: false,
  silent: true,
});

/** A name is at least one char and NUL. */
const NAME = 2;

/** By opcode; holes are opcodes that no kernel sends to us. */
export const OPERATIONS: readonly (Operation | undefined)[] = (() => {
  const table: (Operation | undefined)[] = [];
  table[Opcode.LOOKUP] = reads('LOOKUP', NAME, names.lookup);
  table[Opcode.FORGET] = silent('FORGET', FORGET_IN.bytes, names.forget);
  table[Opcode.GETATTR] = reads('GETATTR', GETATTR_IN.bytes, attributes.getattr);
  table[Opcode.SETATTR] = changes('SETATTR', SETATTR_IN.bytes, attributes.setattr);
  table[Opcode.READLINK] = reads('READLINK', 0, attributes.readlink);
  table[Opcode.SYMLINK] = changes('SYMLINK', NAME + NAME, names.symlink);
  table[Opcode.MKNOD] = changes('MKNOD', MKNOD_IN.bytes + NAME, names.mknod);
  table[Opcode.MKDIR] = changes('MKDIR', MKDIR_IN.bytes + NAME, names.mkdir);
  table[Opcode.UNLINK] = changes('UNLINK', NAME, names.unlink);
  table[Opcode.RMDIR] = changes('RMDIR', NAME, names.rmdir);
  table[Opcode.RENAME] = changes('RENAME', RENAME_IN.bytes + NAME + NAME, names.rename);
  table[Opcode.LINK] = changes('LINK', LINK_IN.bytes + NAME, names.link);
  table[Opcode.OPEN] = reads('OPEN', OPEN_IN.bytes, data.open);
  table[Opcode.READ] = reads('READ', READ_IN.bytes, data.read);
  table[Opcode.WRITE] = changes('WRITE', WRITE_IN.bytes, data.write);
  table[Opcode.STATFS] = reads('STATFS', 0, attributes.statfs);
  table[Opcode.RELEASE] = reads('RELEASE', RELEASE_IN.bytes, data.release);
  table[Opcode.FSYNC] = reads('FSYNC', FSYNC_IN.bytes, data.fsync);
  table[Opcode.SETXATTR] = changes(
    'SETXATTR',
    SETXATTR_COMPAT_IN.bytes + NAME,
    attributes.setxattr,
  );
  table[Opcode.GETXATTR] = reads('GETXATTR', GETXATTR_IN.bytes + NAME, attributes.getxattr);
  table[Opcode.LISTXATTR] = reads('LISTXATTR', GETXATTR_IN.bytes, attributes.listxattr);
  table[Opcode.REMOVEXATTR] = changes('REMOVEXATTR', NAME, attributes.removexattr);
  // The kernel has written the pages before it asks: there is nothing left to flush.
  table[Opcode.FLUSH] = reads('FLUSH', FLUSH_IN.bytes, notHere);
  table[Opcode.INIT] = reads('INIT', INIT_COMPAT_IN.bytes, init);
  table[Opcode.OPENDIR] = reads('OPENDIR', OPEN_IN.bytes, data.opendir);
  table[Opcode.READDIR] = reads('READDIR', READ_IN.bytes, directory.readdir);
  table[Opcode.RELEASEDIR] = reads('RELEASEDIR', RELEASE_IN.bytes, done);
  table[Opcode.FSYNCDIR] = reads('FSYNCDIR', FSYNC_IN.bytes, data.fsync);
  // Locks were not negotiated and access is the kernel's to judge: these come from nobody.
  table[Opcode.GETLK] = reads('GETLK', LK_IN.bytes, notHere);
  table[Opcode.SETLK] = reads('SETLK', LK_IN.bytes, notHere);
  table[Opcode.SETLKW] = reads('SETLKW', LK_IN.bytes, notHere);
  table[Opcode.ACCESS] = reads('ACCESS', ACCESS_IN.bytes, notHere);
  table[Opcode.CREATE] = changes('CREATE', CREATE_IN.bytes + NAME, names.create);
  table[Opcode.INTERRUPT] = reads('INTERRUPT', INTERRUPT_IN.bytes, interrupt);
  table[Opcode.BMAP] = reads('BMAP', BMAP_IN.bytes, notHere);
  table[Opcode.DESTROY] = reads('DESTROY', 0, destroy);
  table[Opcode.IOCTL] = reads('IOCTL', IOCTL_IN.bytes, attributes.ioctl);
  table[Opcode.POLL] = reads('POLL', POLL_IN.bytes, notHere);
  table[Opcode.NOTIFY_REPLY] = silent('NOTIFY_REPLY', 0, done);
  table[Opcode.BATCH_FORGET] = silent('BATCH_FORGET', BATCH_FORGET_IN.bytes, names.batchForget);
  table[Opcode.FALLOCATE] = changes('FALLOCATE', FALLOCATE_IN.bytes, data.fallocate);
  table[Opcode.READDIRPLUS] = reads('READDIRPLUS', READ_IN.bytes, directory.readdirplus);
  table[Opcode.RENAME2] = changes('RENAME2', RENAME2_IN.bytes + NAME + NAME, names.rename2);
  table[Opcode.LSEEK] = reads('LSEEK', LSEEK_IN.bytes, data.lseek);
  table[Opcode.COPY_FILE_RANGE] = changes(
    'COPY_FILE_RANGE',
    COPY_FILE_RANGE_IN.bytes,
    data.copyFileRange,
  );
  table[Opcode.SYNCFS] = reads('SYNCFS', SYNCFS_IN.bytes, data.syncfs);
  table[Opcode.TMPFILE] = changes('TMPFILE', CREATE_IN.bytes, names.tmpfile);
  table[Opcode.STATX] = reads('STATX', STATX_IN.bytes, attributes.statx);
  table[Opcode.COPY_FILE_RANGE_64] = changes(
    'COPY_FILE_RANGE_64',
    COPY_FILE_RANGE_IN.bytes,
    data.copyFileRange64,
  );
  return table;
})();

export const opcodeName = (opcode: number): string =>
  OPERATIONS[opcode]?.name ?? `opcode ${opcode}`;
