/**
 * Races: several operations on the same names at once, in an order that a seed picks at every wait.
 *
 * Whatever the order: nobody waits for ever, nobody fails but with an errno, what the union remembers
 * agrees with its branches, nothing is left in work/, and a union opened anew shows the same tree. For
 * few operations the tree is also one that some order of them, one after the other, gives.
 * Parking is where a host waits: copying, syncing and reading data. `SEED=n` runs one seed.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { Errno, errnoName } from '../../abi/errno.ts';
import { RENAME_EXCHANGE } from '../../abi/fcntl.ts';
import { bytesOf } from '../../lib/latin1.ts';
import { Prng } from '../../lib/prng.ts';
import { errnoOf, fail } from '../../kernel/error.ts';
import { Mutex } from '../../kernel/locking/mutex.ts';
import type { Task } from '../../kernel/task.ts';
import { SimulatedScheduler } from '../../sim/scheduler.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
import { CRED, FaultWorld } from '../../../test/support/fault-world.ts';
import type { Stack } from '../../../test/support/fault-world.ts';
import { checkUnion } from './check.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: trusted xattrs and device nodes';
const STACKS: readonly Stack[] = [
  { branches: 'U=rw L=ro', base: 'L', options: { volatile: false } },
  { branches: 'A=rw B=rw L=ro', base: 'L', options: { volatile: false } },
  { branches: 'A=rw B=rw L=ro', base: 'B', options: { volatile: false } },
];
/** What an operation may answer when another has taken its name away. */
const EXPECTED: ReadonlySet<number> = new Set([
  Errno.ENOENT, Errno.EEXIST, Errno.ENOTEMPTY, Errno.EISDIR, Errno.ENOTDIR, Errno.EINVAL, Errno.EPERM, Errno.EBUSY,
]);
/** EBUSY: the lower would not hold still. Here nobody touches it. */
const UNEXPECTED = Errno.EBUSY;

function build(world: FaultWorld): void {
  for (const dir of ['d', 'e']) {
    fs.mkdirSync(world.base(dir));
    fs.chmodSync(world.base(dir), 0o755);
  }
  for (const file of ['f', 'g', 'h', 'd/a']) {
    fs.writeFileSync(world.base(file), `the ${file}`);
    fs.chmodSync(world.base(file), 0o644);
  }
  fs.linkSync(world.base('h'), world.base('d/h2'));
}

const PATHS = ['f', 'g', 'h', 'd', 'e', 'd/a', 'd/h2', 'd/n', 'e/n', 'n'] as const;

function* at(world: FaultWorld, path: string): Task<Inode> {
  let inode: Inode = world.union.root;
  for (const name of path.split('/').filter((part) => part !== '')) {
    inode = (yield* inode.lookup(name as Name)) ?? fail(Errno.ENOENT);
  }
  return inode;
}

const nameOf = (path: string): Name => path.split('/').at(-1) as Name;
const parentOf = (path: string): string => path.split('/').slice(0, -1).join('/');

/** One operation, chosen by the seed: what it is called, and what does it. */
interface Operation {
  readonly text: string;
  readonly changesNames: boolean;
  readonly run: (world: FaultWorld) => Task<void>;
}

type Kind = (random: Prng) => Operation;

function* remove(world: FaultWorld, path: string): Task<void> {
  const dir = yield* at(world, parentOf(path));
  const victim = yield* at(world, path);
  if (victim.type === 0o040000) yield* dir.rmdir(nameOf(path), victim);
  else yield* dir.unlink(nameOf(path), victim);
}

function* move(world: FaultWorld, from: string, to: string, flags: number): Task<void> {
  const dir = yield* at(world, parentOf(from));
  const newDir = yield* at(world, parentOf(to));
  const source = yield* at(world, from);
  const replaced = yield* newDir.lookup(nameOf(to));
  yield* dir.rename(nameOf(from), source, newDir, nameOf(to), replaced, flags);
}

const KINDS: readonly Kind[] = [
  (random) => {
    const path = random.pick(PATHS);
    const text = `w${random.below(9)}`;
    return {
      changesNames: false,
      text: `write ${text} to ${path}`,
      *run(world) {
        yield* (yield* at(world, path)).write({ bytes: bytesOf(text), offset: 0, length: 2 }, 0);
      },
    };
  },
  (random) => {
    const path = random.pick(PATHS);
    const size = random.below(9);
    return {
      changesNames: false,
      text: `truncate ${path} to ${size}`,
      *run(world) {
        yield* (yield* at(world, path)).setattr({ size });
      },
    };
  },
  (random) => {
    const path = random.pick(PATHS);
    const mode = 0o700 + random.below(8);
    return {
      changesNames: false,
      text: `chmod ${mode.toString(8)} ${path}`,
      *run(world) {
        yield* (yield* at(world, path)).setattr({ mode });
      },
    };
  },
  (random) => {
    const path = random.pick(PATHS);
    return { changesNames: true, text: `remove ${path}`, run: (world) => remove(world, path) };
  },
  (random) => {
    const from = random.pick(PATHS);
    const to = random.pick(PATHS);
    return { changesNames: true, text: `rename ${from} to ${to}`, run: (world) => move(world, from, to, 0) };
  },
  (random) => {
    const from = random.pick(PATHS);
    const to = random.pick(PATHS);
    return { changesNames: true, text: `exchange ${from} and ${to}`, run: (world) => move(world, from, to, RENAME_EXCHANGE) };
  },
  (random) => {
    const from = random.pick(PATHS);
    const to = random.pick(PATHS);
    return {
      changesNames: true,
      text: `link ${from} as ${to}`,
      *run(world) {
        const target = yield* at(world, from);
        yield* (yield* at(world, parentOf(to))).link(nameOf(to), target);
      },
    };
  },
  (random) => {
    const path = random.pick(PATHS);
    const isFile = random.below(2) === 0;
    return {
      changesNames: true,
      text: `${isFile ? 'create' : 'mkdir'} ${path}`,
      *run(world) {
        const dir = yield* at(world, parentOf(path));
        if (isFile) yield* dir.create(nameOf(path), 0o600, CRED);
        else yield* dir.mkdir(nameOf(path), 0o700, CRED);
      },
    };
  },
];

/** As the kernel does it above a mount: who changes names has them to himself. */
type Names = Mutex | undefined;

/** Answers with an errno are answers. */
function* answered(world: FaultWorld, operation: Operation, names?: Names): Task<void> {
  using _ = operation.changesNames && names !== undefined ? yield* names.lock(operation) : undefined;
  try {
    yield* operation.run(world);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    assert.ok(EXPECTED.has(errno) && errno !== UNEXPECTED, `${operation.text}: ${errnoName(errno)}`);
  }
}

function opened(stack: Stack): FaultWorld {
  const world = new FaultWorld(stack);
  build(world);
  world.settle().open();
  return world;
}

function* orders<T>(items: readonly T[]): Generator<readonly T[]> {
  if (items.length <= 1) yield items;
  for (const [i, item] of items.entries()) {
    if (items.length <= 1) return;
    for (const rest of orders(items.toSpliced(i, 1))) yield [item, ...rest];
  }
}

/** The trees that doing one after the other gives, in any order. */
function serialTrees(stack: Stack, operations: readonly Operation[]): Map<string, string> {
  const trees = new Map<string, string>();
  for (const order of orders(operations)) {
    const world = opened(stack);
    try {
      for (const operation of order) world.run(answered(world, operation));
      trees.set(world.text(), order.map((operation) => operation.text).join(', '));
    } finally {
      world.remove();
    }
  }
  return trees;
}

function race(seed: number, count: number, isSerial: boolean): void {
  const random = new Prng(seed);
  const stack = random.pick(STACKS);
  const operations = Array.from({ length: count }, () => random.pick(KINDS)(random));
  const world = opened(stack);
  const names = isSerial ? new Mutex({ name: 'names', nestable: false }) : undefined;
  const scheduler = new SimulatedScheduler(seed);
  world.plan.parking = 'data';
  try {
    for (const operation of operations) scheduler.add(operation.text, answered(world, operation, names));
    scheduler.settle();
    world.plan.parking = 'none';
    world.run(checkUnion(world.union));
    const text = world.text();
    world.run(checkUnion(world.union));
    world.close();
    world.open();
    assert.equal(world.text(), text, 'opened anew');
    world.run(checkUnion(world.union));
    assert.deepEqual(world.workNames(), []);
    if (!isSerial) return;
    const trees = serialTrees(stack, operations);
    assert.ok(trees.has(text), `no order gives\n${text}\nbut\n${[...trees].map(([tree, order]) => `${order}:\n${tree}`).join('\n')}`);
  } catch (error) {
    const steps = scheduler.history.join('\n  ');
    throw new Error(`SEED=${seed} on ${stack.branches}, base on ${stack.base}\n  ${steps}\n${String((error as Error).stack)}`);
  } finally {
    world.plan.parking = 'none';
    world.remove();
  }
}

const seeds = (from: number, count: number): number[] =>
  process.env.SEED === undefined ? Array.from({ length: count }, (_, i) => from + i) : [Number(process.env.SEED)];

test('a few operations at once are as if one after the other', { skip }, () => {
  for (const seed of seeds(1, 60)) race(seed, 3, true);
});

test('many operations at once leave a union that agrees with its branches', { skip }, () => {
  for (const seed of seeds(1001, 200)) race(seed, 8, false);
});
