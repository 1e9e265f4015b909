/** Merged readdir: every visible name once, with the inode number that lookup gives. */
import { S_IFDIR } from '../../abi/mode.ts';
import type { Task } from '../../kernel/task.ts';
import type { DirEntry, Name } from '../../vfs/inode-operations.ts';
import { ORIGIN, WH_PREFIX } from './format.ts';
import type { Layer, UnionInode } from './inode.ts';
import { isImpure, originNumber, requireDirectory } from './lookup.ts';
import { hidingFacts, isWhiteoutEntry } from './whiteout.ts';

export function* readdir(dir: UnionInode): Task<DirEntry[]> {
  requireDirectory(dir);
  if (dir.orphan) return [];
  dir.fs.beneath.watch(dir);
  const layers = dir.layers();
  if (layers.length === 1) return yield* listLayer(dir, layers[0]!, undefined);
  const names = new Set<Name>();
  const entries: DirEntry[] = [];
  for (const layer of layers) {
    for (const entry of yield* listLayer(dir, layer, names)) entries.push(entry);
  }
  return entries;
}

/** One layer's visible entries that are not in `seen`; its names and whiteouts are added to `seen`. */
function* listLayer(dir: UnionInode, layer: Layer, seen: Set<Name> | undefined): Task<DirEntry[]> {
  const { branch, inode } = layer;
  const bottom = branch.index === branch.bottomIndex;
  const impure = branch.writable && (yield* isImpure(branch, inode));
  const dots = bottom || branch.writable ? undefined : (yield* hidingFacts(branch, inode)).dotNames;
  const visible: DirEntry[] = [];
  for (const entry of yield* inode.readdir()) {
    if (seen?.has(entry.name)) continue;
    if (entry.name === branch.hidden && inode === branch.root) continue;
    if (dots !== undefined && entry.name.startsWith(WH_PREFIX)) continue;
    seen?.add(entry.name);
    if (yield* isWhiteoutEntry(branch, inode, entry)) continue;
    entry.ino = yield* numberOfEntry(dir, layer, entry, impure);
    visible.push(entry);
  }
  // Only now: a `.wh.` file hides what is beneath, not its neighbours.
  for (const name of dots ?? []) seen?.add(name as Name);
  return visible;
}

/** Known objects tell; of others only one in an impure directory can have another than its own. */
function* numberOfEntry(dir: UnionInode, layer: Layer, entry: DirEntry, impure: boolean): Task<number> {
  const known = dir.children?.get(entry.name);
  if (known !== undefined) return known.ino;
  const own = dir.fs.numbers.of(layer.branch.numberSpace, entry.ino);
  if (!impure) return own;
  const child = yield* layer.inode.lookup(entry.name);
  if (child === undefined) return own;
  const origin = (yield* layer.branch.overlayXattr(child, ORIGIN)) === undefined
    ? undefined
    : yield* originNumber(dir.fs.branches, { branch: layer.branch, inode: child });
  child.forget();
  return origin ?? own;
}

/** Is nothing visible in it? */
export function* isLogicallyEmpty(dir: UnionInode): Task<boolean> {
  return dir.type === S_IFDIR && (yield* readdir(dir)).length === 0;
}
