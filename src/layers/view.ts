/**
 * Layers seen as one tree, for reading: what a union over them would show.
 *
 * Words: a *piece* is one layer's inode of an object; a *node* is an object of the view: of a merged
 * directory all its pieces, topmost first; of a file its one piece, or, where metadata alone was
 * copied up, that and then the piece that has the data.
 *
 * V1. A node's pieces are never empty. `pieces[0]` has the metadata.
 * V2. A path of a node is its path in the view it was looked up in.
 * V3. Redirects are paths in the view of the layers beneath the one that says them.
 *  cf. ovl_lookup() in fs/overlayfs/namei.c
 */
import { Errno } from '../abi/errno.ts';
import { S_IFMT, isDir, isReg } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import type { LayerSet } from './types.ts';
import { LayerError } from './types.ts';
import {
  STAGING_PREFIX,
  dirFlags,
  entriesOfLayer,
  isMetacopy,
  layerOf,
  lookupInLayer,
  redirectOfFile,
} from './whiteout-format.ts';
import type { Layer } from './whiteout-format.ts';

export interface Piece {
  /** 0 is the upper. */
  readonly layer: number;
  readonly inode: Inode;
}

export interface ViewNode {
  readonly layers: readonly Layer[];
  readonly path: string;
  /** S_IFMT bits. */
  readonly type: number;
  readonly pieces: readonly Piece[];
  /** Of a file of the upper that has its data beneath: where, in the view of the layers beneath. */
  readonly dataPath?: string;
}

export const joinPath = (dir: string, name: string): string =>
  dir === '' ? name : `${dir}/${name}`;

export function parentPath(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

export const lastName = (path: string): Name => path.slice(path.lastIndexOf('/') + 1) as Name;

export const componentsOf = (path: string): Name[] =>
  path.split('/').filter((part) => part !== '') as Name[];

/** Layer 0 is the upper. */
export function layersOf(set: LayerSet): Layer[] {
  const lowest = set.lowers.length - 1;
  return [
    { ...layerOf(set.upper, set.xattrPrefix, set.dotWhiteouts ?? false), hidden: set.hidden },
    ...set.lowers.map((root, i) => layerOf(root, set.xattrPrefix, i < lowest)),
  ];
}

/** The root of the view of the layers from `first` on; undefined if there is none. */
export function rootOf(layers: readonly Layer[], first: number): ViewNode | undefined {
  const pieces = layers.slice(first).map((layer, i) => ({ layer: first + i, inode: layer.root }));
  if (pieces.length === 0) return undefined;
  return { layers, path: '', type: pieces[0]!.inode.type, pieces };
}

export const metadataInode = (node: ViewNode): Inode => node.pieces[0]!.inode;
export const dataInode = (node: ViewNode): Inode => node.pieces.at(-1)!.inode;

export function* statOf(node: ViewNode): Task<Stat> {
  return yield* metadataInode(node).getattr();
}

export const isDirNode = (node: ViewNode): boolean => isDir(node.type);

export function* lookupChild(dir: ViewNode, name: Name): Task<ViewNode | undefined> {
  if (!isDirNode(dir)) return undefined;
  const pieces = yield* resolve(dir.layers, dir.pieces, name);
  if (pieces.length === 0) return undefined;
  const type = pieces[0]!.inode.type & S_IFMT;
  return { layers: dir.layers, path: joinPath(dir.path, name), type, pieces };
}

export function* lookupPath(root: ViewNode, path: string): Task<ViewNode | undefined> {
  let node: ViewNode | undefined = root;
  for (const name of componentsOf(path)) {
    node = yield* lookupChild(node, name);
    if (node === undefined) return undefined;
  }
  return node;
}

/** Which pieces, topmost first, are under `name` of the directory that `dirs` make up. */
function* resolve(layers: readonly Layer[], dirs: readonly Piece[], name: Name): Task<Piece[]> {
  const found: Piece[] = [];
  for (const [i, dir] of dirs.entries()) {
    const layer = layers[dir.layer]!;
    const entry = yield* lookupInLayer(layer, dir.inode, name);
    if (entry === undefined) continue;
    if (entry.inode === undefined) break;
    // A directory over a file, or a file over a directory, hides it.
    if (found.length > 0 && isDir(found[0]!.inode.type) !== isDir(entry.inode.type)) break;
    const piece = { layer: dir.layer, inode: entry.inode };
    found.push(piece);
    if (entry.whiteout) break;
    const next = yield* continuation(layers, piece);
    if (next === 'end') break;
    if (next === 'same name') continue;
    const beneath = { layer: dir.layer + 1, siblings: dirs.slice(i + 1) };
    found.push(...(yield* redirected(layers, beneath, next.redirect)));
    break;
  }
  return found;
}

/** How the layers beneath go on with this piece. */
function* continuation(
  layers: readonly Layer[],
  piece: Piece,
): Task<'end' | 'same name' | { redirect: string }> {
  const layer = layers[piece.layer]!;
  if (piece.layer === layers.length - 1) return 'end';
  if (isDir(piece.inode.type)) {
    const flags = yield* dirFlags(layer, piece.inode);
    if (flags.opaque) return 'end';
    return flags.redirect === undefined ? 'same name' : { redirect: flags.redirect };
  }
  if (!isReg(piece.inode.type) || !(yield* isMetacopy(layer, piece.inode))) return 'end';
  const redirect = yield* redirectOfFile(layer, piece.inode);
  return redirect === undefined ? 'same name' : { redirect };
}

function* redirected(
  layers: readonly Layer[],
  beneath: { layer: number; siblings: readonly Piece[] },
  redirect: string,
): Task<Piece[]> {
  if (!redirect.startsWith('/')) {
    checkRedirect(redirect);
    return yield* resolve(layers, beneath.siblings, redirect as Name);
  }
  // An absolute one starts at the roots beneath: the parent may have no pieces there at all.
  let pieces = rootOf(layers, beneath.layer)!.pieces;
  for (const name of componentsOf(redirect)) {
    checkRedirect(name);
    if (pieces.length === 0 || !isDir(pieces[0]!.inode.type)) return [];
    pieces = yield* resolve(layers, pieces, name);
  }
  return [...pieces];
}

function checkRedirect(name: string): void {
  if (name === '' || name === '.' || name === '..' || name.includes('/')) {
    throw new LayerError(
      Errno.EIO,
      'a redirect in the upper is not a path: the workspace is damaged',
    );
  }
}

/** All children of a merged directory, sorted by bytes. */
export function* childrenOf(dir: ViewNode): Task<ViewNode[]> {
  const names = new Set<Name>();
  for (const piece of dir.pieces) {
    const layer = dir.layers[piece.layer]!;
    if (layer.dotWhiteouts) {
      const flags = yield* dirFlags(layer, piece.inode);
      for (const entry of yield* entriesOfLayer(layer, piece.inode, flags)) names.add(entry.name);
    } else {
      for (const entry of yield* piece.inode.readdir()) names.add(entry.name);
    }
  }
  const children: ViewNode[] = [];
  for (const name of [...names].sort()) {
    if (dir.path === '' && name.startsWith(STAGING_PREFIX)) continue;
    const child = yield* lookupChild(dir, name);
    if (child !== undefined) children.push(child);
  }
  return children;
}

/** Every node beneath, parents first, in the order of names. `skip` keeps a subtree out. */
export function* walkBeneath(
  dir: ViewNode,
  visit: (node: ViewNode) => Task<void>,
  skip?: (node: ViewNode) => boolean,
): Task<void> {
  for (const child of yield* childrenOf(dir)) {
    if (skip?.(child) === true) continue;
    yield* visit(child);
    if (isDirNode(child)) yield* walkBeneath(child, visit, skip);
  }
}
