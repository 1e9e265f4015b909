/** Uppers that our own union made: committed, the base is what the union showed; drift is found by what it recorded. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { S_IFREG, isDir } from '../abi/mode.ts';
import { openHostFs } from '../fs/host/host-fs.ts';
import { openUnion } from '../fs/union/union.ts';
import { errnoOf } from '../kernel/error.ts';
import { runSync } from '../kernel/task.ts';
import type { Task } from '../kernel/task.ts';
import { bytesOf } from '../lib/latin1.ts';
import type { Cred, Inode } from '../vfs/inode-operations.ts';
import { applyCommit, planCommit } from './commit.ts';
import { placeOf } from './steps.ts';
import { emptyDir } from './staging.ts';
import { Scratch, sh, treeOf } from './testing.ts';
import type { CommitOptions, CommitResult } from './types.ts';

const skip = process.getuid!() === 0 ? false : 'needs root: trusted xattrs and device nodes';
const CRED: Cred = { uid: 0, gid: 0, umask: 0o022, pid: 0 };

/** Runs `change` on the union over the scratch's base; gives what it showed in the end. */
function throughUnion(s: Scratch, change: (root: Inode) => void, metacopy = true): string {
  const upper = openHostFs({ path: `${s.dir}/upper`, readOnly: false });
  const base = openHostFs({ path: `${s.dir}/base`, readOnly: true });
  const specs = [
    {
      fs: upper,
      root: upper.root,
      mode: 'rw',
      label: 'upper',
      work: upper.openRoot(`${s.dir}/work`),
    },
    { fs: base, root: base.root, mode: 'ro', label: 'base' },
  ] as const;
  const union = runSync(openUnion(specs, { metacopy, volatile: true }));
  try {
    change(union.root);
    return treeOf(union.root);
  } finally {
    runSync(union.unmount());
  }
}

const commit = (s: Scratch, more: Partial<CommitOptions> = {}): CommitResult => {
  const set = s.set();
  return runSync(
    applyCommit(runSync(planCommit({ ...set, base: set.lowers[0]!, id: 'test', ...more }))),
  );
};

type Op = (root: Inode, path: string, other: string) => Task<void>;

const writeText: (text: string) => Op = (text) =>
  function* (root, path) {
    const place = yield* placeOf(root, path);
    if (place === undefined) return;
    const inode = place.inode ?? (yield* place.dir.create(place.name, 0o644, CRED));
    if (inode.type !== S_IFREG) return;
    const bytes = bytesOf(text);
    const { size } = yield* inode.getattr();
    yield* inode.write({ bytes, offset: 0, length: bytes.length }, size);
  };

const mkdir: Op = function* (root, path) {
  const place = yield* placeOf(root, path);
  if (place !== undefined && place.inode === undefined)
    yield* place.dir.mkdir(place.name, 0o755, CRED);
};

const remove: Op = function* (root, path) {
  const place = yield* placeOf(root, path);
  if (place?.inode === undefined) return;
  if (isDir(place.inode.type)) {
    yield* emptyDir(place.inode, undefined);
    yield* place.dir.rmdir(place.name, place.inode);
  } else yield* place.dir.unlink(place.name, place.inode);
};

const rename: Op = function* (root, path, other) {
  const from = yield* placeOf(root, path);
  const to = yield* placeOf(root, other);
  // Into its own subtree, or over one of its own parents: the kernel refuses before a filesystem is asked.
  if (from?.inode === undefined || to === undefined || `${other}/`.startsWith(`${path}/`)) return;
  if (`${path}/`.startsWith(`${other}/`)) return;
  if (to.inode !== undefined && isDir(to.inode.type) !== isDir(from.inode.type)) return;
  yield* from.dir.rename(from.name, from.inode, to.dir, to.name, to.inode, 0);
};

const link: Op = function* (root, path, other) {
  const from = yield* placeOf(root, path);
  const to = yield* placeOf(root, other);
  if (
    from?.inode === undefined ||
    to === undefined ||
    to.inode !== undefined ||
    isDir(from.inode.type)
  )
    return;
  yield* to.dir.link(to.name, from.inode);
};

const chmod: (mode: number) => Op = (mode) =>
  function* (root, path) {
    const inode = (yield* placeOf(root, path))?.inode;
    if (inode !== undefined && (isDir(inode.type) || inode.type === S_IFREG))
      yield* inode.setattr({ mode });
  };

const symlink: Op = function* (root, path, other) {
  const place = yield* placeOf(root, path);
  if (place !== undefined && place.inode === undefined)
    yield* place.dir.symlink(place.name, other, CRED);
};

const BASE = `
  mkdir -p dir/sub gone; echo one > a; echo two > b; echo c > dir/c; echo d > dir/sub/d; echo 1 > gone/1; echo h > h1; ln h1 h2
  find . -exec touch -h -d @1000.25 {} +
`;

function doAll(root: Inode, ops: [Op, string, string?][]): void {
  for (const [op, path, other] of ops) runSync(op(root, path, other ?? ''));
}

function world(base: string, body: (s: Scratch) => void): void {
  const s = new Scratch();
  try {
    s.base(base);
    body(s);
  } finally {
    s.remove();
  }
}

test('what our union shows is what its commit makes', { skip }, () => {
  world(BASE, (s) => {
    const shown = throughUnion(s, (root) =>
      doAll(root, [
        [writeText('x'), 'a'],
        [remove, 'b'],
        [remove, 'gone'],
        [mkdir, 'gone'],
        [writeText('n'), 'gone/n'],
        [rename, 'dir', 'moved'],
        [writeText('y'), 'moved/c'],
        [rename, 'moved/sub', 'sub'],
        [chmod(0o600), 'h1'],
        [link, 'a', 'a2'],
        [symlink, 'l', 'a'],
      ]),
    );
    assert.equal(
      s.diff(),
      [
        'M\ta',
        'A\ta2',
        'D\tb',
        'D\tgone/1',
        'A\tgone/n',
        'X\th1',
        'X\th2',
        'A\tl',
        'R\tdir/\tmoved/',
        'M\tmoved/c',
        'R\tdir/sub/\tsub/',
        '',
      ].join('\n'),
    );
    assert.equal(commit(s).applied, true);
    assert.equal(s.tree('base'), shown);
    assert.deepEqual(readdirSync(`${s.dir}/upper`), []);
    assert.equal(s.diff({ mtime: true }), '');
  });
});

test('drift is found by what the union recorded at copy-up', { skip }, () => {
  world(BASE, (s) => {
    throughUnion(s, (root) =>
      doAll(root, [
        [writeText('x'), 'a'],
        [writeText('x'), 'b'],
        [chmod(0o700), 'dir'],
        [writeText('x'), 'dir/c'],
        [rename, 'h1', 'h3'],
      ]),
    );
    // Made long ago, by this: what is not recorded would all be drift.
    const baseline = { createdSec: 1, createdNsec: 0 };
    const conflicts = (): string[] =>
      commit(s, { baseline, paths: ['a', 'b', 'dir'] }).conflicts.map((c) => `${c.kind} ${c.path}`);
    sh('echo y >> b; rm dir/c; echo new > dir/other', `${s.dir}/base`);
    assert.deepEqual(conflicts(), ['changed b', 'deleted dir/c']);
  });
});

class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return (this.#state >>> 8) % limit;
  }
}

function randomChange(random: Random, root: Inode): void {
  const path = (): string =>
    Array.from({ length: 1 + random.below(3) }, () => 'abcd'[random.below(4)]).join('/');
  const ops = [
    writeText('some text\n'),
    writeText('more\n'),
    mkdir,
    mkdir,
    remove,
    rename,
    rename,
    rename,
    link,
    chmod(0o700 + random.below(64)),
    symlink,
  ];
  for (let i = 5 + random.below(30); i > 0; i--) {
    try {
      runSync(ops[random.below(ops.length)]!(root, path(), path()));
    } catch (error) {
      // A directory in the way, or not empty: what the union answers is not in question here.
      if (errnoOf(error) === undefined) throw error;
    }
  }
}

function fuzz(seed: number): void {
  const random = new Random(seed);
  world(':', (s) => {
    randomChange(random, s.open('base'));
    sh('find . -exec touch -h -d @1000.25 {} +', `${s.dir}/base`);
    for (let i = 0; i < 3; i++) {
      const shown = throughUnion(s, (root) => randomChange(random, root), random.below(2) === 0);
      assert.equal(
        throughUnion(s, () => {}),
        shown,
        'the union shows another tree when opened again',
      );
      assert.deepEqual(commit(s).conflicts, []);
      assert.equal(s.tree('base'), shown, 'the base is not what was shown');
      assert.deepEqual(readdirSync(`${s.dir}/upper`), []);
    }
  });
}

test('random changes through our union', { skip }, () => {
  const one = process.env['SEED'];
  if (one !== undefined) return fuzz(Number(one));
  for (let seed = 1; seed <= Number(process.env['PALIMPSEST_FUZZ_SEEDS'] ?? 10); seed++) {
    try {
      fuzz(seed);
    } catch (error) {
      throw new Error(`SEED=${seed}`, { cause: error });
    }
  }
});
