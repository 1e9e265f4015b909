/**
 * Renamed files: a new file whose recorded origin is an inode that lost its name.
 *
 * A directory's rename is written in the upper (redirect); a file's is not, but the copy carries the
 * handle of the inode it was copied from. A new name with that origin and a deleted name of that
 * inode make a rename; what is left over stays an addition or a deletion.
 */
import { decodeOrigin, inoOfBase, BASE, ORIGIN } from '../fs/union/format.ts';
import type { Task } from '../kernel/task.ts';
import { hexOf } from '../lib/latin1.ts';
import type { FileHandle, Inode } from '../vfs/inode-operations.ts';
import { compareNodes } from './compare.ts';
import { makeChange } from './diff-context.ts';
import type { DiffContext } from './diff-context.ts';
import type { Change } from './types.ts';
import { isDirNode, metadataInode, statOf, walkBeneath } from './view.ts';
import type { ViewNode } from './view.ts';
import { overlayXattr } from './whiteout-format.ts';

export const handleKey = (handle: FileHandle): string => `${handle.type}:${hexOf(handle.bytes)}`;

export function* pairRenamedFiles(ctx: DiffContext): Task<void> {
  const added: { change: Change; keys: string[] }[] = [];
  for (const change of ctx.changes) {
    if (change.op !== 'A' || change.type === 'dir') continue;
    const keys = yield* originKeys(ctx, change.newNode!);
    if (keys.length > 0) added.push({ change, keys });
  }
  if (added.length === 0) return;
  const gone = yield* goneFiles(ctx);
  const replacedBy = new Map<Change, Change>();
  const consumed = new Set<string>();
  const deletions = new Map(ctx.changes.filter((c) => c.op === 'D').map((c) => [c.path, c]));
  for (const { change, keys } of added) {
    const old = keys
      .map((key) => gone.get(key))
      .find((node) => node?.type === change.newNode!.type);
    if (old === undefined || consumed.has(old.path)) continue;
    consumed.add(old.path);
    const difference = yield* compareNodes(old, change.newNode!, {});
    const renamed = yield* makeChange('R', change.newNode, old, { difference });
    const said = deletions.get(old.path);
    if (said?.upperPath !== undefined) renamed.upperPath = said.upperPath;
    if (said === undefined || said.hidden === true) renamed.hidden = true;
    replacedBy.set(change, renamed);
  }
  ctx.changes = ctx.changes
    .filter((c) => c.op !== 'D' || !consumed.has(c.path) || c.type === 'dir')
    .map((c) => replacedBy.get(c) ?? c);
}

/** How the inode that this was copied from may be known: by handle, or by number. */
function* originKeys(ctx: DiffContext, node: ViewNode): Task<string[]> {
  const layer = ctx.layers[0]!;
  const inode = metadataInode(node);
  const keys: string[] = [];
  const origin = yield* overlayXattr(layer, inode, ORIGIN);
  const handle = origin === undefined ? undefined : decodeOrigin(origin);
  if (handle !== undefined) keys.push(handleKey(handle));
  const base = yield* overlayXattr(layer, inode, BASE);
  const ino = base === undefined ? undefined : inoOfBase(base);
  if (ino !== undefined) keys.push(`ino:${ino}`);
  return keys;
}

/** All that lost its name and is no directory, by every key it may be known by. */
function* goneFiles(ctx: DiffContext): Task<Map<string, ViewNode>> {
  const gone = new Map<string, ViewNode>();
  const note = function* (node: ViewNode): Task<void> {
    if (isDirNode(node)) return;
    for (const key of yield* keysOf(metadataInode(node))) if (!gone.has(key)) gone.set(key, node);
    // Inode numbers mean something within one filesystem only.
    if (ctx.layers.length === 2) gone.set(`ino:${(yield* statOf(node)).ino}`, node);
  };
  for (const change of ctx.changes) {
    const old = change.op === 'D' || change.op === 'T' ? change.oldNode : undefined;
    if (old === undefined) continue;
    if (change.op === 'D') yield* note(old);
    if (isDirNode(old) && ctx.options.expand !== true) {
      yield* walkBeneath(old, note, (node) => ctx.moved.has(node.path));
    }
  }
  return gone;
}

export function* keysOf(inode: Inode): Task<string[]> {
  const handle = inode.exportHandle === undefined ? undefined : yield* inode.exportHandle();
  return handle === undefined ? [] : [handleKey(handle)];
}
