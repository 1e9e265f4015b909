/**
 * One sequence of operations on a subject and on a plain directory, side by side.
 *
 * Words: a *phase* is a time during which one kind of subject is mounted; phases follow each other
 * over the same branches, so that the kernel's overlayfs may have to go on where we have stopped.
 * The *oracle* is a plain directory on a tmpfs with the same content at the start.
 *
 * D1. After each operation both sides have given the same value or the same errno.
 * D2. After every few operations, and before and after each remount, both trees are the same, and an
 *     object that has lived since the last look has the same inode number as then.
 */
import fs from 'node:fs';
import { errnoName } from '../../src/abi/errno.ts';
import { describe, type Call, type CallName, type Outcome } from './caller.ts';
import type { StatRecord } from './calls.ts';
import {
  DESCRIPTOR_SLOTS,
  MAP_SLOTS,
  Model,
  Random,
  prefillOps,
  randomOp,
  type Argument,
  type Op,
} from './ops.ts';
import { compareTrees, type TreeEntry } from './tree.ts';
import { World, type SubjectKind } from './world.ts';

export interface Phase {
  readonly kind: SubjectKind;
  readonly ops: number;
}

export interface SequenceOptions {
  readonly seed: number;
  readonly phases: readonly Phase[];
  readonly on?: 'tmpfs' | 'disk';
  readonly mountOptions?: string[];
  /** Trees are compared after so many operations. */
  readonly every?: number;
  /** To do these instead of random ones: one list a phase. */
  readonly replay?: readonly (readonly Op[])[];
}

/** A difference, with all that was done before it. */
export class Divergence extends Error {
  /** What was done, a list per phase. */
  readonly done: readonly (readonly Op[])[];
  constructor(message: string, done: readonly (readonly Op[])[]) {
    super(message);
    this.done = done;
  }
}

type Slots = { fd: (number | undefined)[]; map: (number | undefined)[] };

const emptySlots = (): Slots => ({
  fd: Array<undefined>(DESCRIPTOR_SLOTS).fill(undefined),
  map: Array<undefined>(MAP_SLOTS).fill(undefined),
});

/** The argument of one side; an empty slot is a descriptor nobody has, and gives EBADF on both. */
function resolve(argument: Argument, root: string, slots: Slots): unknown {
  if (typeof argument !== 'object') return argument;
  if ('path' in argument) return `${root}/${argument.path}`;
  if ('fd' in argument) return slots.fd[argument.fd] ?? 9999;
  if ('map' in argument) return slots.map[argument.map];
  return `/proc/self/fd/${slots.fd[argument.below] ?? 9999}/${argument.name}`;
}

/** What of a value must agree. */
function comparable(call: CallName, value: unknown, kind: SubjectKind): unknown {
  if (call === 'open' || call === 'mmap') return 'a slot';
  if (call !== 'lstat' && call !== 'stat' && call !== 'fstat') return value;
  const s = value as StatRecord;
  const isDirectory = (s.mode & 0o170000) === 0o040000;
  const nlink = isDirectory || (kind === 'overlay' && call === 'fstat') ? 0 : s.nlink;
  return [s.mode, nlink, s.uid, s.gid, s.rdev, isDirectory ? 0 : s.size];
}

function shownOp(op: Op): string {
  const args = op.args.map((a) => {
    if (typeof a !== 'object') return a;
    if ('path' in a) return a.path;
    if ('fd' in a) return `fd${a.fd}`;
    return 'map' in a ? `map${a.map}` : `fd${a.below}/${a.name}`;
  });
  const into = op.into === undefined ? '' : `${'fd' in op.into ? `fd${op.into.fd}` : `map${op.into.map}`} = `;
  return into + describe([op.call, ...args]) + (op.as === undefined ? '' : ` as ${op.as.uid}`);
}

export function shownOps(done: readonly (readonly Op[])[], last = 60): string {
  const lines = done.flatMap((ops, i) => [`-- phase ${i}`, ...ops.map(shownOp)]);
  return lines.slice(-last).map((l) => `    ${l}`).join('\n');
}

const isRegular = (e: TreeEntry): boolean => (e.stat.mode & 0o170000) === 0o100000;

/** Written data moves their times on a filesystem of the kernel, and never reaches a FUSE daemon. */
const isPipeOrDevice = (e: TreeEntry): boolean => [0o010000, 0o020000].includes(e.stat.mode & 0o170000);

class Sequence {
  readonly options: SequenceOptions;
  readonly world: World;
  readonly random: Random;
  readonly model = new Model();
  readonly done: Op[][] = [];
  readonly oracle: string;
  kind: SubjectKind = 'plain';
  #subjectSlots = emptySlots();
  #oracleSlots = emptySlots();
  /** Inode numbers at the last look: the oracle's to the subject's. */
  #inodes = new Map<string, { ino: string; path: string }>();
  #startNs = 0n;
  /** The subject's tree at the last look. */
  #found: readonly TreeEntry[] | undefined;
  /** Kernel overlayfs moves the mtime of a metacopy file when it copies the data up at open. */
  #kernelTouched = false;
  /** The oracle's inode numbers of files whose mtime may be either of two. */
  readonly #anyMtime = new Set<string>();

  constructor(options: SequenceOptions, world: World) {
    this.options = options;
    this.world = world;
    this.random = new Random(options.seed);
    this.oracle = world.plain;
  }

  async prepare(): Promise<void> {
    const root = this.world.lower;
    const ops = prefillOps(this.random, this.model);
    const calls = ops.map((op): Call => [op.call, ...op.args.map((a) => resolve(a, root, this.#oracleSlots))]);
    const outcomes = await this.world.caller.batch(calls);
    outcomes.forEach((o, i) => {
      if ('errno' in o) throw new Error(`prefill: ${shownOp(ops[i]!)}: ${errnoName(o.errno)}`);
    });
    await this.world.mount('plain');
    await this.world.unmount();
    // Times from before this moment were set on purpose, and must agree to the nanosecond.
    this.#startNs = BigInt(Date.now() - 1000) * 1_000_000n;
  }

  fail(what: string): never {
    throw new Divergence(what, this.done);
  }

  async step(op: Op): Promise<void> {
    this.done.at(-1)!.push(op);
    await this.#vacate(op);
    const sides = [
      { root: this.world.mountpoint, slots: this.#subjectSlots },
      { root: this.oracle, slots: this.#oracleSlots },
    ];
    const calls = sides.map(({ root, slots }): Call => [
      op.call,
      ...op.args.map((a) => resolve(a, root, slots)),
    ]);
    await this.#noteAnyMtime(op);
    const outcomes = await this.#perform(calls, op);
    this.#compare(op, outcomes[0]!, outcomes[1]!);
    if (op.into !== undefined && 'value' in outcomes[0]!) {
      sides.forEach(({ slots }, i) => this.#fill(slots, op, (outcomes[i] as { value: number }).value));
    }
    if ('value' in outcomes[1]!) this.model.learn(op);
  }

  /**
   * truncate(2) to the size a file has: POSIX wants no new mtime, tmpfs gives one, and a kernel that
   * keeps times itself (FUSE's writeback cache) does not ask for one. Either is right.
   */
  async #noteAnyMtime(op: Op): Promise<void> {
    // A store through a map moves the mtime or not, as the filesystem likes: tmpfs does not.
    if (op.call === 'mmap') {
      const [found] = await this.world.caller.batch([['fstat', resolve(op.args[0]!, '', this.#oracleSlots)]]);
      if ('value' in found!) this.#anyMtime.add((found.value as StatRecord).ino);
      return;
    }
    if (op.call !== 'truncate') return;
    const path = resolve(op.args[0]!, this.oracle, this.#oracleSlots) as string;
    const [outcome] = await this.world.caller.batch([['stat', path]]);
    if ('errno' in outcome!) return;
    const { ino, size } = outcome!.value as StatRecord;
    if (size === op.args[1]) this.#anyMtime.add(ino);
  }

  #fill(slots: Slots, op: Op, value: number): void {
    if ('fd' in op.into!) slots.fd[op.into.fd] = value;
    else slots.map[op.into!.map] = value;
  }

  /** What is in the slot is closed before something else goes in; an emptied slot is forgotten. */
  async #vacate(op: Op): Promise<void> {
    const target = op.into ?? ({} as { fd?: number; map?: number });
    for (const slots of [this.#subjectSlots, this.#oracleSlots]) {
      if ('fd' in target && slots.fd[target.fd!] !== undefined) {
        await this.world.caller.do('close', slots.fd[target.fd!]!);
        slots.fd[target.fd!] = undefined;
      }
      if ('map' in target && slots.map[target.map!] !== undefined) {
        await this.world.caller.do('munmap', slots.map[target.map!]!);
        slots.map[target.map!] = undefined;
      }
    }
    if ('fd' in target) this.model.descriptors[target.fd!] = undefined;
    if ('map' in target) this.model.maps[target.map!] = false;
  }

  async #perform(calls: Call[], op: Op): Promise<Outcome[]> {
    if (op.call === 'munmap' || op.call === 'close') this.#forget(op.args[0]!);
    if (op.as === undefined) return this.world.caller.batch(calls);
    const { uid, gid, groups } = op.as;
    const all = await this.world.caller.batch([['as', uid, gid, groups], ...calls, ['as', 0, 0, []]]);
    return all.slice(1, -1);
  }

  #forget(argument: Argument): void {
    for (const slots of [this.#subjectSlots, this.#oracleSlots]) {
      if (typeof argument === 'object' && 'fd' in argument) slots.fd[argument.fd] = undefined;
      if (typeof argument === 'object' && 'map' in argument) slots.map[argument.map] = undefined;
    }
  }

  #compare(op: Op, found: Outcome, wanted: Outcome): void {
    const shown = (o: Outcome): string =>
      'errno' in o ? errnoName(o.errno) : JSON.stringify(comparable(op.call, o.value, this.kind)).slice(0, 300);
    const [f, w] = [shown(found), shown(wanted)];
    if (f !== w) this.fail(`${shownOp(op)}\n  gave   ${f}\n  wanted ${w}`);
  }

  async look(when: string): Promise<void> {
    // Every third sequence also lives through what memory pressure does: the kernel forgets inodes.
    if (this.options.seed % 3 === 0) fs.writeFileSync('/proc/sys/vm/drop_caches', '2');
    const { caller, mountpoint } = this.world;
    const [found, wanted] = await caller.batch([
      ['tree', mountpoint],
      ['tree', this.oracle],
    ]);
    if ('errno' in found!) this.fail(`${when}: reading the tree: ${errnoName(found.errno)}`);
    if ('errno' in wanted!) throw new Error(`cannot read the oracle: ${errnoName(wanted.errno)}`);
    this.#compareTrees(when, wanted!.value as TreeEntry[], found!.value as TreeEntry[]);
    this.#found = found!.value as TreeEntry[];
  }

  /** Nothing that was seen before the remount is different after it, times of just now included. */
  async #lookAgain(before: readonly TreeEntry[]): Promise<void> {
    await this.look('after the remount');
    const differences = compareTrees(before, this.#found!, { mtimes: true, directoryNlink: true });
    if (differences.length === 0) return;
    this.fail(`before and after a remount differ\n  ${differences.slice(0, 12).join('\n  ')}`);
  }

  #compareTrees(when: string, wanted: TreeEntry[], found: TreeEntry[]): void {
    const old = (e: TreeEntry): boolean => BigInt(e.stat.mtimeNs) < this.#startNs;
    const differences = compareTrees(wanted, found, {
      mtimes: (w, f) => 
        (old(w) || old(f)) && !isPipeOrDevice(w) && !this.#anyMtime.has(w.stat.ino) && !(this.#kernelTouched && isRegular(w)),
      directoryNlink: this.kind === 'palimpsest',
      dirents: this.kind === 'palimpsest',
    });
    differences.push(...this.#compareInodes(wanted, found));
    if (differences.length === 0) return;
    this.fail(`${when}: the trees differ\n  ${differences.slice(0, 12).join('\n  ')}`);
  }

  #compareInodes(wanted: TreeEntry[], found: TreeEntry[]): string[] {
    const have = new Map(found.map((e) => [e.path, e.stat.ino]));
    const next = new Map<string, { ino: string; path: string }>();
    const out: string[] = [];
    for (const { path, stat } of wanted) {
      const ino = have.get(path) ?? '?';
      const before = this.#inodes.get(stat.ino);
      if (before !== undefined && before.ino !== ino && ino !== '?') {
        out.push(`${path}: ino ${ino}, it was ${before.ino} as ${before.path}`);
      }
      next.set(stat.ino, { ino, path });
    }
    this.#inodes = next;
    return out;
  }

  async phase(index: number): Promise<void> {
    const { kind, ops } = this.options.phases[index]!;
    this.kind = kind;
    if (kind === 'overlay' && this.world.mountOptions.includes('metacopy=off') === false) {
      this.#kernelTouched = true;
    }
    this.done.push([]);
    await this.world.mount(kind);
    const sameAsBefore = this.options.phases[index - 1]?.kind === kind;
    if (sameAsBefore) await this.#lookAgain(this.#found!);
    else await this.look(`at the start of phase ${index} (${kind})`);
    const replay = this.options.replay?.[index];
    const every = this.options.every ?? 10;
    const count = replay?.length ?? ops;
    const limits = { mapsOnlyWritable: this.options.phases.some((p) => p.kind === 'overlay') };
    for (let i = 0; i < count; i++) {
      await this.step(replay?.[i] ?? randomOp(this.random, this.model, limits));
      if ((i + 1) % every === 0) await this.look(`after operation ${i + 1} of phase ${index} (${kind})`);
    }
    await this.look(`at the end of phase ${index} (${kind})`);
    await this.#endPhase();
    await this.look(`after all was closed in phase ${index} (${kind})`);
    await this.world.unmount();
  }

  async #endPhase(): Promise<void> {
    await this.world.caller.do('closeAll');
    this.#subjectSlots = emptySlots();
    this.#oracleSlots = emptySlots();
    this.model.closeAll();
  }
}

/** Throws a Divergence, or whatever else went wrong, after everything has been taken down. */
export async function runSequence(options: SequenceOptions): Promise<void> {
  const world = new World({ on: options.on ?? 'tmpfs', mountOptions: options.mountOptions ?? [] });
  const sequence = new Sequence(options, world);
  try {
    await sequence.prepare();
    for (let i = 0; i < options.phases.length; i++) await sequence.phase(i);
  } catch (e) {
    if (e instanceof Divergence) throw e;
    throw new Divergence(e instanceof Error ? (e.stack ?? e.message) : String(e), sequence.done);
  } finally {
    await world.dispose();
  }
}

/** The same failure with fewer operations: halves, quarters, … are left out while it still fails. */
export async function shrink(options: SequenceOptions, failure: Divergence): Promise<Divergence> {
  let best = failure;
  for (let chunk = 32; chunk >= 1; chunk = Math.floor(chunk / 2)) {
    for (let phase = 0; phase < best.done.length; phase++) {
      for (let at = 0; at < best.done[phase]!.length; ) {
        const replay = best.done.map((ops, i) => (i === phase ? ops.filter((_, k) => k < at || k >= at + chunk) : ops));
        const shorter = await failureOf({ ...options, replay, phases: options.phases.slice(0, replay.length), every: 1 });
        if (shorter === undefined) at += chunk;
        else best = shorter;
      }
    }
  }
  return best;
}

async function failureOf(options: SequenceOptions): Promise<Divergence | undefined> {
  try {
    await runSequence(options);
    return undefined;
  } catch (e) {
    if (e instanceof Divergence) return e;
    throw e;
  }
}
