/**
 * Workspaces: a named set of layers over real trees, made by `run`, kept between runs.
 *
 * On disk: WORKSPACES/NAME/workspace.json and, for each covered path, layers/N/{upper,work}. An upper
 * has the kernel overlayfs's format; its base is the covered path itself.
 *
 * K1. A workspace's directory never lies inside a path that it covers: it would be part of the view.
 *     Where the usual place does (a home directory is covered), /var/tmp takes it.
 * K2. workspace.json is written whole or not at all.
 * K3. `created` of a layer is a time of the same clock that stamps the base's inodes: what changed in
 *     the base after it is drift.
 */
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  futimesSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { isInside } from '../mount/mountinfo.ts';
import { MountError } from '../mount/options.ts';
import { ensurePrivateDirectory, spareDirectory, stateHome } from '../mount/state.ts';
import { tryGetxattr, tryListxattr, trySetxattr, xattrNames, xattrValue } from '../sys/xattr.ts';

export interface WorkspaceLayer {
  /** The covered path, real. */
  base: string;
  upper: string;
  work: string;
  createdSec: number;
  createdNsec: number;
}

export interface WorkspaceRecord {
  version: 1;
  name: string;
  /** ISO 8601. */
  created: string;
  layers: WorkspaceLayer[];
}

export interface Workspace extends WorkspaceRecord {
  directory: string;
}

const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Both places a workspace may be in, the usual one first. */
function roots(): string[] {
  return [join(stateHome(), 'workspaces'), join(spareDirectory(), 'workspaces')];
}

export function checkName(name: string): string {
  if (NAME_PATTERN.test(name)) return name;
  throw new MountError(
    'usage',
    `"${name}" cannot be a workspace's name: letters, digits, ".", "_" and "-", at most 64`,
  );
}

const recordPath = (directory: string): string => join(directory, 'workspace.json');

function load(directory: string): Workspace | undefined {
  let text: string;
  try {
    text = readFileSync(recordPath(directory), 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
  const record = JSON.parse(text) as WorkspaceRecord;
  if (record.version !== 1) {
    throw new MountError('failed', `${recordPath(directory)} is of a later version of palimpsest`);
  }
  return { ...record, directory };
}

export function findWorkspace(name: string): Workspace | undefined {
  if (!NAME_PATTERN.test(name)) return undefined;
  for (const root of roots()) {
    const workspace = load(join(root, name));
    if (workspace !== undefined) return workspace;
  }
  return undefined;
}

export function listWorkspaces(): Workspace[] {
  const found: Workspace[] = [];
  for (const root of roots()) {
    if (!existsSync(root)) continue;
    for (const name of readdirSync(root)) {
      const workspace = load(join(root, name));
      if (workspace !== undefined) found.push(workspace);
    }
  }
  return found.toSorted((a, b) => (a.created < b.created ? -1 : 1));
}

function save(workspace: Workspace): void {
  const { directory, ...record } = workspace;
  const path = recordPath(directory);
  writeFileSync(`${path}.new`, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** The first root that no covered path contains (K1). */
function rootFor(bases: readonly string[]): string {
  for (const root of roots()) {
    if (bases.some((base) => isInside(root, base))) continue;
    ensurePrivateDirectory(join(root, '..'));
    return ensurePrivateDirectory(root);
  }
  throw new MountError(
    'refused',
    `nowhere to keep the changes: ${roots().join(' and ')} lie inside the covered trees. ` +
      'Cover less, or set XDG_STATE_HOME to a directory outside of them',
  );
}

function makeLayer(directory: string, index: number, base: string): WorkspaceLayer {
  const layer = join(directory, 'layers', String(index));
  const upper = join(layer, 'upper');
  const work = join(layer, 'work');
  mkdirSync(layer, { recursive: true });
  // The view's root shows the upper's own metadata: it must look like the base.
  mkdirSync(upper);
  mkdirSync(work, { mode: 0o700 });
  adoptMetadata(upper, base);
  const now = statSync(upper, { bigint: true }).ctimeNs;
  const createdSec = Number(now / 1_000_000_000n);
  return { base, upper, work, createdSec, createdNsec: Number(now % 1_000_000_000n) };
}

/** Owner, mode, and what decides the ownership of new files: ACLs and other attributes. */
function adoptMetadata(upper: string, base: string): void {
  const { mode, uid, gid, atime, mtime } = statSync(base);
  const from = openSync(base, constants.O_RDONLY | constants.O_DIRECTORY);
  const to = openSync(upper, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    if (process.geteuid?.() === 0) fchownSync(to, uid, gid);
    const listed = tryListxattr(from, '');
    for (const name of listed > 0 ? xattrNames(listed) : []) {
      // Another union's bookkeeping says nothing about this one.
      if (name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.')) continue;
      const length = tryGetxattr(from, '', name);
      if (length >= 0) trySetxattr(to, '', name, xattrValue(length), 0);
    }
    fchmodSync(to, mode & 0o7777);
    futimesSync(to, atime, mtime);
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

/** Errors: MountError `refused` if there is no place (K1); `usage` a bad name. */
export function createWorkspace(name: string | undefined, bases: readonly string[]): Workspace {
  const root = rootFor(bases);
  const directory = claimDirectory(root, name, basename(bases[0]!));
  const workspace: Workspace = {
    version: 1,
    name: basename(directory),
    created: new Date().toISOString(),
    layers: [],
    directory,
  };
  try {
    bases.forEach((base, index) => workspace.layers.push(makeLayer(directory, index, base)));
    save(workspace);
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  return workspace;
}

/** The name that was asked for, or the first free `tree-1`, `tree-2`, …: mkdir decides, once. */
function claimDirectory(root: string, name: string | undefined, tree: string): string {
  if (name !== undefined) {
    const directory = join(root, checkName(name));
    mkdirSync(directory, { mode: 0o700 });
    return directory;
  }
  const stem = tree.replaceAll(/[^A-Za-z0-9._-]/g, '-').replace(/^[^A-Za-z0-9]+/, '') || 'run';
  for (let number = 1; ; number++) {
    const candidate = `${stem.slice(0, 50)}-${number}`;
    if (findWorkspace(candidate) !== undefined) continue;
    try {
      mkdirSync(join(root, candidate), { mode: 0o700 });
      return join(root, candidate);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** Cover further paths with a workspace that exists. */
export function extendWorkspace(workspace: Workspace, bases: readonly string[]): void {
  for (const base of bases) {
    if (isInside(workspace.directory, base)) {
      throw new MountError(
        'refused',
        `${base} contains the workspace itself (${workspace.directory}): begin another one`,
      );
    }
    workspace.layers.push(makeLayer(workspace.directory, workspace.layers.length, base));
  }
  save(workspace);
}

/** Forget the workspace with all its changes. The caller holds its locks. */
export function removeWorkspace(workspace: Workspace): void {
  // First what makes it a workspace: a removal that is cut short must not leave half of its changes.
  rmSync(recordPath(workspace.directory));
  for (const layer of workspace.layers) {
    openDirectories(layer.upper);
    openDirectories(layer.work);
  }
  rmSync(workspace.directory, { recursive: true, force: true });
}

/** Directories that the command made unwritable for this user must open again to be emptied. */
function openDirectories(directory: string): void {
  if (process.geteuid?.() === 0 || !existsSync(directory)) return;
  const pending = [Buffer.from(directory)];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    chmodSync(path, 0o700);
    for (const entry of readdirSync(path, { withFileTypes: true, encoding: 'buffer' })) {
      if (entry.isDirectory()) pending.push(Buffer.concat([path, Buffer.from('/'), entry.name]));
    }
  }
}
