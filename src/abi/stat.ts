/** What statx(2) tells of an inode. Times are whole seconds (may be negative) plus nanoseconds. */
export interface Stat {
  /** Exact up to 2^53; larger numbers are folded by sys (see sys/statx.ts). */
  ino: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** Bytes. */
  size: number;
  /** 512-byte units. */
  blocks: number;
  /** Bytes: preferred I/O size. */
  blksize: number;
  rdevMajor: number;
  rdevMinor: number;
  devMajor: number;
  devMinor: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  btimeSec: number;
  btimeNsec: number;
}

/** statfs(2). Counts of blocks are in units of `frsize` bytes. */
export interface StatFs {
  bsize: number;
  frsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  namelen: number;
}

/** A device number as the kernel's userspace dev_t (glibc makedev) splits it. */
export const DEV_WHITEOUT = { major: 0, minor: 0 } as const;
