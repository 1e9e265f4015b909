/**
 * INIT: what we ask the kernel for, and why.
 *
 * I1. A flag is set in the reply only if the kernel offered it.
 * I2. A kernel with another major version is answered with ours and asked again; one older than
 *     FUSE_MINOR_VERSION_MIN is refused (EPROTO).
 *
 * cf. fs/fuse/inode.c, process_init_reply()
 */
import { Errno } from '../abi/errno.ts';
import {
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_MINOR_VERSION_MIN,
  INIT_COMPAT_IN,
  INIT_IN,
  INIT_OUT,
  InitBit,
} from './abi.ts';
import {
  CONGESTION_THRESHOLD,
  MAX_BACKGROUND,
  MAX_PAGES,
  MAX_READAHEAD_BYTES,
  MAX_WRITE_BYTES,
} from './limits.ts';
import type { Request } from './request.ts';

/** Who owns the bytes of a file that is open. */
export type DataMode =
  | 'writeback' // The kernel: a write ends in the page cache and comes to us later.
  | 'writethrough' // We: each write is a request; the page cache serves reads.
  | 'passthrough'; // The branch file, which the kernel reads and writes without us.

type Choice =
  | 'always' // Wanted in every mode.
  | 'cached' // Wherever the page cache is ours: not with passthrough.
  | 'writeback' // Only in that mode.
  | 'passthrough' // Only in that mode.
  | 'never';

/** Every flag of the protocol, whether we want it, and the reason. */
export const INIT_CHOICES: Record<keyof typeof InitBit, [Choice, string]> = {
  ASYNC_READ: ['always', 'Reads of one file need no order: read-ahead goes out several at a time.'],
  POSIX_LOCKS: [
    'never',
    'One daemon, one machine: the kernel keeps locks itself, without requests.',
  ],
  FILE_OPS: ['never', 'Never implemented by any kernel.'],
  ATOMIC_O_TRUNC: ['never', 'OPEN does not come, so O_TRUNC must arrive as a SETATTR.'],
  EXPORT_SUPPORT: [
    'never',
    'A LOOKUP of `.` by node id would need nodes that outlive their FORGET.',
  ],
  BIG_WRITES: ['always', 'WRITE of more than one page.'],
  DONT_MASK: [
    'always',
    'The umask must not be applied where the parent has a default ACL; we see which.',
  ],
  SPLICE_WRITE: [
    'never',
    'We read and write memory, no pipes: these three only tell what the daemon may do.',
  ],
  SPLICE_MOVE: ['never', 'As SPLICE_WRITE.'],
  SPLICE_READ: ['never', 'As SPLICE_WRITE.'],
  FLOCK_LOCKS: ['never', 'As POSIX_LOCKS.'],
  HAS_IOCTL_DIR: ['always', 'lsattr and chattr of a directory.'],
  AUTO_INVAL_DATA: [
    'never',
    'Pages are dropped when a change beneath is noticed, not by guess from mtime.',
  ],
  DO_READDIRPLUS: [
    'always',
    'A listing that is followed by stats costs one request, not one an entry.',
  ],
  READDIRPLUS_AUTO: [
    'never',
    'Looks up only the first chunk of what find and rm read whole; serve-directory.ts decides itself.',
  ],
  ASYNC_DIO: ['always', 'Direct I/O larger than one request goes out in parallel.'],
  WRITEBACK_CACHE: ['writeback', 'Small writes end in the page cache; shared maps may be written.'],
  NO_OPEN_SUPPORT: [
    'cached',
    'OPEN is answered ENOSYS once: open and close cost no request after that.',
  ],
  PARALLEL_DIROPS: [
    'always',
    'Lookups and listings of one directory need not exclude each other here.',
  ],
  HANDLE_KILLPRIV: ['never', 'Superseded by HANDLE_KILLPRIV_V2, which says who may keep the bits.'],
  POSIX_ACL: ['always', 'The kernel checks ACLs with the permissions and asks us to keep them.'],
  ABORT_ERROR: [
    'always',
    'Tells an aborted connection (ECONNABORTED) from an unmounted one (ENODEV).',
  ],
  MAX_PAGES: ['always', 'Requests of 256 pages, not 32.'],
  CACHE_SYMLINKS: ['always', 'READLINK once; INVAL_INODE takes it back.'],
  NO_OPENDIR_SUPPORT: [
    'always',
    'As NO_OPEN_SUPPORT; the kernel then keeps whole listings itself.',
  ],
  EXPLICIT_INVAL_DATA: ['always', 'The other half of AUTO_INVAL_DATA: never drop pages unasked.'],
  MAP_ALIGNMENT: ['never', 'Only for DAX of virtiofs.'],
  SUBMOUNTS: ['never', 'One mount shows one filesystem, with one device number.'],
  HANDLE_KILLPRIV_V2: [
    'always',
    'Set-id bits and capabilities are taken away by us, without a GETXATTR a write.',
  ],
  SETXATTR_EXT: ['always', 'Says when setting an ACL must take the set-group-id bit away.'],
  INIT_EXT: ['always', 'Without it the upper 32 flags do not count.'],
  SECURITY_CTX: ['never', 'Labels of SELinux are not stored at creation.'],
  HAS_INODE_DAX: ['never', 'Only for DAX of virtiofs.'],
  CREATE_SUPP_GROUP: [
    'never',
    'Ownership needs uid, gid and the parent only; the kernel has checked permission.',
  ],
  HAS_EXPIRE_ONLY: [
    'always',
    'An entry can be made to be looked up again without tearing it down.',
  ],
  DIRECT_IO_ALLOW_MMAP: [
    'always',
    'A file opened with O_DIRECT here or there can still be mapped.',
  ],
  PASSTHROUGH: ['passthrough', 'Branch files of the upper are read and written by the kernel.'],
  NO_EXPORT_SUPPORT: ['never', 'File handles of cached nodes are useful as they are.'],
  HAS_RESEND: ['never', 'For daemons that take over a live connection.'],
  ALLOW_IDMAP: ['never', 'Ids in requests must be the real ones.'],
  OVER_IO_URING: ['never', 'Measured: no gain at one request in flight.'],
  REQUEST_TIMEOUT: ['never', 'A slow branch is slow, not broken.'],
};

/** Requests in flight are at most one page of headers larger than this. */
function chosenBits(mode: DataMode): { low: number; high: number } {
  let low = 0;
  let high = 0;
  for (const [flag, bit] of Object.entries(InitBit)) {
    const [choice] = INIT_CHOICES[flag as keyof typeof InitBit];
    const wanted =
      choice === 'always' || choice === mode || (choice === 'cached' && mode !== 'passthrough');
    if (!wanted) continue;
    if (bit < 32) low |= 1 << bit;
    else high |= 1 << (bit - 32);
  }
  return { low: low >>> 0, high: high >>> 0 };
}

/** What was agreed on. */
export interface Agreement {
  minor: number;
  flags: number;
  flags2: number;
}

export const agreedOn = (agreement: Agreement, bit: number): boolean =>
  bit < 32 ? (agreement.flags & (1 << bit)) !== 0 : (agreement.flags2 & (1 << (bit - 32))) !== 0;

/** Read INIT and write its reply. The agreement; undefined: the kernel will ask again; or -errno. */
export function negotiate(request: Request, mode: DataMode): Agreement | undefined | number {
  const major = request.u32(INIT_IN.at.major);
  const minor = request.u32(INIT_IN.at.minor);
  if (major < FUSE_KERNEL_VERSION) return -Errno.EPROTO;
  request.clear(0, INIT_OUT.bytes);
  request.put32(INIT_OUT.at.major, FUSE_KERNEL_VERSION);
  request.put32(INIT_OUT.at.minor, FUSE_KERNEL_MINOR_VERSION);
  request.replyBytes = INIT_OUT.bytes;
  if (major > FUSE_KERNEL_VERSION) return undefined;
  if (minor < FUSE_MINOR_VERSION_MIN) return -Errno.EPROTO;

  const offered = request.u32(INIT_IN.at.flags);
  const extended =
    (offered & (1 << InitBit.INIT_EXT)) !== 0 && request.bodyBytes > INIT_COMPAT_IN.bytes;
  const offered2 = extended ? request.u32(INIT_IN.at.flags2) : 0;
  const wanted = chosenBits(mode);
  const flags = (offered & wanted.low) >>> 0;
  const flags2 = (offered2 & wanted.high) >>> 0;
  request.put32(INIT_OUT.at.flags, flags);
  request.put32(INIT_OUT.at.flags2, flags2);
  const readahead = Math.min(request.u32(INIT_IN.at.maxReadahead), MAX_READAHEAD_BYTES);
  request.put32(INIT_OUT.at.maxReadahead, readahead);
  request.put16(INIT_OUT.at.maxBackground, MAX_BACKGROUND);
  request.put16(INIT_OUT.at.congestionThreshold, CONGESTION_THRESHOLD);
  request.put32(INIT_OUT.at.maxWrite, MAX_WRITE_BYTES);
  request.put32(INIT_OUT.at.timeGran, 1);
  request.put16(INIT_OUT.at.maxPages, MAX_PAGES);
  // Two levels: the mount may itself be a branch of another stacking filesystem.
  if (mode === 'passthrough') request.put32(INIT_OUT.at.maxStackDepth, 1);
  return { minor: Math.min(minor, FUSE_KERNEL_MINOR_VERSION), flags, flags2 };
}
