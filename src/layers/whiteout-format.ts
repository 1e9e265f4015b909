/**
 * Reading what a union wrote beside the files: whiteouts, opaque, redirect, metacopy, origin.
 *
 * W1. Three forms of whiteout are understood: a character device 0:0; an empty regular file with the
 *     xattr `overlay.whiteout` in a directory whose `overlay.opaque` is `x`; a file `.wh.NAME`.
 * W2. `.wh.` means nothing in the lowest layer, a plain directory that may hold such names, nor in an
 *     upper unless the caller says so: a union writes the other forms.
 * Not here: writing them, which is the union's.  cf. ovl_path_is_whiteout(), ovl_path_check_xwhiteout_xattr()
 */
import { Errno } from '../abi/errno.ts';
import { DT_CHR, DT_REG, DT_UNKNOWN, S_IFCHR, S_IFREG, isDir } from '../abi/mode.ts';
import { METACOPY, OPAQUE, REDIRECT, WHITEOUT, WH_OPAQUE, WH_PREFIX } from '../fs/union/format.ts';
import { errnoOf } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import { textOf } from '../lib/latin1.ts';
import type { DirEntry, Inode, Name } from '../vfs/inode-operations.ts';

export interface Layer {
  readonly root: Inode;
  /** Beginnings of its own xattrs: `trusted.overlay.`, `user.overlay.` or both. */
  readonly prefixes: readonly string[];
  readonly dotWhiteouts: boolean;
  /** An entry of the root that is not part of the tree. */
  readonly hidden?: Name | undefined;
}

/** What a directory of a layer says about the layers beneath. */
export interface DirFlags {
  readonly opaque: boolean;
  /** Whiteouts that are regular files may be in it. */
  readonly xattrWhiteouts: boolean;
  readonly redirect: string | undefined;
}

const OVERLAY_PREFIXES = ['trusted.overlay.', 'user.overlay.'] as const;
/** Staging directories of commits at the root of a base: never part of what is seen. */
export const STAGING_PREFIX = '.palimpsest-commit-';

export function layerOf(root: Inode, prefix: string | undefined, dotWhiteouts: boolean): Layer {
  const prefixes = prefix === undefined ? OVERLAY_PREFIXES : [`${prefix}overlay.`];
  return { root, prefixes, dotWhiteouts };
}

/** Is this one of the union's own xattrs, which no one sees and no commit carries over? */
export const isOverlayXattr = (name: string): boolean =>
  OVERLAY_PREFIXES.some((prefix) => name.startsWith(prefix));

/** Undefined too where the filesystem has no xattrs or we may not read them. */
export function* overlayXattr(
  layer: Layer,
  inode: Inode,
  name: string,
): Task<Uint8Array | undefined> {
  if (inode.getxattr === undefined) return undefined;
  for (const prefix of layer.prefixes) {
    try {
      const value = yield* inode.getxattr(prefix + name);
      if (value !== undefined) return value;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== Errno.EOPNOTSUPP && errno !== Errno.EPERM && errno !== Errno.EACCES)
        throw error;
    }
  }
  return undefined;
}

export function* dirFlags(layer: Layer, dir: Inode): Task<DirFlags> {
  const value = yield* overlayXattr(layer, dir, OPAQUE);
  const opaqueLetter = value === undefined ? '' : textOf(value);
  const redirect = yield* overlayXattr(layer, dir, REDIRECT);
  let opaque = opaqueLetter === 'y';
  if (!opaque && layer.dotWhiteouts) opaque = (yield* dir.lookup(WH_OPAQUE as Name)) !== undefined;
  return {
    opaque,
    xattrWhiteouts: opaqueLetter === 'x',
    redirect: redirect === undefined || redirect.length === 0 ? undefined : textOf(redirect),
  };
}

export function* isMetacopy(layer: Layer, inode: Inode): Task<boolean> {
  if (inode.type !== S_IFREG) return false;
  return (yield* overlayXattr(layer, inode, METACOPY)) !== undefined;
}

export function* redirectOfFile(layer: Layer, inode: Inode): Task<string | undefined> {
  const value = yield* overlayXattr(layer, inode, REDIRECT);
  return value === undefined || value.length === 0 ? undefined : textOf(value);
}

/** Is this inode, found under an ordinary name, a whiteout? */
export function* isWhiteoutInode(layer: Layer, inode: Inode, xattrForm: boolean): Task<boolean> {
  if (inode.type === S_IFCHR) {
    const stat = yield* inode.getattr();
    return stat.rdevMajor === 0 && stat.rdevMinor === 0;
  }
  if (inode.type !== S_IFREG || !xattrForm) return false;
  if ((yield* inode.getattr()).size !== 0) return false;
  return (yield* overlayXattr(layer, inode, WHITEOUT)) !== undefined;
}

/** One name of a directory of a layer. `inode` undefined: a whiteout and nothing else. */
export interface LayerEntry {
  readonly name: Name;
  readonly inode: Inode | undefined;
  /** The name is hidden in all layers beneath. */
  readonly whiteout: boolean;
}

/** What is under one name of one layer's directory. */
export function* lookupInLayer(layer: Layer, dir: Inode, name: Name): Task<LayerEntry | undefined> {
  if (layer.dotWhiteouts && name.startsWith(WH_PREFIX)) return undefined;
  const inode = yield* dir.lookup(name);
  const dotted = layer.dotWhiteouts && (yield* hasDotWhiteout(dir, name));
  if (inode === undefined) return dotted ? { name, inode, whiteout: true } : undefined;
  const xattrForm = inode.type === S_IFREG && (yield* mayHoldXattrWhiteouts(layer, dir, inode));
  if (yield* isWhiteoutInode(layer, inode, xattrForm))
    return { name, inode: undefined, whiteout: true };
  return { name, inode, whiteout: dotted };
}

/** The directory is only asked where the file is empty: most are not. */
function* mayHoldXattrWhiteouts(layer: Layer, dir: Inode, inode: Inode): Task<boolean> {
  if ((yield* inode.getattr()).size !== 0) return false;
  const value = yield* overlayXattr(layer, dir, OPAQUE);
  return value !== undefined && textOf(value) === 'x';
}

function* hasDotWhiteout(dir: Inode, name: string): Task<boolean> {
  const dotted = WH_PREFIX + name;
  if (dotted.length > 255) return false;
  return (yield* dir.lookup(dotted as Name)) !== undefined;
}

/** All names of one layer's directory with whiteouts told apart, sorted by bytes. */
export function* entriesOfLayer(layer: Layer, dir: Inode, flags: DirFlags): Task<LayerEntry[]> {
  const { hidden: absent } = layer;
  const all = yield* dir.readdir();
  const listed = dir === layer.root ? all.filter((entry) => entry.name !== absent) : all;
  const dotted = new Set<string>();
  const plain: DirEntry[] = [];
  for (const entry of listed) {
    if (!layer.dotWhiteouts || !entry.name.startsWith(WH_PREFIX)) plain.push(entry);
    else if (entry.name !== WH_OPAQUE) dotted.add(entry.name.slice(WH_PREFIX.length));
  }
  const entries: LayerEntry[] = [];
  for (const entry of plain) {
    const found = yield* classify(layer, dir, entry, flags);
    if (found === undefined) continue;
    const hidden = found.whiteout || dotted.delete(entry.name);
    entries.push({ name: entry.name, inode: found.inode, whiteout: hidden });
  }
  // `.wh..wh.aufs` and the like are aufs's own bookkeeping, not whiteouts of a name.
  for (const name of dotted) {
    if (!name.startsWith(WH_PREFIX))
      entries.push({ name: name as Name, inode: undefined, whiteout: true });
  }
  return entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function* classify(
  layer: Layer,
  dir: Inode,
  entry: DirEntry,
  flags: DirFlags,
): Task<{ inode: Inode | undefined; whiteout: boolean } | undefined> {
  const inode = yield* dir.lookup(entry.name);
  if (inode === undefined) return undefined;
  const { type } = entry;
  const suspect =
    type === DT_CHR || type === DT_UNKNOWN || (type === DT_REG && flags.xattrWhiteouts);
  if (
    suspect &&
    !isDir(inode.type) &&
    (yield* isWhiteoutInode(layer, inode, flags.xattrWhiteouts))
  ) {
    return { inode: undefined, whiteout: true };
  }
  return { inode, whiteout: false };
}
