/** Mounts and namespaces: mount, umount2, open_tree, move_mount, mount_setattr, unshare, setns. */
import { AT_EMPTY_PATH } from '../abi/fcntl.ts';
import {
  allocateArena,
  latin1Buffer,
  pathArgument,
  Scratch,
  secondPathArgument,
  thirdPathArgument,
} from './memory.ts';
import { libc, orFail, outcome, trySyscall } from './native.ts';

export const MS_RDONLY = 0x1;
export const MS_NOSUID = 0x2;
export const MS_NODEV = 0x4;
export const MS_NOEXEC = 0x8;
export const MS_REMOUNT = 0x20;
export const MS_NOATIME = 0x400;
export const MS_BIND = 0x1000;
export const MS_MOVE = 0x2000;
export const MS_REC = 0x4000;
export const MS_PRIVATE = 0x4_0000;
export const MS_SLAVE = 0x8_0000;

export const MNT_FORCE = 1;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

export const OPEN_TREE_CLONE = 1;
export const OPEN_TREE_CLOEXEC = 0o2000000;
export const AT_RECURSIVE = 0x8000;
export const MOVE_MOUNT_F_EMPTY_PATH = 0x4;
export const MOUNT_ATTR_RDONLY = 0x1;
export const MOUNT_ATTR_NOATIME = 0x10;
const MOUNT_ATTR__ATIME = 0x70;

export const CLONE_FS = 0x200;
export const CLONE_NEWNS = 0x2_0000;
export const CLONE_NEWUSER = 0x1000_0000;
export const CLONE_NEWPID = 0x2000_0000;

const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_MOUNT_SETATTR = 442;
/** struct mount_attr: u64 attr_set, attr_clr, propagation, userns_fd. */
const MOUNT_ATTR_BYTES = 32;

const mountCall = libc(
  'int mount(uintptr_t source, uintptr_t target, uintptr_t type, uint64_t flags, uintptr_t options)',
);
const umount2Call = libc('int umount2(uintptr_t target, int flags)');
const unshareCall = libc('int unshare(int flags)');
const setnsCall = libc('int setns(int fd, int kind)');
const mountAttr = new Scratch(MOUNT_ATTR_BYTES);

/** mount(2). Strings one char per byte; `options` is the comma list for the filesystem. */
export function mount(
  source: string,
  target: string,
  type: string,
  flags: number,
  options = '',
): void {
  orFail(tryMount(source, target, type, flags, options));
}

export function tryMount(
  source: string,
  target: string,
  type: string,
  flags: number,
  options = '',
): number {
  const memory = allocateArena(options.length + 1);
  latin1Buffer(memory.bytes.buffer).latin1Write(options);
  const from = pathArgument(source);
  const to = secondPathArgument(target);
  return outcome(mountCall(from, to, thirdPathArgument(type), flags, memory.address));
}

/** 0 or -errno; `flags` is a set of MNT_ and UMOUNT_. */
export function tryUmount2(target: string, flags: number): number {
  return outcome(umount2Call(pathArgument(target), flags));
}

export function umount2(target: string, flags = 0): void {
  orFail(tryUmount2(target, flags));
}

/** open_tree(2), close-on-exec: with OPEN_TREE_CLONE a private copy of a mount, attached nowhere. */
export function tryOpenTree(dir: number, path: string, flags: number): number {
  return trySyscall(SYS_OPEN_TREE, dir, pathArgument(path), flags | OPEN_TREE_CLOEXEC);
}

/** move_mount(2): attach what `tree` means at a path. */
export function tryMoveMount(tree: number, dir: number, path: string): number {
  const from = pathArgument('');
  const to = secondPathArgument(path);
  return trySyscall(SYS_MOVE_MOUNT, tree, from, dir, to, MOVE_MOUNT_F_EMPTY_PATH);
}

/** mount_setattr(2) of the mount that `tree` means: set MOUNT_ATTR_ flags. */
export function tryMountSetattr(tree: number, set: number): number {
  mountAttr.buffer.fill(0);
  mountAttr.putU64(0, set);
  // The atime flags are one field: to set a value of it, the field is cleared.
  if ((set & MOUNT_ATTR__ATIME) !== 0) mountAttr.putU64(2, MOUNT_ATTR__ATIME);
  const at = mountAttr.address;
  return trySyscall(SYS_MOUNT_SETATTR, tree, pathArgument(''), AT_EMPTY_PATH, at, MOUNT_ATTR_BYTES);
}

/** unshare(2): a set of CLONE_. CLONE_FS gives this thread a umask and a cwd of its own. */
export function tryUnshare(flags: number): number {
  return outcome(unshareCall(flags));
}

export function trySetns(fd: number, kind: number): number {
  return outcome(setnsCall(fd, kind));
}
