/**
 * Changes made beneath: what others do to read-only branches while they are mounted (seed row 43).
 *
 * H1. Every directory of a read-only branch that a lookup or readdir has relied on is watched, before
 *     it is read; so the kernel's caches may be endless and still be dropped in time.
 * H2. An object whose lower changed is looked up anew as another union inode with the same number: under
 *     WRITEBACK_CACHE the kernel ignores a new size or mtime of a regular file it knows.
 * H3. What the union itself writes is on writable branches, which are not watched: nobody else may
 *     write there. So a change is always somebody else's.
 * H4. Where no more can be watched, `coherent` becomes false for good, and doors cache for a second.
 */
import { S_IFDIR } from '../../abi/mode.ts';
import type { BeneathChange, CacheInvalidation, ChangeSource, Inode, Name } from '../../vfs/inode-operations.ts';
import type { UnionInode } from './inode.ts';
import type { UnionFs } from './union.ts';
import { dropHidingFacts } from './whiteout.ts';

export class BeneathWatch {
  readonly #fs: UnionFs;
  /** Which union directory a watched branch directory is a layer of. */
  readonly #directories = new Map<Inode, UnionInode>();
  readonly sources: readonly ChangeSource[];
  coherent = true;
  /** Set by the composition root once a door serves the union. */
  invalidation: CacheInvalidation | undefined;

  constructor(fs: UnionFs) {
    this.#fs = fs;
    const readOnly = fs.branches.filter((branch) => !branch.writable);
    this.sources = [...new Set(readOnly.flatMap((branch) => branch.fs.changes ?? []))];
    if (readOnly.some((branch) => branch.fs.changes === undefined)) this.coherent = false;
  }

  get watchedCount(): number {
    return this.#directories.size;
  }

  /** Before the directory's read-only layers are relied on (H1). */
  watch(dir: UnionInode): void {
    if (dir.watched || !this.coherent) return;
    dir.watched = true;
    for (const { branch, inode } of dir.layers()) {
      if (branch.writable) continue;
      this.#directories.set(inode, dir);
      if (branch.fs.changes?.watch(inode) !== true) this.coherent = false;
    }
  }

  unwatch(dir: UnionInode): void {
    if (!dir.watched) return;
    dir.watched = false;
    for (const { branch, inode } of dir.layers()) {
      if (branch.writable || this.#directories.get(inode) !== dir) continue;
      this.#directories.delete(inode);
      branch.fs.changes?.unwatch(inode);
    }
  }

  /** Take in all that has happened; call when a source's descriptor is readable. */
  drain(): void {
    for (const source of this.sources) for (const change of source.drain()) this.#apply(change);
  }

  #apply(change: BeneathChange): void {
    if (change.kind === 'overflow') {
      for (const dir of new Set(this.#directories.values())) this.#dropAll(dir);
      return;
    }
    const dir = this.#directories.get(change.dir);
    if (dir === undefined) return; // Forgotten meanwhile.
    dropHidingFacts(change.dir);
    dir.subdirectories = undefined;
    if (change.kind === 'self') this.invalidation?.inode(dir);
    else this.#entryChanged(dir, change.dir, change.name, change.kind);
  }

  #dropAll(dir: UnionInode): void {
    for (const layer of dir.layers()) dropHidingFacts(layer.inode);
    dir.subdirectories = undefined;
    for (const name of [...(dir.children?.keys() ?? [])]) {
      for (const layer of dir.layers()) this.#entryChanged(dir, layer.inode, name, 'content');
    }
    this.invalidation?.inode(dir);
  }

  #entryChanged(dir: UnionInode, layer: Inode, name: Name, kind: 'entry' | 'content'): void {
    const child = dir.children?.get(name);
    if (child === undefined || this.#relies(child, layer, dir)) {
      if (child !== undefined && !(kind === 'content' && child.type === S_IFDIR)) this.#fs.disown(dir, name, child);
      this.invalidation?.entry(dir, name);
      if (child !== undefined) this.invalidation?.inode(child);
    }
    if (kind === 'entry') this.invalidation?.inode(dir);
  }

  /** Does what the union shows of the child come from that layer, or could it now? */
  #relies(child: UnionInode, layer: Inode, dir: UnionInode): boolean {
    const branch = dir.layers().find((l) => l.inode === layer)?.branch;
    if (branch === undefined) return true;
    if (child.branch.index >= branch.index || child.data?.branch === branch) return true;
    return child.isDirectory && (child.lowers ?? []).some((lower) => lower.branch.index >= branch.index);
  }
}
