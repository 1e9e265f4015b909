/**
 * Trees as values, and what differs between two of them, in words a person can read.
 *
 * Not compared unless asked for: access times; sizes of directories; block counts. Hard links are
 * compared as groups of names, never as inode numbers.
 */
import type { Caller } from './caller.ts';
import type { TreeEntry } from './calls.ts';

export type { TreeEntry };

export interface CompareOptions {
  /** Nanosecond modification times: of everything, of nothing, or a filter. */
  mtimes?: boolean | ((wanted: TreeEntry, found: TreeEntry) => boolean);
  directoryNlink?: boolean;
  /** readdir's d_type and d_ino agree with lstat. */
  dirents?: boolean;
  owners?: boolean;
  xattrs?: boolean;
  /** Contents of which files. */
  contents?: (path: string) => boolean;
  ignore?: (path: string) => boolean;
}

export function readTree(caller: Caller, root: string): Promise<TreeEntry[]> {
  return caller.do('tree', root);
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const isDirectory = (e: TreeEntry): boolean => (e.stat.mode & S_IFMT) === S_IFDIR;

/** For every path its hard-link group: the names of the same inode, those in the tree. */
function linkGroups(tree: readonly TreeEntry[]): Map<string, string> {
  const names = new Map<string, string[]>();
  for (const entry of tree) {
    if (isDirectory(entry)) continue;
    const group = names.get(entry.stat.ino) ?? [];
    group.push(entry.path);
    names.set(entry.stat.ino, group);
  }
  const out = new Map<string, string>();
  for (const group of names.values()) for (const name of group) out.set(name, group.join(' = '));
  return out;
}

function* entryDifferences(w: TreeEntry, f: TreeEntry, options: CompareOptions): Generator<string> {
  const field = (name: string, wanted: unknown, found: unknown): string[] =>
    wanted === found ? [] : [`${name} ${String(found)}, wanted ${String(wanted)}`];
  yield* field('mode', w.stat.mode.toString(8), f.stat.mode.toString(8));
  if ((w.stat.mode & S_IFMT) !== (f.stat.mode & S_IFMT)) return;
  if (options.owners !== false) {
    yield* field('owner', `${w.stat.uid}:${w.stat.gid}`, `${f.stat.uid}:${f.stat.gid}`);
  }
  if (!isDirectory(w) || options.directoryNlink === true) yield* field('nlink', w.stat.nlink, f.stat.nlink);
  const content = options.contents?.(w.path) !== false;
  if (!isDirectory(w) && content) yield* field('size', w.stat.size, f.stat.size);
  yield* field('rdev', w.stat.rdev, f.stat.rdev);
  yield* field('target', w.target, f.target);
  if (content) yield* field('content', w.hash, f.hash);
  if (options.xattrs !== false) {
    for (const name of new Set([...Object.keys(w.xattrs), ...Object.keys(f.xattrs)])) {
      yield* field(`xattr ${name}`, w.xattrs[name], f.xattrs[name]);
    }
  }
  // The root's own time is the topmost branch's: it says nothing about the tree.
  const times = w.path === '.' ? false : options.mtimes;
  if (times === true || (typeof times === 'function' && times(w, f))) {
    yield* field('mtime', w.stat.mtimeNs, f.stat.mtimeNs);
  }
}

/** Empty if the trees are the same. */
export function compareTrees(
  wanted: readonly TreeEntry[],
  found: readonly TreeEntry[],
  options: CompareOptions = {},
): string[] {
  const kept = (tree: readonly TreeEntry[]): TreeEntry[] => tree.filter((e) => options.ignore?.(e.path) !== true);
  const want = new Map(kept(wanted).map((e) => [e.path, e]));
  const have = new Map(kept(found).map((e) => [e.path, e]));
  const wantGroups = linkGroups(kept(wanted));
  const haveGroups = linkGroups(kept(found));
  const out: string[] = [];
  for (const path of want.keys()) if (!have.has(path)) out.push(`${shown(path)}: missing`);
  for (const path of have.keys()) if (!want.has(path)) out.push(`${shown(path)}: should not be there`);
  for (const [path, w] of want) {
    const f = have.get(path);
    if (f === undefined) continue;
    for (const difference of entryDifferences(w, f, options)) out.push(`${shown(path)}: ${difference}`);
    if (haveGroups.get(path) !== wantGroups.get(path)) {
      out.push(`${shown(path)}: links ${haveGroups.get(path)}, wanted ${wantGroups.get(path)}`);
    }
    if (options.dirents !== false) for (const p of f.problems) out.push(`${shown(path)}: ${p}`);
  }
  return out;
}

function shown(path: string): string {
  return JSON.stringify(path).slice(1, -1);
}

/** Throws with the first differences, if there are any. */
export function assertSameTree(
  wanted: readonly TreeEntry[],
  found: readonly TreeEntry[],
  when: string,
  options: CompareOptions = {},
): void {
  const differences = compareTrees(wanted, found, options);
  if (differences.length === 0) return;
  const more = differences.length > 20 ? `\n  … and ${differences.length - 20} more` : '';
  throw new Error(`${when}: the trees differ\n  ${differences.slice(0, 20).join('\n  ')}${more}`);
}
