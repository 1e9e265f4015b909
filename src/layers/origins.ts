/**
 * Origins that must be forgotten: a copy in the upper says which inode of the base it was made from,
 * and a union takes the two for one object. That is right while the base's is covered. Where the base
 * shows through again and a copy under another name stays, they are two.
 */
import { decodeOrigin, NLINK, ORIGIN } from '../fs/union/format.ts';
import type { Task } from '../kernel/task.ts';
import type { DiffContext } from './diff-context.ts';
import { handleKey, keysOf } from './renames.ts';
import type { Change } from './types.ts';
import { isDirNode, joinPath, lookupChild, metadataInode } from './view.ts';
import type { ViewNode } from './view.ts';
import { overlayXattr } from './whiteout-format.ts';

/** Paths of what stays in the upper and has one of the exposed for its origin. */
export function* staleOrigins(
  diff: DiffContext,
  exposed: readonly ViewNode[],
  staying: readonly Change[],
): Task<string[]> {
  const copies = staying.filter(
    (c) => c.op !== 'D' && c.type !== 'dir' && c.newNode!.pieces[0]!.layer === 0,
  );
  if (copies.length === 0) return [];
  const keys = new Set<string>();
  for (const node of exposed) {
    if (!isDirNode(node)) for (const key of yield* keysOf(metadataInode(node))) keys.add(key);
  }
  const stale: string[] = [];
  if (keys.size === 0) return stale;
  const layer = diff.layers[0]!;
  for (const { path, newNode } of copies) {
    const inode = metadataInode(newNode!);
    const origin = yield* overlayXattr(layer, inode, ORIGIN);
    const handle = origin === undefined ? undefined : decodeOrigin(origin);
    if (handle === undefined || !keys.has(handleKey(handle))) continue;
    // Names of an indexed file are one object on purpose.
    if ((yield* overlayXattr(layer, inode, NLINK)) === undefined) stale.push(path);
  }
  return stale;
}

/** What the base shows where the upper's entries, all but those to stay, are taken away and were not replaced. */
export function* exposedBy(diff: DiffContext, stays: (path: string) => boolean): Task<ViewNode[]> {
  const exposed: ViewNode[] = [];
  for (const dir of diff.dirs.values()) {
    if (dir.counterpart === undefined) continue;
    for (const entry of dir.entries) {
      if (stays(joinPath(dir.node.path, entry.name))) continue;
      const node = yield* lookupChild(dir.counterpart, entry.name);
      if (node !== undefined) exposed.push(node);
    }
  }
  return exposed;
}
