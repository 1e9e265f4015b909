/**
 * FaultFs: any filesystem, with faults. For tests of what is built over the vfs contract.
 *
 * Everything is delegated; what changes something is counted first, and a `FaultPlan`, which several
 * filesystems may share, says what happens at the Nth such call:
 *  - `error`: it fails with an errno and does nothing, once or from then on;
 *  - `crash`: it and every call after it throw `CrashError`: nothing more reaches what is beneath, so
 *    that holds what a process killed at this point leaves.
 *
 * F1. A FaultInode stands for one inode object beneath, and wraps nothing that is wrapped already.
 * F2. No inode of this filesystem is passed down wrapped, none comes up unwrapped.
 * F3. A plan that is disarmed (`at` is 0) changes nothing and counts nothing.
 * F4. `live` holds what was given out by a call and not yet forgotten; a second `forget` of one object
 *     is an AssertionError, and so is any call after it.
 * Left out: a call that has half of its effect. What a call is made of beneath is one step here.
 */
import type { Stat, StatFs } from '../abi/stat.ts';
import { fail } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import { assert } from '../lib/assert.ts';
import type {
  BeneathChange, ChangeSource, Cred, DirEntry, Entry, FileHandle, FileSystem, Inode, IoBuffer, Name, SetAttr,
} from '../vfs/inode-operations.ts';
import { preempt } from './scheduler.ts';

/** The process is dead: not an errno, so that nobody forgives it. */
export class CrashError extends Error {
  override name = 'CrashError';
}

export type Fault =
  | { readonly kind: 'error'; readonly errno: number; readonly repeats: boolean }
  | { readonly kind: 'crash' };

/** Which calls give other tasks a turn: none; those that wait on a real host; all. */
export type Parking = 'none' | 'data' | 'all';

const CHANGING: ReadonlySet<string> = new Set([
  'setattr', 'create', 'mkdir', 'mknod', 'symlink', 'link', 'unlink', 'rmdir', 'rename', 'tmpfile', 'write',
  'fsync', 'fallocate', 'copyRange', 'setxattr', 'removexattr', 'syncfs',
]);
const WAITING: ReadonlySet<string> = new Set(['read', 'copyRange', 'fsync', 'syncfs']);

export class FaultPlan {
  fault: Fault = { kind: 'crash' };
  parking: Parking = 'none';
  /** Off: fsync and syncfs are counted, and fail as planned, but the host is spared them. */
  syncs = true;
  /** Count calls that only look, too. */
  countsReads = false;
  /** The call that fails, from 1; 0 for none. */
  at = 0;
  count = 0;
  /** What was called, while armed: to print for a failing case. */
  readonly history: string[] = [];

  arm(at: number, fault: Fault): void {
    this.at = at;
    this.fault = fault;
    this.count = 0;
    this.history.length = 0;
  }

  disarm(): void {
    this.at = 0;
  }

  /** The armed call was reached. */
  get hit(): boolean {
    return this.at > 0 && this.count >= this.at;
  }

  /** Before every call. Errors: as planned. */
  *before(call: string, detail: string): Task<void> {
    if (this.parking === 'all' || (this.parking === 'data' && WAITING.has(call))) yield preempt;
    if (this.at === 0) return;
    const crashed = this.fault.kind === 'crash' && this.count >= this.at;
    if (crashed) throw new CrashError(`after the crash: ${call} ${detail}`);
    if (!this.countsReads && !CHANGING.has(call)) return;
    this.count++;
    this.history.push(`${call} ${detail}`);
    if (this.count < this.at) return;
    if (this.fault.kind === 'crash') throw new CrashError(`${call} ${detail}`);
    if (this.count === this.at || this.fault.repeats) fail(this.fault.errno);
  }
}

export class FaultFs implements FileSystem {
  readonly label: string;
  readonly root: FaultInode;
  readonly plan: FaultPlan;
  readonly beneath: FileSystem;
  readonly changes?: ChangeSource;
  /** Given out and not forgotten (F4). */
  readonly live = new Set<FaultInode>();
  readonly #wrapped = new WeakMap<Inode, FaultInode>();

  constructor(beneath: FileSystem, plan: FaultPlan) {
    this.beneath = beneath;
    this.label = `faulty ${beneath.label}`;
    this.plan = plan;
    this.root = this.wrap(beneath.root);
    if (beneath.changes !== undefined) this.changes = new FaultChanges(this, beneath.changes);
    if (beneath.decodeHandle === undefined) Object.defineProperty(this, 'decodeHandle', { value: undefined });
  }

  get readOnly(): boolean {
    return this.beneath.readOnly;
  }

  get coherent(): boolean {
    return this.beneath.coherent ?? true;
  }

  wrap(inode: Inode): FaultInode {
    let known = this.#wrapped.get(inode);
    if (known === undefined) this.#wrapped.set(inode, (known = new FaultInode(this, inode)));
    return known;
  }

  /** What a call gave out. */
  give(inode: Inode): FaultInode {
    const given = this.wrap(inode);
    this.live.add(given);
    return given;
  }

  *statfs(): Task<StatFs> {
    yield* this.plan.before('statfs', '');
    return yield* this.beneath.statfs();
  }

  decodeHandle?(handle: FileHandle): Task<Inode | undefined> {
    return this.#decode(handle);
  }

  *#decode(handle: FileHandle): Task<Inode | undefined> {
    yield* this.plan.before('decodeHandle', '');
    const inode = yield* this.beneath.decodeHandle!(handle);
    return inode === undefined ? undefined : this.give(inode);
  }

  *syncfs(): Task<void> {
    yield* this.plan.before('syncfs', '');
    if (this.plan.syncs) yield* this.beneath.syncfs();
  }

  unmount(): Task<void> {
    return this.beneath.unmount();
  }
}

class FaultChanges implements ChangeSource {
  readonly #fs: FaultFs;
  readonly #source: ChangeSource;

  constructor(fs: FaultFs, source: ChangeSource) {
    this.#fs = fs;
    this.#source = source;
  }

  get fd(): number {
    return this.#source.fd;
  }

  watch(dir: Inode): boolean {
    return this.#source.watch((dir as FaultInode).target);
  }

  unwatch(dir: Inode): void {
    this.#source.unwatch((dir as FaultInode).target);
  }

  drain(): BeneathChange[] {
    return this.#source.drain().map((change) =>
      change.kind === 'overflow' ? change : { ...change, dir: this.#fs.wrap(change.dir) });
  }
}

/** Methods that a filesystem may leave out. */
const OPTIONAL = [
  'lookupWithStat', 'tmpfile', 'fallocate', 'seek', 'copyRange', 'getxattr', 'setxattr', 'listxattr',
  'removexattr', 'exportHandle', 'ioctl',
] as const;

export class FaultInode implements Inode {
  readonly fs: FaultFs;
  readonly target: Inode;
  forgotten = false;

  constructor(fs: FaultFs, target: Inode) {
    assert(!(target instanceof FaultInode && target.fs === fs), 'an inode is wrapped once');
    this.fs = fs;
    this.target = target;
    for (const method of OPTIONAL) {
      if (target[method] === undefined) Object.defineProperty(this, method, { value: undefined });
    }
  }

  get type(): number {
    return this.target.type;
  }

  get parentIno(): number | undefined {
    return this.target.parentIno;
  }

  *#before(call: string, detail = ''): Task<void> {
    assert(!this.forgotten, `${call} ${detail} of a forgotten inode`);
    yield* this.fs.plan.before(call, detail);
  }

  /** F2. An inode of another filesystem is passed as it is: the answer is EXDEV, beneath. */
  #plain(inode: Inode): Inode {
    if (!(inode instanceof FaultInode)) return inode;
    assert(!inode.forgotten, 'a forgotten inode as an argument');
    return inode.target;
  }

  *getattr(): Task<Stat> {
    yield* this.#before('getattr');
    return yield* this.target.getattr();
  }

  *setattr(changes: SetAttr): Task<void> {
    yield* this.#before('setattr', Object.keys(changes).join());
    yield* this.target.setattr(changes);
  }

  *readlink(): Task<string> {
    yield* this.#before('readlink');
    return yield* this.target.readlink();
  }

  *lookup(name: Name): Task<Inode | undefined> {
    yield* this.#before('lookup', name);
    const inode = yield* this.target.lookup(name);
    return inode === undefined ? undefined : this.fs.give(inode);
  }

  *lookupWithStat(name: Name): Task<Entry | undefined> {
    yield* this.#before('lookupWithStat', name);
    const entry = yield* this.target.lookupWithStat!(name);
    return entry === undefined ? undefined : { inode: this.fs.give(entry.inode), stat: entry.stat };
  }

  *readdir(): Task<DirEntry[]> {
    yield* this.#before('readdir');
    return yield* this.target.readdir();
  }

  *create(name: Name, mode: number, cred: Cred): Task<Inode> {
    yield* this.#before('create', name);
    return this.fs.give(yield* this.target.create(name, mode, cred));
  }

  *mkdir(name: Name, mode: number, cred: Cred): Task<Inode> {
    yield* this.#before('mkdir', name);
    return this.fs.give(yield* this.target.mkdir(name, mode, cred));
  }

  *mknod(name: Name, mode: number, major: number, minor: number, cred: Cred): Task<Inode> {
    yield* this.#before('mknod', name);
    return this.fs.give(yield* this.target.mknod(name, mode, major, minor, cred));
  }

  *symlink(name: Name, target: string, cred: Cred): Task<Inode> {
    yield* this.#before('symlink', name);
    return this.fs.give(yield* this.target.symlink(name, target, cred));
  }

  *link(name: Name, target: Inode): Task<void> {
    yield* this.#before('link', name);
    yield* this.target.link(name, this.#plain(target));
  }

  *unlink(name: Name, victim: Inode): Task<void> {
    yield* this.#before('unlink', name);
    yield* this.target.unlink(name, this.#plain(victim));
  }

  *rmdir(name: Name, victim: Inode): Task<void> {
    yield* this.#before('rmdir', name);
    yield* this.target.rmdir(name, this.#plain(victim));
  }

  *rename(
    name: Name, source: Inode, newDir: Inode, newName: Name, replaced: Inode | undefined, flags: number,
  ): Task<void> {
    yield* this.#before('rename', `${name} -> ${newName} flags ${flags}`);
    const over = replaced === undefined ? undefined : this.#plain(replaced);
    yield* this.target.rename(name, this.#plain(source), this.#plain(newDir), newName, over, flags);
  }

  *tmpfile(mode: number, cred: Cred): Task<Inode> {
    yield* this.#before('tmpfile');
    return this.fs.give(yield* this.target.tmpfile!(mode, cred));
  }

  *read(buffer: IoBuffer, position: number): Task<number> {
    yield* this.#before('read');
    return yield* this.target.read(buffer, position);
  }

  *write(buffer: IoBuffer, position: number): Task<number> {
    yield* this.#before('write', `${buffer.length} at ${position}`);
    return yield* this.target.write(buffer, position);
  }

  *fsync(dataOnly: boolean): Task<void> {
    yield* this.#before('fsync');
    if (this.fs.plan.syncs) yield* this.target.fsync(dataOnly);
  }

  *fallocate(mode: number, position: number, length: number): Task<void> {
    yield* this.#before('fallocate');
    yield* this.target.fallocate!(mode, position, length);
  }

  *seek(position: number, whence: number): Task<number> {
    yield* this.#before('seek');
    return yield* this.target.seek!(position, whence);
  }

  *copyRange(position: number, target: Inode, targetPosition: number, length: number): Task<number> {
    yield* this.#before('copyRange', `${length} at ${targetPosition}`);
    return yield* this.target.copyRange!(position, this.#plain(target), targetPosition, length);
  }

  *getxattr(name: string): Task<Uint8Array | undefined> {
    yield* this.#before('getxattr', name);
    return yield* this.target.getxattr!(name);
  }

  *setxattr(name: string, value: Uint8Array, flags: number): Task<void> {
    yield* this.#before('setxattr', name);
    yield* this.target.setxattr!(name, value, flags);
  }

  *listxattr(): Task<string[]> {
    yield* this.#before('listxattr');
    return yield* this.target.listxattr!();
  }

  *removexattr(name: string): Task<void> {
    yield* this.#before('removexattr', name);
    yield* this.target.removexattr!(name);
  }

  *exportHandle(): Task<FileHandle | undefined> {
    yield* this.#before('exportHandle');
    return yield* this.target.exportHandle!();
  }

  *ioctl(command: number, input: Uint8Array, outputBytes: number): Task<Uint8Array> {
    yield* this.#before('ioctl', command.toString(16));
    return yield* this.target.ioctl!(command, input, outputBytes);
  }

  forget(): void {
    assert(!this.forgotten, 'an inode is forgotten once');
    this.forgotten = true;
    this.fs.live.delete(this);
    this.target.forget();
  }
}
