/**
 * Notifications: what the daemon tells the kernel unasked, so that endless caching stays true.
 *
 * T1. A notification is a reply with unique 0 and a positive code for an error.
 * T2. The engine thread never writes one: the kernel takes the lock of the directory or waits for the
 *     pages that the request being served holds, and the engine would wait for itself. Records are
 *     handed to another thread.
 * T4. A task may wait for the write(2) of INVAL_INODE, for it holds no lock that WRITE needs.
 * T3. ENOENT in answer to one means: the kernel does not know that node or name. That is success.
 *
 * cf. fs/fuse/dev.c, fuse_notify()
 */
import type { Name } from '../vfs/inode-operations.ts';
import {
  FUSE_EXPIRE_ONLY,
  NOTIFY_DELETE_OUT,
  NOTIFY_INVAL_ENTRY_OUT,
  NOTIFY_INVAL_INODE_OUT,
  NotifyCode,
  OUT_HEADER,
} from './abi.ts';

const WORD = 0x1_0000_0000;

function begin(
  code: number,
  bodyBytes: number,
): { record: Uint8Array<ArrayBuffer>; view: DataView } {
  const record = new Uint8Array(OUT_HEADER.bytes + bodyBytes);
  const view = new DataView(record.buffer);
  view.setUint32(OUT_HEADER.at.len, record.length, true);
  view.setInt32(OUT_HEADER.at.error, code, true);
  return { record, view };
}

function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(OUT_HEADER.bytes + at, value % WORD, true);
  view.setUint32(OUT_HEADER.bytes + at + 4, Math.floor(value / WORD), true);
}

/** The name, and the NUL that the kernel wants after it but does not count. */
function putName(record: Uint8Array, at: number, name: Name): void {
  for (let i = 0; i < name.length; i++) record[OUT_HEADER.bytes + at + i] = name.charCodeAt(i);
}

/** Forget the attributes and all cached pages of a node (dirty ones are written first). */
export function invalidateInodeRecord(nodeid: number): Uint8Array {
  const { record, view } = begin(NotifyCode.INVAL_INODE, NOTIFY_INVAL_INODE_OUT.bytes);
  putU64(view, NOTIFY_INVAL_INODE_OUT.at.ino, nodeid);
  return record;
}

/** Forget the attributes of a node, but keep its pages. */
export function invalidateAttributesRecord(nodeid: number): Uint8Array {
  const record = invalidateInodeRecord(nodeid);
  // An offset below zero: the kernel leaves the pages alone.
  record.fill(
    0xff,
    OUT_HEADER.bytes + NOTIFY_INVAL_INODE_OUT.at.off,
    OUT_HEADER.bytes + NOTIFY_INVAL_INODE_OUT.at.len,
  );
  return record;
}

/**
 * Write the dirty pages of a range and drop its pages. `end` is exclusive; Infinity: to the end of the
 * file and beyond what we know of it.
 */
export function flushRangeRecord(nodeid: number, position: number, end: number): Uint8Array {
  const { record, view } = begin(NotifyCode.INVAL_INODE, NOTIFY_INVAL_INODE_OUT.bytes);
  putU64(view, NOTIFY_INVAL_INODE_OUT.at.ino, nodeid);
  putU64(view, NOTIFY_INVAL_INODE_OUT.at.off, position);
  putU64(view, NOTIFY_INVAL_INODE_OUT.at.len, end === Infinity ? 0 : end - position);
  return record;
}

/** Forget what is under a name, also that there is nothing. */
export function invalidateEntryRecord(parent: number, name: Name): Uint8Array {
  return entryRecord(parent, name, 0);
}

/** Look the name up again before it is used, but keep what is open, mounted or a cwd below it. */
export function expireEntryRecord(parent: number, name: Name): Uint8Array {
  return entryRecord(parent, name, FUSE_EXPIRE_ONLY);
}

function entryRecord(parent: number, name: Name, flags: number): Uint8Array {
  const at = NOTIFY_INVAL_ENTRY_OUT.at;
  const { record, view } = begin(
    NotifyCode.INVAL_ENTRY,
    NOTIFY_INVAL_ENTRY_OUT.bytes + name.length + 1,
  );
  putU64(view, at.parent, parent);
  view.setUint32(OUT_HEADER.bytes + at.namelen, name.length, true);
  view.setUint32(OUT_HEADER.bytes + at.flags, flags, true);
  putName(record, NOTIFY_INVAL_ENTRY_OUT.bytes, name);
  return record;
}

/** The name is gone, and `child` was what it meant: watchers of the mount are told so. */
export function deleteRecord(parent: number, child: number, name: Name): Uint8Array {
  const at = NOTIFY_DELETE_OUT.at;
  const { record, view } = begin(NotifyCode.DELETE, NOTIFY_DELETE_OUT.bytes + name.length + 1);
  putU64(view, at.parent, parent);
  putU64(view, at.child, child);
  view.setUint32(OUT_HEADER.bytes + at.namelen, name.length, true);
  putName(record, NOTIFY_DELETE_OUT.bytes, name);
  return record;
}
