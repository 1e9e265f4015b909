/**
 * Requests about names: LOOKUP, FORGET, and everything that makes, moves and removes names.
 *
 * S1. An inode that a filesystem gave is entered in the node table before the next wait, so that no
 *     other request can have it forgotten meanwhile; if the request then fails, it is taken out.
 */
import { Errno } from '../abi/errno.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../abi/fcntl.ts';
import { isReg, S_IFMT } from '../abi/mode.ts';
import type { Task } from '../kernel/task.ts';
import type { Entry, Inode, Name } from '../vfs/inode-operations.ts';
import {
  BATCH_FORGET_IN,
  CREATE_IN,
  ENTRY_OUT,
  FORGET_IN,
  FORGET_ONE,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  OPEN_OUT,
  RENAME2_IN,
  RENAME_IN,
} from './abi.ts';
import { decodeMajor, decodeMinor, putAbsence, putEntry } from './attr.ts';
import type { Door } from './door.ts';
import { putOpen } from './serve-data.ts';
import type { Request } from './request.ts';

const PERMISSIONS = 0o7777;

/** Answer with a new entry: the kernel knows the inode once more. */
function* answerEntry(door: Door, request: Request, inode: Inode): Task<number> {
  const nodeid = door.nodes.remember(inode);
  try {
    const stat = yield* inode.getattr();
    putEntry(request, 0, nodeid, stat, door.attrSeconds(request, inode));
  } catch (error) {
    door.nodes.forget(nodeid, 1);
    throw error;
  }
  request.handedOut.push(nodeid);
  request.replyBytes = ENTRY_OUT.bytes;
  return 0;
}

export function* lookup(door: Door, request: Request): Task<number> {
  const dir = door.node(request);
  const name = request.name(0);
  if (dir.lookupWithStat === undefined) {
    const child = yield* dir.lookup(name);
    if (child !== undefined) return yield* answerEntry(door, request, child);
  } else {
    const entry = yield* dir.lookupWithStat(name);
    if (entry !== undefined) return knownEntry(door, request, entry);
  }
  putAbsence(request, 0);
  request.replyBytes = ENTRY_OUT.bytes;
  return 0;
}

/** Answer with an entry whose attributes are at hand. */
function knownEntry(door: Door, request: Request, entry: Entry): number {
  const nodeid = door.nodes.remember(entry.inode);
  putEntry(request, 0, nodeid, entry.stat, door.attrSeconds(request, entry.inode));
  request.handedOut.push(nodeid);
  request.replyBytes = ENTRY_OUT.bytes;
  return 0;
}

export function forget(door: Door, request: Request): number {
  const count = request.u64Capped(FORGET_IN.at.nlookup);
  if (!door.nodes.forget(request.nodeid, count)) {
    door.complain('FORGET of an unknown node', `${request.nodeid} by ${count}`);
  }
  return 0;
}

export function batchForget(door: Door, request: Request): number {
  const declared = request.u32(BATCH_FORGET_IN.at.count);
  const came = Math.floor((request.bodyBytes - BATCH_FORGET_IN.bytes) / FORGET_ONE.bytes);
  if (declared > came)
    door.complain('malformed BATCH_FORGET', `${declared} declared, ${came} came`);
  const count = Math.min(declared, came);
  for (let i = 0, at = BATCH_FORGET_IN.bytes; i < count; i++, at += FORGET_ONE.bytes) {
    const nodeid = request.id(at + FORGET_ONE.at.nodeid);
    const nlookup = request.u64Capped(at + FORGET_ONE.at.nlookup);
    if (!door.nodes.forget(nodeid, nlookup)) {
      door.complain('FORGET of an unknown node', `${nodeid} by ${nlookup}`);
    }
  }
  return 0;
}

export function* mknod(door: Door, request: Request): Task<number> {
  const dir = door.node(request);
  const name = request.name(MKNOD_IN.bytes);
  const mode = request.u32(MKNOD_IN.at.mode);
  const cred = request.cred(request.u32(MKNOD_IN.at.umask));
  if (isReg(mode) || (mode & S_IFMT) === 0) {
    return yield* answerEntry(door, request, yield* dir.create(name, mode & PERMISSIONS, cred));
  }
  const rdev = request.u32(MKNOD_IN.at.rdev);
  const node = yield* dir.mknod(name, mode, decodeMajor(rdev), decodeMinor(rdev), cred);
  return yield* answerEntry(door, request, node);
}

export function* mkdir(door: Door, request: Request): Task<number> {
  const dir = door.node(request);
  const name = request.name(MKDIR_IN.bytes);
  const mode = request.u32(MKDIR_IN.at.mode) & PERMISSIONS;
  const made = yield* dir.mkdir(name, mode, request.cred(request.u32(MKDIR_IN.at.umask)));
  return yield* answerEntry(door, request, made);
}

export function* symlink(door: Door, request: Request): Task<number> {
  const dir = door.node(request);
  const name = request.name(0);
  const targetAt = name.length + 1;
  const target = request.text(targetAt, request.stringEnd(targetAt));
  return yield* answerEntry(door, request, yield* dir.symlink(name, target, request.cred(0)));
}

export function* link(door: Door, request: Request): Task<number> {
  const dir = door.node(request);
  const name = request.name(LINK_IN.bytes);
  const target = door.nodes.find(request.id(LINK_IN.at.oldnodeid));
  if (target === undefined) return -Errno.ESTALE;
  yield* dir.link(name, target);
  return yield* answerEntry(door, request, target);
}

/** The reply to CREATE and TMPFILE: the entry, and that it is open. */
function* answerCreated(door: Door, request: Request, made: Inode): Task<number> {
  // The kernel knows it before it is open: nobody else may forget it meanwhile.
  const nodeid = door.nodes.remember(made);
  try {
    yield* putOpen(door, request, ENTRY_OUT.bytes, made);
    yield* answerEntry(door, request, made);
  } catch (error) {
    if (request.opened !== undefined) door.openFiles.release(made);
    request.opened = undefined;
    throw error;
  } finally {
    door.nodes.forget(nodeid, 1);
  }
  request.replyBytes = ENTRY_OUT.bytes + OPEN_OUT.bytes;
  return 0;
}

/**
 * Where OPEN does not come, CREATE is answered ENOSYS once: MKNOD, and an open that costs nothing, come
 * instead. CREATE would be followed by a RELEASE for each file.
 */
export function* create(door: Door, request: Request): Task<number> {
  if (door.agreed('NO_OPEN_SUPPORT')) return -Errno.ENOSYS;
  const dir = door.node(request);
  const name = request.name(CREATE_IN.bytes);
  const mode = request.u32(CREATE_IN.at.mode) & PERMISSIONS;
  const made = yield* dir.create(name, mode, request.cred(request.u32(CREATE_IN.at.umask)));
  return yield* answerCreated(door, request, made);
}

export function* tmpfile(door: Door, request: Request): Task<number> {
  const dir = door.node(request);
  if (dir.tmpfile === undefined) return -Errno.EOPNOTSUPP;
  const mode = request.u32(CREATE_IN.at.mode) & PERMISSIONS;
  const made = yield* dir.tmpfile(mode, request.cred(request.u32(CREATE_IN.at.umask)));
  return yield* answerCreated(door, request, made);
}

export function unlink(door: Door, request: Request): Task<number> {
  return removeName(door, request, (dir, name, victim) => dir.unlink(name, victim));
}

export function rmdir(door: Door, request: Request): Task<number> {
  return removeName(door, request, function* (dir, name, victim) {
    yield* dir.rmdir(name, victim);
    door.listings.drop(victim);
  });
}

type Remove = (dir: Inode, name: Name, victim: Inode) => Task<void>;

function* removeName(door: Door, request: Request, remove: Remove): Task<number> {
  const dir = door.node(request);
  const name = request.name(0);
  const victim = yield* dir.lookup(name);
  if (victim === undefined) return -Errno.ENOENT;
  const nodeid = door.nodes.remember(victim);
  try {
    yield* remove(dir, name, victim);
  } finally {
    door.nodes.forget(nodeid, 1);
  }
  return 0;
}

export function* rename(door: Door, request: Request): Task<number> {
  return yield* renameNames(door, request, RENAME_IN.bytes, 0);
}

export function* rename2(door: Door, request: Request): Task<number> {
  const flags = request.u32(RENAME2_IN.at.flags);
  // RENAME_WHITEOUT is for branches alone: a whiteout in the union would be a device of the user's.
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) return -Errno.EINVAL;
  return yield* renameNames(door, request, RENAME2_IN.bytes, flags);
}

function* renameNames(door: Door, request: Request, namesAt: number, flags: number): Task<number> {
  const dir = door.node(request);
  const newDir = door.nodes.find(request.id(RENAME_IN.at.newdir));
  if (newDir === undefined) return -Errno.ESTALE;
  const name: Name = request.name(namesAt);
  const newName: Name = request.name(namesAt + name.length + 1);
  const source = yield* dir.lookup(name);
  if (source === undefined) return -Errno.ENOENT;
  const sourceId = door.nodes.remember(source);
  let replacedId: number | undefined;
  try {
    const replaced = yield* newDir.lookup(newName);
    if (replaced !== undefined) replacedId = door.nodes.remember(replaced);
    yield* dir.rename(name, source, newDir, newName, replaced, flags);
  } finally {
    door.nodes.forget(sourceId, 1);
    if (replacedId !== undefined) door.nodes.forget(replacedId, 1);
  }
  return 0;
}
