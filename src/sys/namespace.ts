/** Names in directories: mkdirat, mknodat, symlinkat, readlinkat, linkat, unlinkat, renameat2. */
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_FOLLOW,
  PATH_MAX,
} from '../abi/fcntl.ts';
import { Errno } from '../abi/errno.ts';
import { fail } from '../kernel/error.ts';
import { pathArgument, Scratch, secondPathArgument } from './memory.ts';
import { libc, orFail, outcome } from './native.ts';

const mkdiratCall = libc('int mkdirat(int dir, uintptr_t path, uint32_t mode)');
const mknodatCall = libc('int mknodat(int dir, uintptr_t path, uint32_t mode, uint64_t device)');
const symlinkatCall = libc('int symlinkat(uintptr_t target, int dir, uintptr_t path)');
const readlinkatCall = libc(
  'int64_t readlinkat(int dir, uintptr_t path, uintptr_t buffer, size_t length)',
);
const linkatCall = libc(
  'int linkat(int dir, uintptr_t path, int newDir, uintptr_t newPath, int flags)',
);
const unlinkatCall = libc('int unlinkat(int dir, uintptr_t path, int flags)');
const renameat2Call = libc(
  'int renameat2(int dir, uintptr_t path, int newDir, uintptr_t newPath, uint32_t flags)',
);
const linkTarget = new Scratch(PATH_MAX);

/** A device number as the C library packs it: gnu_dev_makedev(3). */
export function makedev(major: number, minor: number): number {
  return (minor & 0xff) + (major & 0xfff) * 0x100 + (minor >>> 8) * 0x10_0000;
}

export function tryMkdirat(dir: number, name: string, mode: number): number {
  return outcome(mkdiratCall(dir, pathArgument(name), mode));
}

export function mkdirat(dir: number, name: string, mode: number): void {
  orFail(tryMkdirat(dir, name, mode));
}

/** mknodat(2); `device` as `makedev` gives it, 0 for what is no device. */
export function tryMknodat(dir: number, name: string, mode: number, device: number): number {
  return outcome(mknodatCall(dir, pathArgument(name), mode, device));
}

export function mknodat(dir: number, name: string, mode: number, device: number): void {
  orFail(tryMknodat(dir, name, mode, device));
}

export function trySymlinkat(target: string, dir: number, name: string): number {
  return outcome(symlinkatCall(secondPathArgument(target), dir, pathArgument(name)));
}

export function symlinkat(target: string, dir: number, name: string): void {
  orFail(trySymlinkat(target, dir, name));
}

/** readlinkat(2); the name '' is the symlink that `dir` itself is, an O_PATH descriptor. */
export function readlinkat(dir: number, name: string): string {
  const path = pathArgument(name);
  const length = outcome(readlinkatCall(dir, path, linkTarget.address, PATH_MAX));
  if (length < 0) fail(-length);
  return linkTarget.buffer.latin1Slice(0, length);
}

/** linkat(2); a symlink is linked, not followed. */
export function tryLinkat(dir: number, name: string, newDir: number, newName: string): number {
  return outcome(linkatCall(dir, pathArgument(name), newDir, secondPathArgument(newName), 0));
}

export function linkat(dir: number, name: string, newDir: number, newName: string): void {
  orFail(tryLinkat(dir, name, newDir, newName));
}

/**
 * Give what a descriptor means a name. By AT_EMPTY_PATH, and where the kernel denies that to the
 * unprivileged (with ENOENT), by the descriptor's magic link in /proc.
 */
export function tryLinkFd(fd: number, newDir: number, newName: string): number {
  const to = secondPathArgument(newName);
  const direct = outcome(linkatCall(fd, pathArgument(''), newDir, to, AT_EMPTY_PATH));
  if (direct >= 0 || direct !== -Errno.ENOENT) return direct;
  const magic = pathArgument(`/proc/self/fd/${fd}`);
  return outcome(linkatCall(AT_FDCWD, magic, newDir, to, AT_SYMLINK_FOLLOW));
}

export function tryUnlinkat(dir: number, name: string, flags = 0): number {
  return outcome(unlinkatCall(dir, pathArgument(name), flags));
}

export function unlinkat(dir: number, name: string): void {
  orFail(tryUnlinkat(dir, name));
}

export function rmdirat(dir: number, name: string): void {
  orFail(tryUnlinkat(dir, name, AT_REMOVEDIR));
}

/** renameat2(2); `flags` is a set of RENAME_. */
export function tryRenameat2(
  dir: number,
  name: string,
  newDir: number,
  newName: string,
  flags = 0,
): number {
  const to = secondPathArgument(newName);
  return outcome(renameat2Call(dir, pathArgument(name), newDir, to, flags));
}

export function renameat2(
  dir: number,
  name: string,
  newDir: number,
  newName: string,
  flags = 0,
): void {
  orFail(tryRenameat2(dir, name, newDir, newName, flags));
}
