/**
 * Hard links in a diff.
 *
 * L1. Of several names of one upper inode, all but the first say `linkTo`.
 * L2. Names that are one inode now and were not before (or the other way round) are a change (X),
 *     though their content and metadata may be equal.
 * L3. With an index, a file that has several names beneath is changed under all of them, also under
 *     those that the upper does not have: they are found by walking the view, only where needed.
 */
import { DT_DIR, isDir } from '../abi/mode.ts';
import { decodeNlink, decodeOrigin, NLINK } from '../fs/union/format.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import { compareNodes } from './compare.ts';
import { makeChange, opOf } from './diff-context.ts';
import type { DiffContext, LinkName } from './diff-context.ts';
import { handleKey, keysOf } from './renames.ts';
import { isDirNode, rootOf, statOf, walkBeneath } from './view.ts';
import type { ViewNode } from './view.ts';
import { isWhiteoutInode, overlayXattr } from './whiteout-format.ts';

export function* describeLinks(ctx: DiffContext): Task<void> {
  if (ctx.links.size === 0) return;
  const changeAt = new Map(ctx.changes.filter((c) => c.op !== 'D').map((c) => [c.path, c]));
  for (const names of ctx.links.values()) {
    if (names.length < 2) continue;
    names.sort((a, b) => (a.path < b.path ? -1 : 1));
    const first = names[0]!.path;
    const sameBefore = wereOne(names);
    for (const name of names) {
      let change = changeAt.get(name.path);
      if (
        change === undefined &&
        !sameBefore &&
        name.path !== first &&
        name.oldNode !== undefined
      ) {
        const difference = yield* compareNodes(name.oldNode, name.node, { skipContent: true });
        change = yield* makeChange('X', name.node, name.oldNode, { difference });
        ctx.changes.push(change);
      }
      if (change !== undefined && name.path !== first) change.linkTo = first;
    }
  }
}

export const wereOne = (names: readonly LinkName[]): boolean =>
  names.every((name) => name.oldIno !== undefined && name.oldIno === names[0]!.oldIno);

/** L3. */
export function* addIndexedNames(ctx: DiffContext): Task<void> {
  const index = yield* indexedInodes(ctx);
  if (index.size === 0) return;
  const root = rootOf(ctx.layers, 0)!;
  const visit = function* (node: ViewNode): Task<void> {
    const piece = node.pieces[0]!;
    if (piece.layer === 0 || isDirNode(node)) return;
    if ((yield* statOf(node)).nlink < 2) return;
    const [key] = yield* keysOf(piece.inode);
    const upper = key === undefined ? undefined : index.get(key);
    if (upper !== undefined) yield* addName(ctx, node, upper);
  };
  yield* walkBeneath(root, visit);
}

function* addName(ctx: DiffContext, node: ViewNode, upper: Inode): Task<void> {
  const newNode: ViewNode = { ...node, pieces: [{ layer: 0, inode: upper }, ...node.pieces] };
  const whole: ViewNode = { ...newNode, pieces: newNode.pieces.slice(0, 1) };
  const oldNode: ViewNode = { ...node, path: yield* basePathOf(ctx, node) };
  const metacopy = (yield* overlayXattr(ctx.layers[0]!, upper, 'metacopy')) !== undefined;
  const shown = metacopy ? newNode : whole;
  const ino = (yield* upper.getattr()).ino;
  const names = ctx.links.get(ino) ?? [];
  names.push({
    path: node.path,
    node: shown,
    oldNode,
    oldIno: (yield* statOf(node)).ino,
    indexed: true,
  });
  ctx.links.set(ino, names);
  const difference = yield* compareNodes(oldNode, shown, {});
  const op = opOf(difference, ctx.options.mtime === true);
  if (op !== undefined) ctx.changes.push(yield* makeChange(op, shown, oldNode, { difference }));
}

/** The path in the base of a node of the view that the upper has nothing of. */
// oxlint-disable-next-line require-yield
function* basePathOf(ctx: DiffContext, node: ViewNode): Task<string> {
  let dir = node.path;
  let rest = '';
  for (;;) {
    const slash = dir.lastIndexOf('/');
    rest = dir.slice(slash + 1) + (rest === '' ? '' : `/${rest}`);
    dir = slash < 0 ? '' : dir.slice(0, slash);
    const merge = ctx.dirs.get(dir)?.merge;
    if (merge !== undefined) return merge.path === '' ? rest : `${merge.path}/${rest}`;
    if (dir === '') return node.path;
  }
}

/** Upper inodes by the handle of the base inode that they stand for, where names are unaccounted for. */
function* indexedInodes(ctx: DiffContext): Task<Map<string, Inode>> {
  const found = new Map<string, Inode>();
  const index = yield* ctx.options.work?.lookup('index' as Name) ?? nothing();
  if (index === undefined) return found;
  const layer = ctx.layers[0]!;
  for (const entry of yield* index.readdir()) {
    if (entry.type === DT_DIR) continue;
    const handle = handleOfName(entry.name);
    const inode = handle === undefined ? undefined : yield* index.lookup(entry.name);
    if (handle === undefined || inode === undefined || isDir(inode.type)) continue;
    if (yield* isWhiteoutInode(layer, inode, true)) continue;
    if (!(yield* allNamesInUpper(ctx, inode))) found.set(handleKey(handle), inode);
  }
  return found;
}

// oxlint-disable-next-line require-yield
function* nothing(): Task<Inode | undefined> {
  return undefined;
}

/** The index's own name is the one that the union's count (`U-1`) does not have. */
function* allNamesInUpper(ctx: DiffContext, inode: Inode): Task<boolean> {
  const record = yield* overlayXattr(ctx.layers[0]!, inode, NLINK);
  const nlink = record === undefined ? undefined : decodeNlink(record);
  return nlink !== undefined && nlink.relativeTo === 'U' && nlink.difference === -1;
}

/** An entry of the index is named by the handle's record in hex. */
function handleOfName(name: string): ReturnType<typeof decodeOrigin> {
  if (name.length % 2 !== 0 || !/^[0-9a-f]+$/.test(name)) return undefined;
  return decodeOrigin(new Uint8Array(Buffer.from(name, 'hex')));
}
