/**
 * Names that come, go and move: link, unlink, rmdir, rename; and what that means for the locations
 * that inodes know.
 *
 * L1. An inode's location is (dir, name), further known ones are in `others`. Those may be out of date,
 *     for somebody else, or another inode object, may have taken the name away: before one becomes the
 *     location it is compared with the open descriptor.
 * L2. Before a name goes, a descriptor is opened; after, the inode lives by a further name or by that
 *     descriptor, pinned. So no moment leaves it unreachable, and a failure changes nothing.
 */
import { Errno } from '../../abi/errno.ts';
import {
  AT_REMOVEDIR,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
} from '../../abi/fcntl.ts';
import { S_IFDIR } from '../../abi/mode.ts';
import { fail } from '../../kernel/error.ts';
import { assert } from '../../lib/assert.ts';
import { orFail } from '../../sys/native.ts';
import { tryLinkat, tryLinkFd, tryRenameat2, tryUnlinkat } from '../../sys/namespace.ts';
import { statxDevice, statxIno, tryStatx } from '../../sys/statx.ts';
import { openForPin, statInode } from './anchor.ts';
import { FdAccess } from './descriptor-cache.ts';
import type { HostDir } from './host-dir.ts';
import type { HostInode } from './host-inode.ts';
import { KNOWN_NAMES_MAX } from './limits.ts';

/** A name in a directory. */
export interface Location {
  readonly dir: HostDir;
  readonly name: string;
}

export function linkInode(dir: HostDir, name: string, target: HostInode): void {
  if (target.type === S_IFDIR) fail(Errno.EPERM);
  const from = target.dir;
  if (from !== undefined) {
    withBoth(from, dir, (fromFd, toFd) => orFail(tryLinkat(fromFd, target.name, toFd, name)));
  } else if (target.fd >= 0) {
    orFail(tryLinkFd(target.fd, dir.descriptor(), name));
  } else {
    fail(Errno.ENOENT);
  }
  addLocation(target, dir, name);
}

/** Two descriptors at once: opening the second must not evict the first. */
function withBoth<T>(one: HostDir, other: HostDir, use: (one: number, other: number) => T): T {
  if (one === other) {
    const fd = one.descriptor();
    return use(fd, fd);
  }
  one.descriptor();
  one.cache.hold(one);
  try {
    return use(one.fd, other.descriptor());
  } finally {
    one.cache.release(one);
  }
}

function addLocation(inode: HostInode, dir: HostDir, name: string): void {
  if (inode.dir === undefined) {
    place(inode, dir, name);
    // An O_PATH descriptor is of no further use now, one with data is cached.
    const cache = inode.fs.process.descriptors;
    const { opened } = inode;
    if (opened === undefined) return;
    if (opened.access === FdAccess.Path) cache.drop(opened);
    else cache.unpin(opened);
    return;
  }
  const others = (inode.others ??= []);
  if (others.length >= KNOWN_NAMES_MAX) return;
  dir.retain();
  others.push({ dir, name });
}

function place(inode: HostInode, dir: HostDir, name: string): void {
  dir.retain();
  const before = inode.dir;
  inode.dir = dir;
  inode.name = name;
  before?.releaseUser();
}

const isAt = (inode: HostInode, dir: HostDir, name: string): boolean =>
  inode.dir === dir && inode.name === name;

export function unlinkInode(dir: HostDir, name: string, victim: HostInode): void {
  const goes = isAt(victim, dir, name);
  // In this order: nothing is opened after the pin, so nothing evicts it.
  dir.descriptor();
  if (goes) openForPin(victim);
  orFail(tryUnlinkat(dir.descriptor(), name));
  loseName(victim, dir, name);
}

export function removeDirectory(dir: HostDir, name: string, victim: HostInode): void {
  const self = victim.self;
  const goes = self !== undefined && self.parent === dir && self.name === name;
  dir.descriptor();
  if (goes) openForPin(victim);
  orFail(tryUnlinkat(dir.descriptor(), name, AT_REMOVEDIR));
  if (goes) self.cutOff();
  else dir.cutOffChild(name);
}

/** The host has taken this name of it away. */
function loseName(inode: HostInode, dir: HostDir, name: string): void {
  if (!isAt(inode, dir, name)) {
    dropKnown(inode, dir, name);
    return;
  }
  if (inode.fd >= 0 && moveToOtherName(inode)) return;
  inode.dir = undefined;
  inode.name = '';
  if (inode.fd >= 0) inode.fs.process.descriptors.pin(inode.open);
  dir.releaseUser();
}

function dropKnown(inode: HostInode, dir: HostDir, name: string): void {
  const at = inode.others?.findIndex((known) => known.dir === dir && known.name === name) ?? -1;
  if (at < 0) return;
  inode.others!.splice(at, 1);
  dir.releaseUser();
}

/** True if a further name still leads to it: that is its location now. */
function moveToOtherName(inode: HostInode): boolean {
  for (;;) {
    const known = inode.others?.pop();
    if (known === undefined) return false;
    const leads = leadsTo(known, inode);
    if (leads) place(inode, known.dir, known.name);
    known.dir.releaseUser();
    if (!leads) continue;
    if (inode.access === FdAccess.Path) inode.fs.process.descriptors.drop(inode.open);
    return true;
  }
}

function leadsTo(known: Location, inode: HostInode): boolean {
  if (tryStatx(inode.fd, '') < 0) return false;
  const ino = statxIno();
  const device = statxDevice();
  // Held: reaching the other directory may open descriptors.
  const cache = inode.fs.process.descriptors;
  const { open } = inode;
  cache.hold(open);
  try {
    if (tryStatx(known.dir.descriptor(), known.name) < 0) return false;
  } finally {
    cache.release(open);
  }
  return statxIno() === ino && statxDevice() === device;
}

/** A rename as the host is asked for it. */
export interface Rename {
  readonly dir: HostDir;
  readonly name: string;
  readonly source: HostInode;
  readonly newDir: HostDir;
  readonly newName: string;
  readonly replaced: HostInode | undefined;
  readonly flags: number;
}

export function checkRenameFlags(flags: number): void {
  const known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
  if ((flags & ~known) !== 0) fail(Errno.EINVAL);
  const exchange = (flags & RENAME_EXCHANGE) !== 0;
  if (exchange && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) !== 0) fail(Errno.EINVAL);
}

export function renameInode(rename: Rename): void {
  const { dir, name, newDir, newName, replaced, source, flags } = rename;
  const exchange = (flags & RENAME_EXCHANGE) !== 0;
  const replaces = replaced !== undefined && !exchange;
  // Two names of one inode: the host does nothing, and nothing is to be told.
  const nothing = replaces && isSameInode(source, replaced);
  const pin = replaces && openForPin(replaced) ? (replaced.self ?? replaced.open) : undefined;
  if (pin !== undefined) dir.cache.hold(pin);
  try {
    withBoth(dir, newDir, (from, to) => orFail(tryRenameat2(from, name, to, newName, flags)));
    if (nothing || (dir === newDir && name === newName)) return;
    if (exchange) {
      assert(replaced !== undefined, 'an exchange names both inodes');
      moveBoth(rename, replaced);
    } else {
      replace(rename);
    }
  } finally {
    if (pin !== undefined) dir.cache.release(pin);
  }
}

function replace(rename: Rename): void {
  const { newDir, newName, replaced } = rename;
  if (replaced?.self !== undefined) replaced.self.cutOff();
  else if (replaced !== undefined) loseName(replaced, newDir, newName);
  newDir.cutOffChild(newName);
  move(rename.source, rename);
}

function move(inode: HostInode, to: { newDir: HostDir; newName: string }): void {
  if (inode.self !== undefined) {
    if (inode.self.parent !== undefined) inode.self.moveTo(to.newDir, to.newName);
  } else {
    place(inode, to.newDir, to.newName);
  }
}

function moveBoth(rename: Rename, other: HostInode): void {
  const { dir, name, newDir, newName, source } = rename;
  // A HostDir of either name that neither inode means would be wrong after this.
  if (source.self === undefined) dir.cutOffChild(name);
  if (other.self === undefined) newDir.cutOffChild(newName);
  move(source, { newDir, newName });
  move(other, { newDir: dir, newName: name });
}

function isSameInode(one: HostInode, other: HostInode): boolean {
  if (one === other) return true;
  if (one.self !== undefined && one.self === other.self) return true;
  if (one.type !== other.type || one.type === S_IFDIR) return false;
  if (one.ino >= 0 && other.ino >= 0 && one.ino !== other.ino) return false;
  statInode(one);
  const ino = statxIno();
  const device = statxDevice();
  statInode(other);
  return ino === statxIno() && device === statxDevice();
}
