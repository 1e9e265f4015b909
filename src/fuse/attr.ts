/** Stat to the wire: struct fuse_attr, fuse_entry_out, fuse_attr_out, fuse_statx. */
import type { Stat } from '../abi/stat.ts';
import {
  ATTR,
  ATTR_OUT,
  ENTRY_OUT,
  STATX,
  STATX_BASIC_STATS,
  STATX_BTIME,
  STATX_OUT,
  SX_TIME,
} from './abi.ts';
import type { Request } from './request.ts';

const A = ATTR.at;
const E = ENTRY_OUT.at;
const O = ATTR_OUT.at;
const X = STATX.at;

/** A device number in 32 bits, as new_encode_dev() of include/linux/kdev_t.h packs it. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}
export const decodeMajor = (device: number): number => (device & 0xfff00) >>> 8;
export const decodeMinor = (device: number): number =>
  (device & 0xff) | ((device >>> 12) & 0xfff00);

/** Write struct fuse_attr at `at` of the reply's body. */
function putAttr(request: Request, at: number, stat: Stat): void {
  request.put64(at + A.ino, stat.ino);
  request.put64(at + A.size, stat.size);
  request.put64(at + A.blocks, stat.blocks);
  request.put64(at + A.atime, stat.atimeSec);
  request.put64(at + A.mtime, stat.mtimeSec);
  request.put64(at + A.ctime, stat.ctimeSec);
  request.put32(at + A.atimensec, stat.atimeNsec);
  request.put32(at + A.mtimensec, stat.mtimeNsec);
  request.put32(at + A.ctimensec, stat.ctimeNsec);
  request.put32(at + A.mode, stat.mode);
  request.put32(at + A.nlink, stat.nlink);
  request.put32(at + A.uid, stat.uid);
  request.put32(at + A.gid, stat.gid);
  request.put32(at + A.rdev, encodeDevice(stat.rdevMajor, stat.rdevMinor));
  request.put32(at + A.blksize, stat.blksize);
  request.put32(at + A.flags, 0);
}

/** Write struct fuse_entry_out at `at`. */
export function putEntry(
  request: Request,
  at: number,
  nodeid: number,
  stat: Stat,
  attrSeconds = request.cacheSeconds,
): void {
  request.put64(at + E.nodeid, nodeid);
  request.put64(at + E.generation, 0);
  request.put64(at + E.entryValid, request.cacheSeconds);
  request.put64(at + E.attrValid, attrSeconds);
  request.put64(at + E.entryValidNsec, 0);
  putAttr(request, at + E.attr, stat);
}

/** An entry that says: there is none, and you may remember that. */
export function putAbsence(request: Request, at: number): void {
  request.clear(at, ENTRY_OUT.bytes);
  request.put64(at + E.entryValid, request.cacheSeconds);
}

/** Write struct fuse_attr_out at the start of the body. */
export function putAttrOut(request: Request, stat: Stat, attrSeconds = request.cacheSeconds): void {
  request.put64(O.attrValid, attrSeconds);
  request.put64(O.attrValidNsec, 0);
  putAttr(request, O.attr, stat);
}

function putTime(request: Request, at: number, sec: number, nsec: number): void {
  request.put64(at + SX_TIME.at.sec, sec);
  request.put64(at + SX_TIME.at.nsec, nsec);
}

/** Write struct fuse_statx_out at the start of the body. */
export function putStatxOut(
  request: Request,
  stat: Stat,
  attrSeconds = request.cacheSeconds,
): void {
  request.clear(0, STATX_OUT.bytes);
  request.put64(STATX_OUT.at.attrValid, attrSeconds);
  const at = STATX_OUT.at.stat;
  request.put32(at + X.mask, STATX_BASIC_STATS | STATX_BTIME);
  request.put32(at + X.blksize, stat.blksize);
  request.put32(at + X.nlink, stat.nlink);
  request.put32(at + X.uid, stat.uid);
  request.put32(at + X.gid, stat.gid);
  request.put16(at + X.mode, stat.mode);
  request.put64(at + X.ino, stat.ino);
  request.put64(at + X.size, stat.size);
  request.put64(at + X.blocks, stat.blocks);
  putTime(request, at + X.atime, stat.atimeSec, stat.atimeNsec);
  putTime(request, at + X.btime, stat.btimeSec, stat.btimeNsec);
  putTime(request, at + X.ctime, stat.ctimeSec, stat.ctimeNsec);
  putTime(request, at + X.mtime, stat.mtimeSec, stat.mtimeNsec);
  request.put32(at + X.rdevMajor, stat.rdevMajor);
  request.put32(at + X.rdevMinor, stat.rdevMinor);
  request.put32(at + X.devMajor, stat.devMajor);
  request.put32(at + X.devMinor, stat.devMinor);
}
