/**
 * The FUSE protocol, version 7.45, as data: opcodes, flags, and the layout of every record.
 *
 * A *record* is a table from field name to width; `record()` turns it into offsets and the size. Sizes
 * are asserted when this file loads, so that a slip in a table stops the program and not a mount.
 * Records lie in one arena at a fixed place: a request's body begins at IN_HEADER.bytes, a reply's at
 * OUT_HEADER.bytes. Decoding reads at constant offsets, without making an object.
 *
 * Left out: CUSE, DAX mappings, io_uring, retrieve and store. cf. include/uapi/linux/fuse.h
 */
import { assert } from '../lib/assert.ts';

export const FUSE_KERNEL_VERSION = 7;
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** Below this, INIT has no time_gran and no extended replies: Linux 3.15 of 2014. */
export const FUSE_MINOR_VERSION_MIN = 23;
export const FUSE_ROOT_ID = 1;
/** Room the kernel asks for in a read(2) beside max_write: headers, in whole pages. */
export const FUSE_HEADER_ROOM = 4096;
export const FUSE_MIN_READ_BUFFER = 8192;

/** Field widths in bytes. */
const u16 = 2;
const u32 = 4;
const u64 = 8;

export interface Layout<Field extends string> {
  /** Bytes from the start of the record. */
  readonly at: Readonly<Record<Field, number>>;
  readonly bytes: number;
}

function record<Field extends string>(fields: Record<Field, number>, bytes: number): Layout<Field> {
  const at = {} as Record<Field, number>;
  let offset = 0;
  for (const [field, width] of Object.entries<number>(fields)) {
    // Wider entries (arrays, embedded records) need no alignment of their own: they end on 4 or 8.
    if (width <= 8) assert(offset % width === 0, `field ${field} is aligned`);
    at[field as Field] = offset;
    offset += width;
  }
  assert(offset === bytes, `record of ${bytes} bytes has ${offset}`);
  return { at, bytes };
}

export const IN_HEADER = record(
  {
    len: u32,
    opcode: u32,
    unique: u64,
    nodeid: u64,
    uid: u32,
    gid: u32,
    pid: u32,
    totalExtlen: u16,
    padding: u16,
  },
  40,
);
export const OUT_HEADER = record({ len: u32, error: u32, unique: u64 }, 16);

export const ATTR = record(
  {
    ino: u64,
    size: u64,
    blocks: u64,
    atime: u64,
    mtime: u64,
    ctime: u64,
    atimensec: u32,
    mtimensec: u32,
    ctimensec: u32,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    blksize: u32,
    flags: u32,
  },
  88,
);
export const ENTRY_OUT = record(
  {
    nodeid: u64,
    generation: u64,
    entryValid: u64,
    attrValid: u64,
    entryValidNsec: u32,
    attrValidNsec: u32,
    attr: ATTR.bytes,
  },
  128,
);
export const ATTR_OUT = record(
  { attrValid: u64, attrValidNsec: u32, dummy: u32, attr: ATTR.bytes },
  104,
);
export const OPEN_OUT = record({ fh: u64, openFlags: u32, backingId: u32 }, 16);
export const WRITE_OUT = record({ size: u32, padding: u32 }, 8);
export const STATFS_OUT = record(
  {
    blocks: u64,
    bfree: u64,
    bavail: u64,
    files: u64,
    ffree: u64,
    bsize: u32,
    namelen: u32,
    frsize: u32,
    padding: u32,
    spare: 24,
  },
  80,
);
export const GETXATTR_OUT = record({ size: u32, padding: u32 }, 8);
export const INIT_OUT = record(
  {
    major: u32,
    minor: u32,
    maxReadahead: u32,
    flags: u32,
    maxBackground: u16,
    congestionThreshold: u16,
    maxWrite: u32,
    timeGran: u32,
    maxPages: u16,
    mapAlignment: u16,
    flags2: u32,
    maxStackDepth: u32,
    requestTimeout: u16,
    unused: 22,
  },
  64,
);
export const IOCTL_OUT = record({ result: u32, flags: u32, inIovs: u32, outIovs: u32 }, 16);
export const LSEEK_OUT = record({ offset: u64 }, 8);
export const COPY_FILE_RANGE_OUT = record({ bytesCopied: u64 }, 8);
export const SX_TIME = record({ sec: u64, nsec: u32, reserved: u32 }, 16);
export const STATX = record(
  {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    spare0: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributesMask: u64,
    atime: SX_TIME.bytes,
    btime: SX_TIME.bytes,
    ctime: SX_TIME.bytes,
    mtime: SX_TIME.bytes,
    rdevMajor: u32,
    rdevMinor: u32,
    devMajor: u32,
    devMinor: u32,
    spare2: 112,
  },
  256,
);
export const STATX_OUT = record(
  { attrValid: u64, attrValidNsec: u32, flags: u32, spare: 16, stat: STATX.bytes },
  288,
);
export const DIRENT = record({ ino: u64, off: u64, namelen: u32, type: u32 }, 24);
export const DIRENTPLUS = record({ entry: ENTRY_OUT.bytes, dirent: DIRENT.bytes }, 152);

export const FORGET_IN = record({ nlookup: u64 }, 8);
export const FORGET_ONE = record({ nodeid: u64, nlookup: u64 }, 16);
export const BATCH_FORGET_IN = record({ count: u32, dummy: u32 }, 8);
export const GETATTR_IN = record({ getattrFlags: u32, dummy: u32, fh: u64 }, 16);
export const STATX_IN = record(
  { getattrFlags: u32, reserved: u32, fh: u64, sxFlags: u32, sxMask: u32 },
  24,
);
export const MKNOD_IN = record({ mode: u32, rdev: u32, umask: u32, padding: u32 }, 16);
export const MKDIR_IN = record({ mode: u32, umask: u32 }, 8);
export const RENAME_IN = record({ newdir: u64 }, 8);
export const RENAME2_IN = record({ newdir: u64, flags: u32, padding: u32 }, 16);
export const LINK_IN = record({ oldnodeid: u64 }, 8);
export const SETATTR_IN = record(
  {
    valid: u32,
    padding: u32,
    fh: u64,
    size: u64,
    lockOwner: u64,
    atime: u64,
    mtime: u64,
    ctime: u64,
    atimensec: u32,
    mtimensec: u32,
    ctimensec: u32,
    mode: u32,
    unused4: u32,
    uid: u32,
    gid: u32,
    unused5: u32,
  },
  88,
);
export const OPEN_IN = record({ flags: u32, openFlags: u32 }, 8);
export const CREATE_IN = record({ flags: u32, mode: u32, umask: u32, openFlags: u32 }, 16);
export const RELEASE_IN = record({ fh: u64, flags: u32, releaseFlags: u32, lockOwner: u64 }, 24);
export const FLUSH_IN = record({ fh: u64, unused: u32, padding: u32, lockOwner: u64 }, 24);
export const READ_IN = record(
  { fh: u64, offset: u64, size: u32, readFlags: u32, lockOwner: u64, flags: u32, padding: u32 },
  40,
);
export const WRITE_IN = record(
  { fh: u64, offset: u64, size: u32, writeFlags: u32, lockOwner: u64, flags: u32, padding: u32 },
  40,
);
export const FSYNC_IN = record({ fh: u64, fsyncFlags: u32, padding: u32 }, 16);
/** What comes without FUSE_SETXATTR_EXT. */
export const SETXATTR_COMPAT_IN = record({ size: u32, flags: u32 }, 8);
export const SETXATTR_IN = record({ size: u32, flags: u32, setxattrFlags: u32, padding: u32 }, 16);
export const GETXATTR_IN = record({ size: u32, padding: u32 }, 8);
/** What every kernel sends; FUSE_INIT_EXT says that flags2 follows. */
export const INIT_COMPAT_IN = record({ major: u32, minor: u32, maxReadahead: u32, flags: u32 }, 16);
export const INIT_IN = record(
  { major: u32, minor: u32, maxReadahead: u32, flags: u32, flags2: u32, unused: 44 },
  64,
);
export const INTERRUPT_IN = record({ unique: u64 }, 8);
export const BMAP_IN = record({ block: u64, blocksize: u32, padding: u32 }, 16);
export const IOCTL_IN = record(
  { fh: u64, flags: u32, cmd: u32, arg: u64, inSize: u32, outSize: u32 },
  32,
);
export const POLL_IN = record({ fh: u64, kh: u64, flags: u32, events: u32 }, 24);
export const FALLOCATE_IN = record(
  { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 },
  32,
);
export const LSEEK_IN = record({ fh: u64, offset: u64, whence: u32, padding: u32 }, 24);
export const COPY_FILE_RANGE_IN = record(
  { fhIn: u64, offIn: u64, nodeidOut: u64, fhOut: u64, offOut: u64, len: u64, flags: u64 },
  56,
);
export const SYNCFS_IN = record({ padding: u64 }, 8);
export const ACCESS_IN = record({ mask: u32, padding: u32 }, 8);
export const LK_IN = record({ fh: u64, owner: u64, lk: 24, lkFlags: u32, padding: u32 }, 48);

export const NOTIFY_INVAL_INODE_OUT = record({ ino: u64, off: u64, len: u64 }, 24);
export const NOTIFY_INVAL_ENTRY_OUT = record({ parent: u64, namelen: u32, flags: u32 }, 16);
export const NOTIFY_DELETE_OUT = record(
  { parent: u64, child: u64, namelen: u32, padding: u32 },
  24,
);

export const NotifyCode = {
  POLL: 1,
  INVAL_INODE: 2,
  INVAL_ENTRY: 3,
  STORE: 4,
  RETRIEVE: 5,
  DELETE: 6,
} as const;
/** In NOTIFY_INVAL_ENTRY: let the entry run out, but keep what is open or mounted below it. */
export const FUSE_EXPIRE_ONLY = 1;

export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_FH = 1 << 6;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;
export const FATTR_LOCKOWNER = 1 << 9;
export const FATTR_CTIME = 1 << 10;
export const FATTR_KILL_SUIDGID = 1 << 11;

export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_CACHE_DIR = 1 << 3;
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PASSTHROUGH = 1 << 7;

export const FUSE_OPEN_KILL_SUIDGID = 1 << 0;
export const FUSE_WRITE_CACHE = 1 << 0;
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2;
export const FUSE_FSYNC_FDATASYNC = 1 << 0;
export const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0;
export const FUSE_IOCTL_COMPAT = 1 << 0;
export const FUSE_IOCTL_UNRESTRICTED = 1 << 1;
export const FUSE_IOCTL_DIR = 1 << 4;

/** Bit numbers of the INIT flags; 32 and above are in `flags2`. */
export const InitBit = {
  ASYNC_READ: 0,
  POSIX_LOCKS: 1,
  FILE_OPS: 2,
  ATOMIC_O_TRUNC: 3,
  EXPORT_SUPPORT: 4,
  BIG_WRITES: 5,
  DONT_MASK: 6,
  SPLICE_WRITE: 7,
  SPLICE_MOVE: 8,
  SPLICE_READ: 9,
  FLOCK_LOCKS: 10,
  HAS_IOCTL_DIR: 11,
  AUTO_INVAL_DATA: 12,
  DO_READDIRPLUS: 13,
  READDIRPLUS_AUTO: 14,
  ASYNC_DIO: 15,
  WRITEBACK_CACHE: 16,
  NO_OPEN_SUPPORT: 17,
  PARALLEL_DIROPS: 18,
  HANDLE_KILLPRIV: 19,
  POSIX_ACL: 20,
  ABORT_ERROR: 21,
  MAX_PAGES: 22,
  CACHE_SYMLINKS: 23,
  NO_OPENDIR_SUPPORT: 24,
  EXPLICIT_INVAL_DATA: 25,
  MAP_ALIGNMENT: 26,
  SUBMOUNTS: 27,
  HANDLE_KILLPRIV_V2: 28,
  SETXATTR_EXT: 29,
  INIT_EXT: 30,
  SECURITY_CTX: 32,
  HAS_INODE_DAX: 33,
  CREATE_SUPP_GROUP: 34,
  HAS_EXPIRE_ONLY: 35,
  DIRECT_IO_ALLOW_MMAP: 36,
  PASSTHROUGH: 37,
  NO_EXPORT_SUPPORT: 38,
  HAS_RESEND: 39,
  ALLOW_IDMAP: 40,
  OVER_IO_URING: 41,
  REQUEST_TIMEOUT: 42,
} as const;

/** statx(2) mask bits that a reply to STATX may set. */
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;
