/** fstatfs(2), decoded into the StatFs record; the descriptor may be O_PATH. */
import type { StatFs } from '../abi/stat.ts';
import { Scratch } from './memory.ts';
import { libc, orFail, outcome } from './native.ts';

const STATFS_BYTES = 120;
const fstatfsCall = libc('int fstatfs(int fd, uintptr_t buffer)');
const record = new Scratch(STATFS_BYTES);

export function fstatfs(fd: number): StatFs {
  orFail(outcome(fstatfsCall(fd, record.address)));
  return {
    bsize: record.u64(2),
    frsize: record.u64(18),
    blocks: record.u64(4),
    bfree: record.u64(6),
    bavail: record.u64(8),
    files: record.u64(10),
    ffree: record.u64(12),
    namelen: record.u64(16),
  };
}

/** f_type: which filesystem it is, a magic number of linux/magic.h. */
export function filesystemType(fd: number): number {
  orFail(outcome(fstatfsCall(fd, record.address)));
  return record.u32[0]!;
}
