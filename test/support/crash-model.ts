/**
 * What a tree may look like after the daemon was killed at a known step of a known load.
 *
 * M1. A step that was answered has happened: the host's kernel has it. Only data that the mounted
 *     kernel had not yet written back (no fsync, no msync) may be missing.
 * M2. The step under way has happened or has not, save that its data may be there in part, and that
 *     the temporary of a replacement may be left.
 * M3. Every block of a file holds one version of itself, whole: the last one that was synced, or a
 *     later one that was written. Nothing of a copy that was under way is to be seen.
 */
import { Random } from './ops.ts';
import type { TreeEntry } from './tree.ts';

export const BLOCK_BYTES = 4096;

/** The content of a block says what it is, from end to end. */
export function blockOf(id: number, block: number, version: number): string {
  const line = `file ${id} block ${block} version ${version}\n`;
  return line.repeat(Math.ceil(BLOCK_BYTES / line.length)).slice(0, BLOCK_BYTES);
}

type Argument = number | string | { readonly path: string };

export type Step =
  | { kind: 'write'; path: string; id: number; block: number; version: number; by: 'call' | 'map'; sync: boolean }
  | { kind: 'replace'; path: string; temporary: string; id: number; blocks: number; version: number }
  | { kind: 'names'; call: ['rename' | 'link' | 'unlink' | 'mkdir' | 'chmod', ...Argument[]] };

interface File {
  readonly id: number;
  mode: number;
  /** For each block the versions it may hold: the last synced one first. */
  readonly blocks: number[][];
}

type Node = File | { readonly directory: true; mode: number };

const isFile = (node: Node): node is File => 'id' in node;

export class CrashModel {
  nodes = new Map<string, Node>();
  #nextId = 1;
  #nextVersion = 1;

  addFile(path: string, blocks: number, id = this.#nextId++): number {
    this.nodes.set(path, { id, mode: 0o644, blocks: Array.from({ length: blocks }, () => [0]) });
    return id;
  }

  addDirectory(path: string): void {
    this.nodes.set(path, { directory: true, mode: 0o755 });
  }

  clone(): CrashModel {
    const copy = new CrashModel();
    const files = new Map<File, File>();
    for (const [path, node] of this.nodes) {
      if (!isFile(node)) {
        copy.nodes.set(path, { ...node });
        continue;
      }
      // Names of one file stay names of one file.
      const file = files.get(node) ?? { ...node, blocks: node.blocks.map((b) => [...b]) };
      files.set(node, file);
      copy.nodes.set(path, file);
    }
    return copy;
  }

  /** `whole`: the step was answered; else it was under way, and has promised nothing. */
  apply(step: Step, whole: boolean): void {
    if (step.kind === 'write') {
      const file = this.nodes.get(step.path) as File;
      file.blocks[step.block]!.push(step.version);
      if (step.sync && whole) this.#synced(file, step);
      return;
    }
    if (step.kind === 'replace') {
      this.addFile(step.path, step.blocks, step.id);
      const file = this.nodes.get(step.path) as File;
      for (const block of file.blocks) block[0] = step.version;
      return;
    }
    this.#applyNames(step.call);
  }

  #synced(file: File, step: Extract<Step, { kind: 'write' }>): void {
    // fsync(2) promises the whole file, msync(2) what was mapped: the whole file too, here.
    for (const versions of file.blocks) versions.splice(0, versions.length - 1);
    void step;
  }

  #applyNames([name, ...args]: Extract<Step, { kind: 'names' }>['call']): void {
    const path = (i: number): string => (args[i] as { path: string }).path;
    if (name === 'mkdir') this.addDirectory(path(0));
    if (name === 'unlink') this.nodes.delete(path(0));
    if (name === 'link') this.nodes.set(path(1), this.nodes.get(path(0))!);
    if (name === 'chmod') this.nodes.get(path(0))!.mode = args[1] as number;
    if (name === 'rename') this.#move(path(0), path(1));
  }

  #move(from: string, to: string): void {
    const moved = [...this.nodes].filter(([p]) => p === from || p.startsWith(from + '/'));
    this.nodes.delete(to);
    for (const [p] of moved) this.nodes.delete(p);
    for (const [p, node] of moved) this.nodes.set(to + p.slice(from.length), node);
  }

  #files(): string[] {
    return [...this.nodes].filter(([, n]) => isFile(n)).map(([p]) => p);
  }

  #directories(): string[] {
    return [...this.nodes].filter(([, n]) => !isFile(n)).map(([p]) => p);
  }

  #fresh(r: Random): string {
    for (;;) {
      const dir = r.pick(['', ...this.#directories()]);
      const path = `${dir === '' ? '' : dir + '/'}n${r.below(1000)}`;
      if (!this.nodes.has(path) && path.split('/').length < 6) return path;
    }
  }

  /** A step that succeeds on this model. */
  step(r: Random): Step {
    const files = this.#files();
    const roll = r.below(100);
    if (roll < 50) {
      const path = r.pick(files);
      const file = this.nodes.get(path) as File;
      const by = r.chance(30) ? 'map' : 'call';
      return { kind: 'write', path, id: file.id, block: r.below(file.blocks.length), version: this.#nextVersion++, by, sync: r.chance(50) };
    }
    if (roll < 60) {
      const path = r.pick(files);
      return { kind: 'replace', path, temporary: this.#fresh(r), id: this.#nextId++, blocks: 1 + r.below(8), version: this.#nextVersion++ };
    }
    return { kind: 'names', call: this.#namesStep(r, files) };
  }

  #namesStep(r: Random, files: string[]): Extract<Step, { kind: 'names' }>['call'] {
    const at = (path: string): { path: string } => ({ path });
    const roll = r.below(100);
    if (roll < 20) return ['mkdir', at(this.#fresh(r)), 0o755];
    if (roll < 35) return ['link', at(r.pick(files)), at(this.#fresh(r))];
    if (roll < 45 && files.length > 10) return ['unlink', at(r.pick(files))];
    if (roll < 60) return ['chmod', at(r.pick(files)), r.pick([0o600, 0o755, 0o644])];
    if (roll < 80) return ['rename', at(r.pick(files)), at(this.#fresh(r)), 0];
    const from = r.pick(this.#directories());
    const to = this.#fresh(r);
    return to.startsWith(from + '/') ? ['mkdir', at(this.#fresh(r)), 0o755] : ['rename', at(from), at(to), 0];
  }

  /** Differences between what may be and what is. `content` gives a file's bytes. */
  *check(tree: readonly TreeEntry[], content: (path: string) => string, ignore?: string): Generator<string> {
    const found = new Map(tree.filter((e) => e.path !== '.').map((e) => [e.path, e]));
    const links = new Map<Node, number>();
    for (const node of this.nodes.values()) links.set(node, (links.get(node) ?? 0) + 1);
    for (const path of found.keys()) {
      if (!this.nodes.has(path) && path !== ignore) yield `${path}: should not be there`;
    }
    for (const [path, node] of this.nodes) {
      const entry = found.get(path);
      if (entry === undefined) yield `${path}: missing`;
      else yield* this.#checkNode(path, node, entry, isFile(node) ? links.get(node)! : undefined, content);
    }
  }

  *#checkNode(path: string, node: Node, entry: TreeEntry, links: number | undefined, content: (path: string) => string): Generator<string> {
    const mode = (isFile(node) ? 0o100000 : 0o040000) | node.mode;
    if (entry.stat.mode !== mode) yield `${path}: mode ${entry.stat.mode.toString(8)}, wanted ${mode.toString(8)}`;
    if (links !== undefined && entry.stat.nlink !== links) yield `${path}: nlink ${entry.stat.nlink}, wanted ${links}`;
    if (!isFile(node)) return;
    if (entry.stat.size !== node.blocks.length * BLOCK_BYTES) {
      yield `${path}: ${entry.stat.size} bytes, wanted ${node.blocks.length * BLOCK_BYTES}`;
      return;
    }
    const bytes = content(path);
    for (const [block, versions] of node.blocks.entries()) {
      const is = bytes.slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      if (versions.some((v) => blockOf(node.id, block, v) === is)) continue;
      yield `${path}: block ${block} begins ${JSON.stringify(is.slice(0, 50))}, wanted version ${versions.join(' or ')} of file ${node.id}`;
    }
  }

  /** What was found is what is: one version per block from here on. */
  settle(content: (path: string) => string): void {
    for (const [path, node] of this.nodes) {
      if (!isFile(node) || node.blocks.every((versions) => versions.length === 1)) continue;
      const bytes = content(path);
      for (const [block, versions] of node.blocks.entries()) {
        const is = bytes.slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        const now = versions.find((v) => blockOf(node.id, block, v) === is)!;
        versions.splice(0, versions.length, now);
      }
    }
  }

  /** Numbers go on where `other`, a copy, has got to. */
  takeNumbers(other: CrashModel): void {
    this.#nextId = other.#nextId;
    this.#nextVersion = other.#nextVersion;
  }
}
