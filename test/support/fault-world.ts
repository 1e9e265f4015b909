/**
 * A union over scratch directories of the host, in process, whose branches fail or crash as planned.
 *
 * What the union leaves on disk is looked at by opening it anew, and by kernel overlayfs.
 */
import fs from 'node:fs';
import path from 'node:path';
import { bytesOf } from '../../src/lib/latin1.ts';
import { assert } from '../../src/lib/assert.ts';
import { openHostFs } from '../../src/fs/host/host-fs.ts';
import type { HostFs } from '../../src/fs/host/host-fs.ts';
import type { UnionInode } from '../../src/fs/union/inode.ts';
import { openUnion } from '../../src/fs/union/union.ts';
import type { UnionFs, UnionOptions } from '../../src/fs/union/union.ts';
import { fsError } from '../../src/kernel/error.ts';
import { runSync } from '../../src/kernel/task.ts';
import type { Task } from '../../src/kernel/task.ts';
import { FaultFs, FaultPlan } from '../../src/sim/fault-fs.ts';
import { treeText } from '../../src/sim/tree-text.ts';
import { mount, umount2 } from '../../src/sys/mount.ts';
import type { Cred, Inode, Name } from '../../src/vfs/inode-operations.ts';

export const CRED: Cred = { uid: 5, gid: 6, umask: 0o022, pid: 0 };

/** Seconds: what a world is built of is as old as that, and told apart from what is touched later. */
const BUILT = 1_000_000_000;
const SETTLED_BEFORE = 1_500_000_000;

/** In memory where there is such a place: some thousand worlds are built and taken down. */
const SCRATCH = process.env.PALIMPSEST_SCRATCH ?? (fs.existsSync('/dev/shm') ? '/dev/shm' : '/var/tmp');

export interface Stack {
  /** `U=rw L=ro`, leftmost first. */
  readonly branches: string;
  /** The branch that holds what the world is built of. */
  readonly base: string;
  readonly options?: Partial<UnionOptions>;
}

export class FaultWorld {
  readonly stack: Stack;
  readonly dir: string;
  readonly plan = new FaultPlan();
  union!: UnionFs;
  faulty: FaultFs[] = [];
  #hosts: HostFs[] = [];

  constructor(stack: Stack) {
    this.stack = stack;
    this.dir = fs.mkdtempSync(path.join(SCRATCH, 'palimpsest-faults-'));
    fs.chmodSync(this.dir, 0o755);
    this.plan.syncs = false;
    for (const { name } of this.branches()) {
      // The umask of this process is whatever the last creating call wanted.
      for (const dir of [name, `${name}.work`]) {
        fs.mkdirSync(this.host(dir));
        fs.chmodSync(this.host(dir), 0o755);
      }
    }
  }

  branches(): { name: string; writable: boolean }[] {
    return this.stack.branches.split(' ').map((text) => {
      const [name, mode] = text.split('=') as [string, string];
      return { name, writable: mode === 'rw' };
    });
  }

  host(...parts: string[]): string {
    return path.join(this.dir, ...parts);
  }

  /** A path of the base. */
  base(where: string): string {
    return this.host(this.stack.base, where);
  }

  /** Of an entry of the base's root. */
  setxattr(where: string, name: string, value: Uint8Array): void {
    const host = openHostFs({ path: this.host(this.stack.base), readOnly: false });
    Object.defineProperty(host, 'syncfs', { value: noSync });
    const inode = runSync(host.root.lookup(where as Name));
    assert(inode !== undefined, `${where} is built`);
    runSync(inode.setxattr(name, value, 0));
    runSync(host.unmount());
  }

  /** Give all that is on the branches an mtime that is old, and the same in every world of this kind. */
  settle(): this {
    let count = 0;
    const visit = (where: string): void => {
      const stat = fs.lstatSync(where);
      if (stat.isDirectory()) for (const name of fs.readdirSync(where).toSorted()) visit(path.join(where, name));
      if (stat.mtimeMs / 1000 >= SETTLED_BEFORE) fs.lutimesSync(where, BUILT, BUILT + count++);
    };
    for (const { name } of this.branches()) visit(this.host(name));
    return this;
  }

  open(): this {
    this.#hosts = [];
    this.faulty = [];
    const specs = this.branches().map(({ name, writable }) => {
      const host = openHostFs({ path: this.host(name), readOnly: !writable });
      // Nothing here survives a power failure, and nothing has to.
      Object.defineProperty(host, 'syncfs', { value: noSync });
      this.#hosts.push(host);
      const faulty = new FaultFs(host, this.plan);
      this.faulty.push(faulty);
      const mode = writable ? 'rw' as const : 'ro' as const;
      const work = writable ? { work: faulty.wrap(host.openRoot(this.host(`${name}.work`))) } : {};
      return { fs: faulty, root: faulty.root, mode, label: name, ...work };
    });
    this.union = this.run(openUnion(specs, { metacopy: true, volatile: true, ...this.stack.options }));
    return this;
  }

  /** As the end of the process does it: the union is not asked. */
  close(): void {
    for (const host of this.#hosts.splice(0)) runSync(host.unmount());
  }

  remove(): void {
    this.close();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /** A host that has no room for a wait: all is done on the spot. */
  run<T>(task: Task<T>): T {
    return runSync(task);
  }

  text(directoryNlink = true, forgets = false): string {
    return this.run(treeText(this.union.root, { settledBefore: SETTLED_BEFORE, directoryNlink, forgets }));
  }

  /** What kernel overlayfs makes of the branches. `volatile`: it need not sync at the end. Only once a world. */
  kernelText(): string {
    const merged = this.host('merged');
    fs.mkdirSync(merged);
    const [upper, ...lowers] = this.branches().map(({ name }) => name);
    const lowerdir = lowers.map((name) => this.host(name)).join(':');
    const dirs = `lowerdir=${lowerdir},upperdir=${this.host(upper!)},workdir=${this.host(`${upper}.work`)}`;
    mount('overlay', merged, 'overlay', 0, `${dirs},redirect_dir=on,index=on,metacopy=on,volatile`);
    try {
      const seen = openHostFs({ path: merged, readOnly: true, isolate: false });
      try {
        return this.run(treeText(seen.root, {
          settledBefore: SETTLED_BEFORE, directoryNlink: false, forgets: true,
        }));
      } finally {
        runSync(seen.unmount());
      }
    } finally {
      umount2(merged);
      fs.rmdirSync(merged);
    }
  }

  workNames(): string[] {
    return this.branches().filter((b) => b.writable)
      .flatMap(({ name }) => fs.readdirSync(this.host(`${name}.work/work`)));
  }

  // -- operations by path --

  find(where: string): UnionInode | undefined {
    let inode: Inode | undefined = this.union.root;
    for (const name of where.split('/').filter((part) => part !== '' && part !== '.')) {
      inode = this.run(inode!.lookup(name as Name));
      if (inode === undefined) return undefined;
    }
    return inode as UnionInode;
  }

  get(where: string): UnionInode {
    const inode = this.find(where);
    assert(inode !== undefined, `${where} is there`);
    return inode;
  }

  split(where: string): [UnionInode, Name] {
    return [this.get(path.dirname(where)), path.basename(where) as Name];
  }

  write(where: string, text: string, position = 0): void {
    const length = this.run(this.get(where).write({ bytes: bytesOf(text), offset: 0, length: text.length }, position));
    // A short write is an error of the next call.
    if (length < text.length) throw fsError(28);
  }

  create(where: string): UnionInode {
    const [dir, name] = this.split(where);
    return this.run(dir.create(name, 0o640, CRED)) as UnionInode;
  }

  mkdir(where: string): void {
    const [dir, name] = this.split(where);
    this.run(dir.mkdir(name, 0o750, CRED));
  }

  symlink(where: string, target: string): void {
    const [dir, name] = this.split(where);
    this.run(dir.symlink(name, target, CRED));
  }

  link(from: string, to: string): void {
    const [dir, name] = this.split(to);
    this.run(dir.link(name, this.get(from)));
  }

  unlink(where: string): void {
    const [dir, name] = this.split(where);
    this.run(dir.unlink(name, this.get(where)));
  }

  rmdir(where: string): void {
    const [dir, name] = this.split(where);
    this.run(dir.rmdir(name, this.get(where)));
  }

  rename(from: string, to: string, flags = 0): void {
    const [dir, name] = this.split(from);
    const [newDir, newName] = this.split(to);
    const source = this.get(from);
    this.run(dir.rename(name, source, newDir, newName, this.run(newDir.lookup(newName)), flags));
  }
}

// oxlint-disable-next-line require-yield
function* noSync(): Task<void> {}
