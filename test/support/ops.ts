/**
 * Random operations over a small name space, as data: a sequence can be printed, replayed and cut down.
 *
 * An operation names files by path, by descriptor slot or by map slot. Slots live across other
 * operations, so that a descriptor outlives the name it was opened by. What exists is followed
 * roughly (`Model`), only so that most operations hit something; wrong guesses are welcome, since an
 * errno must agree too.
 */
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  O_APPEND,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  O_TRUNC,
  O_WRONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
} from '../../src/abi/fcntl.ts';
import { aclHex } from './acl.ts';
import type { CallName } from './calls.ts';

export const DESCRIPTOR_SLOTS = 6;
export const MAP_SLOTS = 3;

/** A path in the tree; the descriptor or map of a slot; a name below the directory open in a slot. */
export type Argument =
  | string
  | number
  | { readonly path: string }
  | { readonly fd: number }
  | { readonly map: number }
  | { readonly below: number; readonly name: string };

export interface Op {
  readonly call: CallName;
  readonly args: readonly Argument[];
  /** The slot that takes the result. */
  readonly into?: { readonly fd: number } | { readonly map: number };
  /** Who asks, root if absent. */
  readonly as?: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
}

/** mulberry32. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = Math.imul(seed, 0x9e3779b1) >>> 0;
  }
  /** An integer in [0, n). */
  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * n);
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

const NAMES = ['a', 'b', 'c', 'd', 'e', '\xff\x80'];
const MODES = [0o755, 0o700, 0o1777, 0o2775, 0o644, 0o600, 0o4755, 0o666, 0o2777, 0o6711, 0o777];
const OWNERS = [0, 11_001, 11_002];
const XATTRS = ['user.one', 'user.two', 'trusted.three'];
const PEOPLE = [
  { uid: 11_001, gid: 11_001, groups: [] },
  { uid: 11_002, gid: 11_002, groups: [11_001] },
];
const SIZES = [0, 1, 100, 4095, 4096, 4097, 8192, 10_000, 65_536, 70_001];

type Kind = 'file' | 'dir' | 'symlink' | 'other';

/** What probably exists. */
export class Model {
  readonly #kinds = new Map<string, Kind>();
  readonly descriptors: (Kind | undefined)[] = Array<undefined>(DESCRIPTOR_SLOTS).fill(undefined);
  readonly maps: boolean[] = Array<boolean>(MAP_SLOTS).fill(false);

  set(path: string, kind: Kind): void {
    this.#kinds.set(path, kind);
  }

  remove(path: string): void {
    for (const other of [...this.#kinds.keys()]) {
      if (other === path || other.startsWith(path + '/')) this.#kinds.delete(other);
    }
  }

  #take(path: string): [string, Kind][] {
    const found = [...this.#kinds].filter(([p]) => p === path || p.startsWith(path + '/'));
    for (const [p] of found) this.#kinds.delete(p);
    return found.map(([p, kind]) => [p.slice(path.length), kind]);
  }

  rename(from: string, to: string, exchange: boolean): void {
    const source = this.#take(from);
    const target = this.#take(to);
    for (const [rest, kind] of source) this.#kinds.set(to + rest, kind);
    if (exchange) for (const [rest, kind] of target) this.#kinds.set(from + rest, kind);
  }

  kind(path: string): Kind | undefined {
    return this.#kinds.get(path);
  }

  of(kind: Kind): string[] {
    return [...this.#kinds].filter(([, k]) => k === kind).map(([p]) => p);
  }

  all(): string[] {
    return [...this.#kinds.keys()];
  }

  closeAll(): void {
    this.descriptors.fill(undefined);
    this.maps.fill(false);
  }

  /** After `op` has succeeded on the oracle. */
  learn(op: Op): void {
    const paths = op.args.map((a) => (typeof a === 'object' && 'path' in a ? a.path : undefined));
    const [first, second] = paths;
    if (op.into !== undefined) this.#learnSlot(op, first);
    if (op.call === 'mkdir' && first !== undefined) this.set(first, 'dir');
    if (op.call === 'mknod' && first !== undefined) this.set(first, 'other');
    if (op.call === 'symlink' && second !== undefined) this.set(second, 'symlink');
    if ((op.call === 'link' || op.call === 'linkfd') && second !== undefined) {
      this.set(second, (first === undefined ? undefined : this.kind(first)) ?? 'file');
    }
    if ((op.call === 'unlink' || op.call === 'rmdir') && first !== undefined) this.remove(first);
    if (op.call === 'writeFile' && first !== undefined && this.kind(first) === undefined) this.set(first, 'file');
    if (op.call === 'rename' && first !== undefined && second !== undefined) {
      this.rename(first, second, op.args[2] === RENAME_EXCHANGE);
    }
    if (op.call === 'close') this.descriptors[(op.args[0] as { fd: number }).fd] = undefined;
    if (op.call === 'munmap') this.maps[(op.args[0] as { map: number }).map] = false;
  }

  #learnSlot(op: Op, path: string | undefined): void {
    if ('map' in op.into!) {
      this.maps[op.into.map] = true;
      return;
    }
    const flags = op.args[1] as number;
    const isDirectory = (flags & O_DIRECTORY) !== 0 && (flags & O_TMPFILE) !== O_TMPFILE;
    this.descriptors[op.into!.fd] = isDirectory ? 'dir' : 'file';
    if ((flags & O_CREAT) !== 0 && path !== undefined && this.kind(path) === undefined) this.set(path, 'file');
  }
}

function text(r: Random, length: number): string {
  const letter = String.fromCharCode(33 + r.below(90));
  return (letter + r.below(1000)).repeat(Math.ceil(length / 2)).slice(0, length);
}

function randomPath(r: Random): string {
  return Array.from({ length: 1 + r.below(3) }, () => r.pick(NAMES)).join('/');
}

function existing(r: Random, model: Model, kinds: Kind[]): string {
  const known = r.chance(85) ? kinds.flatMap((k) => model.of(k)) : model.all();
  return known.length === 0 || r.chance(8) ? randomPath(r) : r.pick(known);
}

/** A name in a directory that probably exists. */
function fresh(r: Random, model: Model): string {
  const dirs = model.of('dir').filter((d) => d.split('/').length < 4);
  if (dirs.length === 0 || r.chance(25)) return r.pick(NAMES);
  return `${r.pick(dirs)}/${r.pick(NAMES)}`;
}

const slotsWith = (model: Model, kind: Kind): number[] =>
  model.descriptors.flatMap((k, i) => (k === kind ? [i] : []));

export interface OpLimits {
  /** Maps only of descriptors that may write, as kernel overlayfs's maps of lower files stay there. */
  readonly mapsOnlyWritable: boolean;
}

type Make = (r: Random, m: Model, limits: OpLimits) => Op | undefined;

function onFile(make: (r: Random, fd: { fd: number }) => Op): Make {
  return (r, m) => {
    const slots = slotsWith(m, 'file');
    return slots.length === 0 ? undefined : make(r, { fd: r.pick(slots) });
  };
}

function open(r: Random, m: Model): Op {
  const slot = { fd: r.below(DESCRIPTOR_SLOTS) };
  if (r.chance(12)) {
    return { call: 'open', args: [{ path: existing(r, m, ['dir']) }, O_RDONLY | O_DIRECTORY], into: slot };
  }
  if (r.chance(8)) {
    const dir = { path: existing(r, m, ['dir']) };
    return { call: 'open', args: [dir, O_TMPFILE | O_RDWR, 0o644], into: slot };
  }
  const create = r.chance(40);
  const flags =
    r.pick([O_RDONLY, O_RDWR, O_RDWR, O_WRONLY]) |
    (create ? O_CREAT | (r.chance(20) ? O_EXCL : 0) : 0) |
    (r.chance(10) ? O_TRUNC : 0) |
    (r.chance(15) ? O_APPEND : 0);
  // A fifo opened without O_NONBLOCK would wait for the other end.
  const path = { path: create ? fresh(r, m) : existing(r, m, ['file']) };
  return { call: 'open', args: [path, flags | 0o4000, r.pick(MODES)], into: slot };
}

function below(r: Random, m: Model): Op | undefined {
  const slots = slotsWith(m, 'dir');
  if (slots.length === 0) return undefined;
  const at = { below: r.pick(slots), name: r.pick(NAMES) };
  return r.pick<Op>([
    { call: 'mkdir', args: [at, 0o755] },
    { call: 'lstat', args: [at] },
    { call: 'unlink', args: [at] },
    { call: 'writeFile', args: [at, text(r, 50)] },
    { call: 'symlink', args: ['target', at] },
  ]);
}

function map(r: Random, m: Model, limits: OpLimits): Op | undefined {
  const slots = slotsWith(m, 'file');
  if (slots.length === 0) return undefined;
  const prot = limits.mapsOnlyWritable || r.chance(60) ? 3 : 1;
  return { call: 'mmap', args: [{ fd: r.pick(slots) }, 16_384, prot], into: { map: r.below(MAP_SLOTS) } };
}

function onMap(make: (r: Random, map: { map: number }) => Op): Make {
  return (r, m) => {
    const used = m.maps.flatMap((live, i) => (live ? [i] : []));
    return used.length === 0 ? undefined : make(r, { map: r.pick(used) });
  };
}

function acl(r: Random, m: Model): Op {
  const isDefault = r.chance(50);
  const path = { path: existing(r, m, isDefault ? ['dir'] : ['dir', 'file']) };
  const value = aclHex([
    ['userObj', 7],
    ['user', r.below(8), r.pick(OWNERS.slice(1))],
    ['groupObj', r.below(8)],
    ['mask', r.below(8)],
    ['other', r.below(8)],
  ]);
  return { call: 'setxattrHex', args: [path, `system.posix_acl_${isDefault ? 'default' : 'access'}`, value] };
}

function copyRange(r: Random, m: Model): Op | undefined {
  const slots = slotsWith(m, 'file');
  if (slots.length < 2) return undefined;
  const [from, to] = [r.pick(slots), r.pick(slots)];
  if (from === to) return undefined;
  return { call: 'copyRange', args: [{ fd: from }, r.below(9000), { fd: to }, r.below(9000), 1 + r.below(8000)] };
}

const past = (r: Random): string => `${1_000_000_000 + r.below(600_000_000)}${String(r.below(1e9)).padStart(9, '0')}`;
const ANY: Kind[] = ['file', 'dir', 'symlink', 'other'];

/** How often, and how. */
const TABLE: readonly (readonly [number, Make])[] = [
  [10, open],
  [6, (r, m) => ({ call: 'writeFile', args: [{ path: fresh(r, m) }, text(r, r.pick(SIZES)), r.pick(MODES)] })],
  [6, (r, m) => ({ call: 'mkdir', args: [{ path: fresh(r, m) }, r.pick(MODES)] })],
  [10, (r, m) => ({ call: 'rename', args: [{ path: existing(r, m, ['file', 'dir', 'symlink']) }, { path: fresh(r, m) }, 0] })],
  [4, (r, m) => ({ call: 'rename', args: [{ path: existing(r, m, ['dir']) }, { path: fresh(r, m) }, 0] })],
  [3, (r, m) => ({ call: 'rename', args: [{ path: existing(r, m, ANY) }, { path: fresh(r, m) }, RENAME_NOREPLACE] })],
  [4, (r, m) => ({ call: 'rename', args: [{ path: existing(r, m, ANY) }, { path: existing(r, m, ANY) }, RENAME_EXCHANGE] })],
  [5, (r, m) => ({ call: 'link', args: [{ path: existing(r, m, ['file']) }, { path: fresh(r, m) }] })],
  [2, (r, m) => ({ call: 'link', args: [{ path: existing(r, m, ['symlink', 'other']) }, { path: fresh(r, m) }] })],
  [2, (r, m) => ({ call: 'symlink', args: [r.pick(NAMES), { path: fresh(r, m) }] })],
  [7, (r, m) => ({ call: 'unlink', args: [{ path: existing(r, m, ['file', 'symlink', 'other']) }] })],
  [5, (r, m) => ({ call: 'rmdir', args: [{ path: existing(r, m, ['dir']) }] })],
  [4, (r, m) => ({ call: 'chmod', args: [{ path: existing(r, m, ['file', 'dir']) }, r.pick(MODES)] })],
  [3, (r, m) => ({ call: 'lchown', args: [{ path: existing(r, m, ANY) }, r.pick(OWNERS), r.pick(OWNERS)] })],
  [3, (r, m) => ({ call: 'utimens', args: [{ path: existing(r, m, ANY) }, past(r), past(r)] })],
  [4, (r, m) => ({ call: 'truncate', args: [{ path: existing(r, m, ['file']) }, r.pick(SIZES)] })],
  [3, (r, m) => ({ call: 'setxattr', args: [{ path: existing(r, m, ANY) }, r.pick(XATTRS), text(r, r.below(40)), r.below(3)] })],
  [2, (r, m) => ({ call: 'removexattr', args: [{ path: existing(r, m, ANY) }, r.pick(XATTRS)] })],
  [1, (r, m) => ({ call: 'listxattr', args: [{ path: existing(r, m, ANY) }] })],
  [2, acl],
  [1, (r, m) => ({ call: 'mknod', args: [{ path: fresh(r, m) }, 0o010644, 0] })],
  [1, (r, m) => ({ call: 'mknod', args: [{ path: fresh(r, m) }, 0o020600, 0x103] })],
  [2, (r, m) => ({ call: 'names', args: [{ path: existing(r, m, ['dir']) }] })],
  [2, (r, m) => ({ call: 'lstat', args: [{ path: existing(r, m, ANY) }] })],
  [2, (r, m) => ({ call: 'stat', args: [{ path: existing(r, m, ['symlink']) }] })],
  [1, (r, m) => ({ call: 'readlink', args: [{ path: existing(r, m, ['symlink']) }] })],
  [2, (r, m) => ({ call: 'readFile', args: [{ path: existing(r, m, ['file']) }] })],
  [8, onFile((r, fd) => ({ call: 'pwrite', args: [fd, text(r, 1 + r.below(9000)), r.below(20_000)] }))],
  [3, onFile((r, fd) => ({ call: 'write', args: [fd, text(r, 1 + r.below(500))] }))],
  [6, onFile((r, fd) => ({ call: 'pread', args: [fd, 1 + r.below(20_000), r.below(10_000)] }))],
  [4, onFile((_, fd) => ({ call: 'fstat', args: [fd] }))],
  [2, onFile((r, fd) => ({ call: 'ftruncate', args: [fd, r.pick(SIZES)] }))],
  [2, onFile((r, fd) => ({ call: 'fchmod', args: [fd, r.pick(MODES)] }))],
  [1, onFile((r, fd) => ({ call: 'fchown', args: [fd, r.pick(OWNERS), r.pick(OWNERS)] }))],
  [1, onFile((r, fd) => ({ call: 'futimens', args: [fd, past(r), past(r)] }))],
  [2, onFile((r, fd) => ({ call: 'fallocate', args: [fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r.below(9000), 1 + r.below(9000)] }))],
  [1, onFile((r, fd) => ({ call: 'fallocate', args: [fd, 0, r.below(30_000), 1 + r.below(9000)] }))],
  [1, onFile((r, fd) => ({ call: 'fallocate', args: [fd, FALLOC_FL_KEEP_SIZE, r.below(30_000), 1 + r.below(9000)] }))],
  [1, onFile((_, fd) => ({ call: 'fsync', args: [fd] }))],
  [1, onFile((_, fd) => ({ call: 'dropPages', args: [fd] }))],
  [2, onFile((_, fd) => ({ call: 'close', args: [fd] }))],
  [1, (r, m) => (slotsWith(m, 'file').length === 0 ? undefined : { call: 'linkfd', args: [{ fd: r.pick(slotsWith(m, 'file')) }, { path: fresh(r, m) }] })],
  [2, copyRange],
  [2, (r, m) => (slotsWith(m, 'dir').length === 0 ? undefined : { call: 'rewindNames', args: [{ fd: r.pick(slotsWith(m, 'dir')) }] })],
  [3, below],
  [4, map],
  [4, onMap((r, at) => ({ call: 'mapWriteWithin', args: [at, r.below(12_000), text(r, 1 + r.below(4000))] }))],
  [4, onMap((r, at) => ({ call: 'mapReadWithin', args: [at, r.below(12_000), 1 + r.below(4000)] }))],
  [1, onMap((_, at) => ({ call: 'msync', args: [at] }))],
  [1, onMap((_, at) => ({ call: 'munmap', args: [at] }))],
];

// FALLOC_FL_ZERO_RANGE is left out: tmpfs, the oracle, has it not.
void FALLOC_FL_ZERO_RANGE;

const TOTAL = TABLE.reduce((sum, [weight]) => sum + weight, 0);

export function randomOp(r: Random, model: Model, limits: OpLimits): Op {
  for (;;) {
    let at = r.below(TOTAL);
    const [, make] = TABLE.find(([weight]) => (at -= weight) < 0)!;
    const op = make(r, model, limits);
    if (op === undefined) continue;
    const byPath = op.args.some((a) => typeof a === 'object' && 'path' in a);
    return byPath && r.chance(10) ? { ...op, as: r.pick(PEOPLE) } : op;
  }
}

/** The content of the lower branch: operations by path, all of which succeed. */
export function prefillOps(r: Random, model: Model): Op[] {
  const ops: Op[] = [];
  const add = (op: Op): void => {
    ops.push(op);
    model.learn(op);
  };
  for (const d of ['a', 'b', 'a/c', 'a/c/d', 'b/e', 'd']) add({ call: 'mkdir', args: [{ path: d }, r.pick([0o755, 0o777, 0o2775])] });
  for (const d of ['a', 'b', 'a/c', 'a/c/d', 'b/e', 'd']) {
    for (const name of NAMES) {
      const path = { path: `${d}/${name}` };
      if (model.kind(path.path) !== undefined || r.chance(45)) continue;
      if (r.chance(15)) add({ call: 'symlink', args: [r.pick(NAMES), path] });
      else if (r.chance(6)) add({ call: 'mknod', args: [path, 0o010644, 0] });
      else if (r.chance(25) && model.of('file').length > 0) add({ call: 'link', args: [{ path: r.pick(model.of('file')) }, path] });
      else add({ call: 'writeFile', args: [path, text(r, r.pick(SIZES)), r.pick([0o644, 0o666, 0o4755])] });
    }
  }
  for (const path of model.all()) {
    if (r.chance(20) && model.kind(path) !== 'symlink' && model.kind(path) !== 'other') {
      add({ call: 'setxattr', args: [{ path }, r.pick(XATTRS), text(r, 10), 0] });
    }
    if (r.chance(20)) add({ call: 'lchown', args: [{ path }, r.pick(OWNERS), r.pick(OWNERS)] });
  }
  for (const path of model.all()) add({ call: 'utimens', args: [{ path }, past(r), past(r)] });
  return ops;
}
