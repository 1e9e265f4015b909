/** getdents64(2): a whole directory from where the descriptor stands. */
import { Errno } from '../abi/errno.ts';
import { fail } from '../kernel/error.ts';
import { type Latin1Buffer, Scratch } from './memory.ts';
import { interrupted, libc, outcome } from './native.ts';

/** One entry as the kernel gave it; `name` one char per byte, `type` a DT_ value. */
export interface Dirent {
  name: string;
  ino: number;
  type: number;
}

/** Bytes a call: the kernel and we both work in one pass over some thousand entries. */
const BATCH_BYTES = 256 * 1024;
/** struct linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, name with NUL, padded to 8. */
const RECLEN_AT = 16;
const TYPE_AT = 18;
const NAME_AT = 19;

const getdentsCall = libc('int64_t getdents64(int fd, uintptr_t buffer, size_t length)');
const batch = new Scratch(BATCH_BYTES);

/** All entries up to the end but `.` and `..`. A directory removed meanwhile is empty. */
export function getdents64(fd: number): Dirent[] {
  const entries: Dirent[] = [];
  for (;;) {
    const length = outcome(getdentsCall(fd, batch.address, BATCH_BYTES));
    if (length > 0) decodeBatch(length, entries);
    else if (length === 0 || length === -Errno.ENOENT) return entries;
    else if (!interrupted(length)) fail(-length);
  }
}

function decodeBatch(length: number, entries: Dirent[]): void {
  const { buffer, u16 } = batch;
  for (let at = 0; at < length;) {
    const recordBytes = u16[(at + RECLEN_AT) >>> 1]!;
    const next = at + recordBytes;
    // Records are padded to 8 bytes: the NUL is among the last 8, and no name byte is zero.
    let end = Math.max(at + NAME_AT, next - 8);
    while (buffer[end] !== 0) end++;
    const start = at + NAME_AT;
    if (!isDotName(buffer, start, end)) {
      const ino = batch.identity(at >>> 2);
      entries.push({ name: buffer.latin1Slice(start, end), ino, type: buffer[at + TYPE_AT]! });
    }
    at = next;
  }
}

/** `.` or `..`. */
function isDotName(buffer: Latin1Buffer, start: number, end: number): boolean {
  if (buffer[start] !== 0x2e) return false;
  return end === start + 1 || (end === start + 2 && buffer[start + 1] === 0x2e);
}
