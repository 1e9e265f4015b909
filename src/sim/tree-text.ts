/**
 * A tree as lines of text, to compare two of them: one line a path, sorted.
 *
 * A line has what a user can see: type, mode, owner, device, link count and link group (the first
 * path of the same inode), size, mtime if it is an old one (see `settledBefore`), xattrs, and content or
 * target. Left out: inode numbers, ctime, atime, sizes and block counts of directories.
 */
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import { assert } from '../lib/assert.ts';
import { textOf } from '../lib/latin1.ts';
import type { Inode } from '../vfs/inode-operations.ts';

export interface TreeTextOptions {
  /** Seconds: an mtime from here on is shown as `new`. What a test has built is older. */
  readonly settledBefore: number;
  /** Link counts of directories: kernel overlayfs says 1 for a merged one. */
  readonly directoryNlink: boolean;
  /** Say to each inode that is not the root that it is not needed any more. */
  readonly forgets: boolean;
}

/** Errors: AssertionError where listing and lookup contradict each other. */
export function* treeText(root: Inode, options: TreeTextOptions): Task<string> {
  const lines: string[] = [];
  const groups = new Map<number, string>();
  yield* describe(root, '/', yield* root.getattr(), { lines, groups, options });
  return lines.toSorted().join('\n');
}

interface Walk {
  readonly lines: string[];
  readonly groups: Map<number, string>;
  readonly options: TreeTextOptions;
}

function* describe(inode: Inode, path: string, stat: Stat, walk: Walk): Task<void> {
  const { options } = walk;
  const type = stat.mode & S_IFMT;
  assert(type === inode.type, `${path}: type ${type.toString(8)}, known as ${inode.type.toString(8)}`);
  const isDir = type === S_IFDIR;
  const group = walk.groups.get(stat.ino) ?? path;
  walk.groups.set(stat.ino, group);
  const mtime = stat.mtimeSec < options.settledBefore ? `${stat.mtimeSec}.${stat.mtimeNsec}` : 'new';
  const nlink = isDir && !options.directoryNlink ? '-' : String(stat.nlink);
  const parts = [
    path, stat.mode.toString(8), `${stat.uid}:${stat.gid}`, `links ${nlink}`, `mtime ${mtime}`,
  ];
  if (!isDir) parts.push(`size ${stat.size}`);
  if (stat.rdevMajor !== 0 || stat.rdevMinor !== 0) parts.push(`dev ${stat.rdevMajor}:${stat.rdevMinor}`);
  if (group !== path) parts.push(`same as ${group}`);
  parts.push(...(yield* xattrTexts(inode)));
  if (type === S_IFLNK) parts.push(`-> ${yield* inode.readlink()}`);
  if (type === S_IFREG) parts.push(JSON.stringify(yield* contentText(inode, stat.size)));
  walk.lines.push(parts.join(' '));
  if (isDir) yield* describeEntries(inode, path, walk);
}

function* describeEntries(dir: Inode, path: string, walk: Walk): Task<void> {
  const names = new Set<string>();
  // In order: so that the first path of a link group is the same whatever the order of the host.
  const entries = (yield* dir.readdir()).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const where = path === '/' ? `/${entry.name}` : `${path}/${entry.name}`;
    assert(!names.has(entry.name), `${where} is listed twice`);
    names.add(entry.name);
    const child = yield* dir.lookup(entry.name);
    assert(child !== undefined, `${where} is listed and not found`);
    const stat = yield* child.getattr();
    assert(stat.ino === entry.ino, `${where} is number ${stat.ino}, listed as ${entry.ino}`);
    yield* describe(child, where, stat, walk);
    if (walk.options.forgets) child.forget();
  }
}

function* xattrTexts(inode: Inode): Task<string[]> {
  const texts: string[] = [];
  for (const name of (yield* inode.listxattr?.() ?? none()).toSorted()) {
    if (name === 'security.selinux') continue;
    const value = yield* inode.getxattr!(name);
    texts.push(`${name}=${JSON.stringify(textOf(value ?? new Uint8Array(0)))}`);
  }
  return texts;
}

// oxlint-disable-next-line require-yield
function* none(): Task<string[]> {
  return [];
}

/** Short contents whole; of long ones the bytes that are not zero, with where they are. */
function* contentText(inode: Inode, size: number): Task<string> {
  const bytes = new Uint8Array(Math.min(size + 1, 1 << 20));
  const length = yield* inode.read({ bytes, offset: 0, length: bytes.length }, 0);
  const text = textOf(bytes.subarray(0, length));
  return text.replaceAll(/(.)\1{15,}/gs, (run, char: string) => `<${run.length}*${char.charCodeAt(0)}>`);
}
