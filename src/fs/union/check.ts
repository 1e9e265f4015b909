/**
 * checkUnion: does what a union remembers agree with itself, and with what is on its branches?
 *
 * For tests, between operations (nobody may be in the middle of one). The invariants are U1 to U5 of
 * inode.ts, B2 of branch.ts, and that every cached fact is what asking anew would give.
 * Errors: AssertionError, with the path.
 */
import { S_IFDIR, S_IFREG } from '../../abi/mode.ts';
import { assert } from '../../lib/assert.ts';
import type { Task } from '../../kernel/task.ts';
import type { Inode } from '../../vfs/inode-operations.ts';
import { getattr } from './attributes.ts';
import { ORIGIN } from './format.ts';
import type { UnionInode } from './inode.ts';
import { isImpure, resolve } from './lookup.ts';
import type { Found } from './lookup.ts';
import { readdir } from './readdir.ts';
import type { UnionFs } from './union.ts';

export function* checkUnion(fs: UnionFs): Task<void> {
  fs.inodes.check();
  for (const inode of [...fs.inodes.values()]) {
    checkNames(inode);
    checkLayers(inode);
    yield* checkFacts(inode);
    if (inode.isDirectory) yield* checkDirectory(inode);
  }
  for (const branch of fs.branches) {
    if (!branch.writable) continue;
    const left = (yield* branch.work.readdir()).map((entry) => entry.name);
    const expected = branch.leftovers;
    assert(left.length <= expected, `work of ${branch.label} holds ${left.join(' ')}`);
  }
}

/** All inodes of branches that the union holds: the others it was given it must have forgotten. */
export function heldByUnion(fs: UnionFs): Set<Inode> {
  const held = new Set<Inode>();
  for (const branch of fs.branches) {
    held.add(branch.root);
    if (branch.writable) held.add(branch.work).add(branch.indexDir);
    if (branch.sharedWhiteout !== undefined) held.add(branch.sharedWhiteout);
  }
  for (const inode of fs.inodes.values()) {
    held.add(inode.real);
    for (const layer of inode.lowers ?? []) held.add(layer.inode);
    if (inode.data !== undefined) held.add(inode.data.inode);
  }
  return held;
}

export function pathOf(inode: UnionInode): string {
  if (inode === inode.fs.root) return '/';
  if (inode.parent === undefined) return `(${inode.name} without a name)`;
  const above = pathOf(inode.parent);
  return above === '/' ? `/${inode.name}` : `${above}/${inode.name}`;
}

/** U4, U5. */
function checkNames(inode: UnionInode): void {
  const { fs, parent, name } = inode;
  const path = pathOf(inode);
  const isRoot = inode === fs.root;
  assert((inode.children?.size ?? 0) === inode.childCount, `${path}: childCount ${inode.childCount}`);
  assert(isRoot || inode.heldByDoor || inode.childCount > 0, `${path} is held by nobody`);
  assert(!inode.disowned, `${path}: disowned, and still entered`);
  if (parent === undefined) {
    assert(inode.aliases === undefined, `${path}: further names without a first`);
    assert(isRoot || inode.orphan || (inode.unionNlink ?? 0) > 0, `${path} is no orphan and has no name`);
    return;
  }
  assert(!inode.orphan, `${path}: an orphan with a name`);
  assert(fs.inodes.get(parent.ino) === parent, `${path}: its parent is not entered`);
  assert(parent.children?.get(name) === inode, `${path}: its parent does not know it`);
  const names = new Set([`${parent.ino}/${name}`]);
  for (const alias of inode.aliases ?? []) {
    const key = `${alias.parent.ino}/${alias.name}`;
    assert(!names.has(key), `${path}: name ${key} twice`);
    names.add(key);
    assert(alias.parent.children?.get(alias.name) === inode, `${path}: not known as ${key}`);
  }
  assert(inode.aliases?.length !== 0, `${path}: an empty list of further names`);
}

/** U1 to U3. */
function checkLayers(inode: UnionInode): void {
  const path = pathOf(inode);
  assert(inode.type === inode.real.type, `${path}: type`);
  assert((inode.lowers !== undefined) === inode.isDirectory, `${path}: lowers`);
  let index = inode.branch.index;
  for (const layer of inode.lowers ?? []) {
    assert(layer.branch.index > index, `${path}: layers out of order`);
    assert(layer.inode.type === S_IFDIR, `${path}: a layer that is no directory`);
    ({ index } = layer.branch);
  }
  if (inode.data === undefined) return;
  assert(inode.type === S_IFREG, `${path}: data of a non-file`);
  assert(inode.data.branch.index > inode.branch.index, `${path}: data to the left`);
}

/** What is remembered of the real inode is so. */
function* checkFacts(inode: UnionInode): Task<void> {
  const path = pathOf(inode);
  const { branch, real } = inode;
  if (inode.hasOrigin !== undefined) {
    const has = (yield* branch.overlayXattr(real, ORIGIN)) !== undefined;
    assert(has === inode.hasOrigin, `${path}: origin ${String(has)}`);
  }
  if (inode.parent?.redirected === true && inode.isDirectory) {
    assert(inode.redirected, `${path}: in a redirected directory, and not marked`);
  }
  assert(inode.redirect === undefined || inode.redirected, `${path}: a redirect, and not marked`);
}

function* checkDirectory(dir: UnionInode): Task<void> {
  const path = pathOf(dir);
  if (dir.orphan) return;
  const listed = new Map((yield* readdir(dir)).map((entry) => [entry.name, entry]));
  if (dir.subdirectories !== undefined) {
    let count = 0;
    for (const name of listed.keys()) {
      const found = yield* resolve(dir, name);
      if (found?.layers[0]?.inode.type === S_IFDIR) count++;
      letGo(found);
    }
    assert(dir.subdirectories === count, `${path}: ${count} directories, counted ${dir.subdirectories}`);
  }
  for (const [name, child] of dir.children ?? []) {
    const where = `${path}: ${name}`;
    const isName = child.parent === dir && child.name === name;
    const isAlias = child.aliases?.some((alias) => alias.parent === dir && alias.name === name) ?? false;
    assert(isName || isAlias, `${where} is known as ${pathOf(child)}`);
    assert(dir.fs.inodes.get(child.ino) === child, `${where} is not entered`);
    const entry = listed.get(name);
    assert(entry !== undefined, `${where} is known and not listed`);
    assert(entry.ino === child.ino, `${where}: listed as ${entry.ino}`);
    yield* checkAgainstBranches(dir, child, name);
  }
  for (const layer of dir.layers()) if (layer.branch.writable) yield* isImpure(layer.branch, layer.inode);
}

/** A lookup that knows nothing finds the same layers. */
function* checkAgainstBranches(dir: UnionInode, child: UnionInode, name: UnionInode['name']): Task<void> {
  const where = pathOf(dir) + ': ' + name;
  const found = yield* resolve(dir, name);
  try {
    assert(found !== undefined, `${where} is known and not found`);
    const stat = yield* getattr(child);
    // Another name of an indexed file may be beneath while the file is above.
    if (child.indexName !== undefined) return;
    const known = child.layers();
    const wanted = found.layers.map((layer) => layer.branch.label).join();
    const have = known.map((layer) => layer.branch.label).join();
    assert(wanted === have, `${where} is on ${wanted}, known on ${have}`);
    for (const [i, layer] of found.layers.entries()) {
      const there = (yield* layer.inode.getattr()).ino;
      const here = (yield* known[i]!.inode.getattr()).ino;
      assert(there === here, `${where} on ${layer.branch.label} is ${there}, known as ${here}`);
    }
    assert(found.data?.branch === child.data?.branch, `${where}: data on ${found.data?.branch.label ?? 'it'}`);
    assert(found.redirect === child.redirect, `${where}: redirect ${found.redirect ?? 'none'}`);
    assert(stat.nlink > 0, `${where}: no links`);
  } finally {
    letGo(found);
  }
}

function letGo(found: Found | undefined): void {
  for (const layer of found?.layers ?? []) layer.inode.forget();
  found?.data?.inode.forget();
}
