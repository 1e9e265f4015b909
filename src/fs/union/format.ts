/**
 * What a union writes on its writable branches beside the files themselves: kernel overlayfs's format.
 *
 * Words: an *overlay xattr* is `trusted.overlay.X` or, unprivileged, `user.overlay.X`. A *whiteout*
 * says "deleted": a character device 0:0, or an empty regular file with the xattr `whiteout` in a
 * directory whose `opaque` is `x`, or (read only) a file `.wh.NAME`. An *opaque* directory hides all
 * that lies beneath it. *redirect* says under which other name or path a renamed directory goes on
 * beneath. *origin* is the file handle of the inode that was copied up. *metacopy* marks a file whose
 * data is still beneath. *nlink* is the union's link count of an indexed file, as a difference to the
 * real one. *palimpsest.base* is ours alone: what the lower looked like when it was copied up.
 *
 * Sources: Documentation/filesystems/overlayfs.rst; struct ovl_fb in fs/overlayfs/overlayfs.h.
 */
import { bytesOf, textOf } from '../../lib/latin1.ts';
import type { Stat } from '../../abi/stat.ts';
import type { FileHandle } from '../../vfs/inode-operations.ts';

export type XattrPrefix = 'trusted.overlay.' | 'user.overlay.';

export const OPAQUE = 'opaque';
export const REDIRECT = 'redirect';
export const ORIGIN = 'origin';
export const METACOPY = 'metacopy';
export const NLINK = 'nlink';
export const IMPURE = 'impure';
export const WHITEOUT = 'whiteout';
export const BASE = 'palimpsest.base';

export const YES = bytesOf('y');
export const WH_PREFIX = '.wh.';
export const WH_OPAQUE = '.wh..wh..opq';

// struct ovl_fb: version, magic, len, flags, type, uuid[16], then the handle's bytes.
const FB_VERSION = 0;
const FB_MAGIC = 0xfb;
const FB_HEADER_BYTES = 21;
/** Bit 0 big-endian, bit 1 any endian, bit 2 the handle is of an upper. We run on little-endian. */
const FB_FLAG_BIG_ENDIAN = 1;

export function encodeOrigin(handle: FileHandle): Uint8Array {
  const record = new Uint8Array(FB_HEADER_BYTES + handle.bytes.length);
  record[0] = FB_VERSION;
  record[1] = FB_MAGIC;
  record[2] = record.length;
  record[3] = 0;
  record[4] = handle.type;
  record.set(handle.uuid, 5);
  record.set(handle.bytes, FB_HEADER_BYTES);
  return record;
}

/** Undefined for a record that is empty (the kernel writes that for "no handle") or not of this format. */
export function decodeOrigin(record: Uint8Array): FileHandle | undefined {
  if (record.length < FB_HEADER_BYTES || record[1] !== FB_MAGIC) return undefined;
  if (record[0] !== FB_VERSION || record[2] !== record.length) return undefined;
  if ((record[3]! & FB_FLAG_BIG_ENDIAN) !== 0) return undefined;
  return {
    type: record[4]!,
    uuid: record.slice(5, FB_HEADER_BYTES),
    bytes: record.slice(FB_HEADER_BYTES),
  };
}

const FILEID_INO32_GEN = 1;
const FILEID_INO64_GEN = 0x81;
const FILEID_BTRFS = 0x4d;
const TWO_TO_32 = 0x1_0000_0000;

/** The inode number inside a handle, for the filesystems whose handles are known to hold it. */
export function inoOfHandle(handle: FileHandle): number | undefined {
  const view = new DataView(handle.bytes.buffer, handle.bytes.byteOffset, handle.bytes.length);
  const u64 = (at: number): number => view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_TO_32;
  // tmpfs: generation, then the number's two halves. ext4, xfs (small): the number, then generation.
  if (handle.type === FILEID_INO32_GEN && view.byteLength === 12) return u64(4);
  if (handle.type === FILEID_INO32_GEN && view.byteLength === 8) return view.getUint32(0, true);
  if (handle.type === FILEID_INO64_GEN && view.byteLength >= 8) return u64(0);
  if (handle.type === FILEID_BTRFS && view.byteLength >= 8) return u64(0);
  return undefined;
}

/** `ino mtime ctime size type`: see layers/ for who reads it. */
export function encodeBase(stat: Stat): Uint8Array {
  const type = (stat.mode & 0o170000).toString(8);
  const mtime = `${stat.mtimeSec}.${stat.mtimeNsec}`;
  const ctime = `${stat.ctimeSec}.${stat.ctimeNsec}`;
  return bytesOf(`${stat.ino} ${mtime} ${ctime} ${stat.size} ${type}`);
}

/** The inode number that `encodeBase` wrote. */
export function inoOfBase(record: Uint8Array): number | undefined {
  const ino = Number(textOf(record).split(' ', 1)[0]);
  return Number.isSafeInteger(ino) && ino > 0 ? ino : undefined;
}

/** `U+1`: relative to the upper's real count; `L-1`: to the lower's. */
export interface NlinkRecord {
  readonly relativeTo: 'U' | 'L';
  readonly difference: number;
}

export function encodeNlink(record: NlinkRecord): Uint8Array {
  const sign = record.difference < 0 ? '' : '+';
  return bytesOf(`${record.relativeTo}${sign}${record.difference}`);
}

export function decodeNlink(record: Uint8Array): NlinkRecord | undefined {
  const match = /^([UL])([+-]\d{1,9})$/.exec(textOf(record));
  if (match === null) return undefined;
  return { relativeTo: match[1] as 'U' | 'L', difference: Number(match[2]) };
}
