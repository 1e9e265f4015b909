/**
 * Random changes through a union that the kernel mounts, over a random base; then a commit of some
 * paths, which must leave what the union shows, and one of all, which must make the base that.
 *
 * `SEED=n` runs one seed, `PALIMPSEST_FUZZ_SEEDS=n` that many.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { runSync } from '../kernel/task.ts';
import { applyCommit, planCommit } from './commit.ts';
import { discard } from './discard.ts';
import { Scratch, noOverlay, sh } from './testing.ts';
import type { Selection } from './types.ts';
import { LayerError } from './types.ts';

const skip = noOverlay();

class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** mulberry32 */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  }
  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
}

const NAMES = ['a', 'b', 'c', 'd'];
const EXPECTED = new Set([
  'ENOENT',
  'EEXIST',
  'ENOTDIR',
  'EISDIR',
  'ENOTEMPTY',
  'EINVAL',
  'EXDEV',
  'EPERM',
  'ELOOP',
  'ERR_FS_EISDIR',
  'ENXIO',
]);

function randomPath(random: Random, root: string): string {
  const depth = 1 + random.below(3);
  return [root, ...Array.from({ length: depth }, () => random.of(NAMES))].join('/');
}

type Op = (path: string, other: string, random: Random) => void;

const OPS: Op[] = [
  (p, _, r) => fs.writeFileSync(p, `new ${r.below(1000)}\n`.repeat(1 + r.below(3)), { flag: 'wx' }),
  (p, _, r) => {
    if (fs.lstatSync(p).isFile()) fs.appendFileSync(p, `more ${r.below(1000)}\n`);
  },
  (p) => fs.mkdirSync(p),
  (p) => fs.mkdirSync(p),
  (p, o) => fs.renameSync(p, o),
  (p, o) => fs.renameSync(p, o),
  (p, o) => fs.renameSync(p, o),
  (p) => fs.unlinkSync(p),
  (p) => fs.rmSync(p, { recursive: true }),
  (p) => fs.rmdirSync(p),
  (p, o) => {
    if (!fs.lstatSync(p).isDirectory()) fs.linkSync(p, o);
  },
  (p, o) => fs.symlinkSync(o.slice(-3), p),
  (p, _, r) => {
    if (!fs.lstatSync(p).isSymbolicLink()) fs.chmodSync(p, 0o700 + r.below(64));
  },
  (p, _, r) => fs.lchownSync(p, r.below(5), r.below(5)),
  (p, _, r) => fs.lutimesSync(p, 1, 1000 + r.below(1000)),
  (p, _, r) => {
    if (fs.lstatSync(p).isFile()) fs.truncateSync(p, r.below(20000));
  },
];

function change(random: Random, root: string, count: number): void {
  for (let i = 0; i < count; i++) {
    const [op, path, other] = [random.of(OPS), randomPath(random, root), randomPath(random, root)];
    try {
      op(path, other, random);
    } catch (error) {
      if (!EXPECTED.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
}

const MOUNTS = [
  'redirect_dir=on,index=on,metacopy=on',
  'redirect_dir=on,index=on,metacopy=off',
  'redirect_dir=on,index=on,metacopy=on',
  'redirect_dir=off,index=on,metacopy=off',
];

/** Without times of directories and links, which a commit of paths may part. */
const essence = (tree: string): string =>
  tree
    .replaceAll(/ \d+\.\d+( |$)/gm, ' ')
    .replaceAll(/^links .*\n?/gm, '')
    .trimEnd();

function view(s: Scratch, mount: string): string {
  s.mount(mount);
  try {
    return s.tree('merged');
  } finally {
    s.umount();
  }
}

function commit(s: Scratch, selection: Selection): boolean {
  const set = s.set();
  const options = { ...set, ...selection, base: set.lowers[0]!, id: 'fuzz' };
  try {
    return runSync(applyCommit(runSync(planCommit(options)))).applied;
  } catch (error) {
    // The one refusal of a selection: see choose.ts.
    if (error instanceof LayerError && /name it too/.test(error.message)) return false;
    throw error;
  }
}

function round(s: Scratch, random: Random): void {
  const mount = random.of(MOUNTS);
  s.mount(mount);
  try {
    change(random, `${s.dir}/merged`, 5 + random.below(40));
  } finally {
    s.umount();
  }
  if (random.below(4) === 0) return discardRound(s, random, mount);
  const shown = view(s, mount);
  for (let i = random.below(3); i > 0; i--) {
    commit(s, { paths: [randomPath(random, '').slice(1)] });
    assert.equal(
      essence(view(s, mount)),
      essence(shown),
      'a commit of paths changed what is shown',
    );
  }
  const now = view(s, mount);
  commit(s, {});
  assert.equal(s.tree('base'), now, 'the base is not what was shown');
  assert.deepEqual(readdirSync(`${s.dir}/upper`), []);
  assert.equal(s.diff({ mtime: true }), '');
}

/** What was not named is as it was, and in the end the base is untouched. */
function discardRound(s: Scratch, random: Random, mount: string): void {
  const base = s.tree('base');
  const before = s.diff().split('\n');
  try {
    runSync(discard({ ...s.set(), paths: [randomPath(random, '').slice(1)] }));
  } catch (error) {
    if (!(error instanceof LayerError)) throw error;
  }
  for (const line of s.diff().split('\n')) {
    const [op, ...paths] = line.split('\t');
    if (op === '') continue;
    const path = paths.at(-1);
    // A rename may lose its origin's deletion and a link its group: then it is said in another way.
    const known = before.some(
      (other) => other.split('\t').at(-1) === path || other.split('\t').includes(path!),
    );
    assert.ok(known, `discard made a change: ${op} ${path}\n${before.join('\n')}`);
  }
  // Everything can still be looked at.
  view(s, mount);
  runSync(discard(s.set()));
  assert.equal(s.tree('base'), base);
  assert.equal(view(s, mount), base);
}

function run(seed: number): void {
  const random = new Random(seed);
  const s = new Scratch();
  try {
    change(random, `${s.dir}/base`, 60);
    sh('find . -exec touch -h -d @1000.25 {} +', `${s.dir}/base`);
    for (let i = 0; i < 3; i++) round(s, random);
  } catch (error) {
    throw new Error(`SEED=${seed}`, { cause: error });
  } finally {
    s.remove();
  }
}

test('random changes, committed in part and whole, or discarded', { skip }, () => {
  const one = process.env['SEED'];
  if (one !== undefined) return run(Number(one));
  const seeds = Number(process.env['PALIMPSEST_FUZZ_SEEDS'] ?? 6);
  for (let seed = 1; seed <= seeds; seed++) run(seed);
});
