/**
 * Unions of several branches, writable ones in the middle, and branches that try to lead out of
 * themselves. Kernel overlayfs has no such unions: what is wanted is written down here.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { O_CREAT, O_EXCL, O_RDWR } from '../src/abi/fcntl.ts';
import { compareTrees, readTree, type TreeEntry } from './support/tree.ts';
import { World, makeWorld, palimpsest, runOk, scratch, subjects, unable } from './support/world.ts';

const skip = unable() ?? (subjects().includes('palimpsest') ? false : 'palimpsest is not among the subjects');
const MIB = 1 << 20;

interface Branches {
  readonly world: World;
  /** Directories by name, and what was in them before. */
  readonly dirs: Record<string, string>;
  unchanged(...names: string[]): Promise<void>;
}

type Content = Record<string, string | null>;

/** `A=rw` and so on, topmost first; content by path, null for a directory. */
async function makeBranches(t: TestContext, modes: [string, 'rw' | 'ro', Content][]): Promise<Branches> {
  const world = makeWorld(t);
  const dirs: Record<string, string> = {};
  const before = new Map<string, TreeEntry[]>();
  for (const [name, , content] of modes) {
    const dir = path.join(world.dir, name);
    fs.mkdirSync(dir, { mode: 0o755 });
    dirs[name] = dir;
    for (const [file, text] of Object.entries(content)) {
      if (text === null) fs.mkdirSync(path.join(dir, file), { recursive: true, mode: 0o755 });
      else {
        fs.mkdirSync(path.dirname(path.join(dir, file)), { recursive: true, mode: 0o755 });
        fs.writeFileSync(path.join(dir, file), text);
      }
    }
    before.set(name, await readTree(world.caller, dir));
  }
  world.branches = modes.map(([name, mode]) => `${dirs[name]}=${mode}`);
  const unchanged = async (...names: string[]): Promise<void> => {
    for (const name of names) {
      const now = await readTree(world.caller, dirs[name]!);
      assert.deepEqual(compareTrees(before.get(name)!, now, { mtimes: true, directoryNlink: true }), [], `branch ${name}`);
    }
  };
  await world.mount('palimpsest');
  return { world, dirs, unchanged };
}

/** The same questions now and after a remount. */
async function nowAndLater(world: World, body: () => Promise<void>): Promise<void> {
  await body();
  await world.remount();
  await body();
}

test('copy-up goes to the nearest writable branch on the left', { skip }, async (t) => {
  const { world, dirs, unchanged } = await makeBranches(t, [
    ['A', 'rw', {}],
    ['B', 'ro', { 'in-b': 'b', 'both': 'b' }],
    ['C', 'rw', { 'in-c': 'c' }],
    ['D', 'ro', { 'in-d': 'd', 'both': 'd', 'deep/er/f': 'd' }],
  ]);
  const { caller: c, root } = world;
  for (const name of ['in-b', 'in-c', 'in-d', 'both', 'deep/er/f']) await c.do('writeFile', `${root}/${name}`, 'new');
  assert.equal(fs.readFileSync(`${dirs['A']}/in-b`, 'utf8'), 'new');
  assert.equal(fs.readFileSync(`${dirs['A']}/both`, 'utf8'), 'new');
  assert.equal(fs.readFileSync(`${dirs['C']}/in-c`, 'utf8'), 'new');
  assert.equal(fs.readFileSync(`${dirs['C']}/in-d`, 'utf8'), 'new');
  assert.equal(fs.readFileSync(`${dirs['C']}/deep/er/f`, 'utf8'), 'new');
  assert.deepEqual(['in-c', 'in-d', 'deep'].filter((n) => fs.existsSync(`${dirs['A']}/${n}`)), []);
  await nowAndLater(world, async () => {
    for (const name of ['in-b', 'in-c', 'in-d', 'both', 'deep/er/f']) {
      assert.equal(await c.do('readFile', `${root}/${name}`), 'new', name);
    }
  });
  await unchanged('B', 'D');
});

test('a name that is removed above a copy below stays away', { skip }, async (t) => {
  const { world, unchanged } = await makeBranches(t, [
    ['A', 'rw', {}],
    ['B', 'ro', { 'd/b': 'b' }],
    ['C', 'rw', { f: 'c', 'd/c': 'c', only: 'c' }],
    ['D', 'ro', { f: 'd', 'd/d': 'd' }],
  ]);
  const { caller: c, root } = world;
  assert.deepEqual(await c.do('names', `${root}/d`), ['b', 'c', 'd']);
  await c.do('unlink', `${root}/f`);
  await c.do('unlink', `${root}/only`);
  await c.do('removeTree', `${root}/d`);
  await nowAndLater(world, async () => {
    assert.deepEqual(await c.do('names', root), []);
    assert.equal(await c.code('lstat', `${root}/f`), 'ENOENT');
  });
  await c.do('mkdir', `${root}/d`);
  await c.do('writeFile', `${root}/f`, 'again');
  await nowAndLater(world, async () => {
    assert.deepEqual(await c.do('names', `${root}/d`), []);
    assert.equal(await c.do('readFile', `${root}/f`), 'again');
  });
  await unchanged('B', 'D');
});

test('the leftmost branch is read-only: new names go to the next writable one', { skip }, async (t) => {
  const { world, dirs, unchanged } = await makeBranches(t, [
    ['A', 'ro', { f: 'a', 'dir/x': 'x' }],
    ['B', 'rw', {}],
    ['C', 'ro', { g: 'c' }],
  ]);
  const { caller: c, root } = world;
  await c.do('writeFile', `${root}/new`, 'new');
  await c.do('writeFile', `${root}/dir/new`, 'new');
  await c.do('mkdir', `${root}/dir/sub`);
  await c.do('writeFile', `${root}/g`, 'changed');
  assert.equal(fs.readFileSync(`${dirs['B']}/dir/new`, 'utf8'), 'new');
  assert.equal(await c.code('open', `${root}/f`, O_RDWR | O_CREAT | O_EXCL), 'EEXIST');
  // Nothing can be put above the leftmost branch: what it has cannot change.
  assert.equal(await c.code('writeFile', `${root}/f`, 'no'), 'EROFS');
  assert.equal(await c.code('unlink', `${root}/f`), 'EROFS');
  assert.equal(await c.code('chmod', `${root}/f`, 0o600), 'EROFS');
  assert.equal(await c.code('rename', `${root}/f`, `${root}/moved`), 'EROFS');
  assert.equal(await c.code('rename', `${root}/new`, `${root}/f`), 'EROFS');
  await nowAndLater(world, async () => {
    assert.deepEqual(await c.do('names', root), ['dir', 'f', 'g', 'new']);
    assert.deepEqual(await c.do('names', `${root}/dir`), ['new', 'sub', 'x']);
    assert.equal(await c.do('readFile', `${root}/f`), 'a');
    assert.equal(await c.do('readFile', `${root}/g`), 'changed');
  });
  await c.do('unlink', `${root}/g`);
  await c.do('unlink', `${root}/new`);
  await nowAndLater(world, async () => assert.deepEqual(await c.do('names', root), ['dir', 'f']));
  await unchanged('A', 'C');
});

test('no branch is writable: all reads work, all changes are EROFS', { skip }, async (t) => {
  const { world, unchanged } = await makeBranches(t, [
    ['A', 'ro', { 'd/a': 'a' }],
    ['B', 'ro', { 'd/b': 'b', 'd/a': 'hidden' }],
  ]);
  const { caller: c, root } = world;
  assert.deepEqual(await c.do('names', `${root}/d`), ['a', 'b']);
  assert.equal(await c.do('readFile', `${root}/d/a`), 'a');
  for (const code of [
    await c.code('writeFile', `${root}/new`, ''),
    await c.code('writeFile', `${root}/d/a`, ''),
    await c.code('mkdir', `${root}/d/sub`),
    await c.code('unlink', `${root}/d/b`),
    await c.code('rename', `${root}/d`, `${root}/e`),
    await c.code('chmod', `${root}/d`, 0o700),
    await c.code('setxattr', `${root}/d/a`, 'user.x', 'y'),
  ]) {
    assert.equal(code, 'EROFS');
  }
  await unchanged('A', 'B');
});

test('rename between directories of different branches', { skip }, async (t) => {
  const { world, unchanged } = await makeBranches(t, [
    ['A', 'rw', { 'a/f': 'A' }],
    ['B', 'ro', { 'b/f': 'B', 'b/sub/g': 'B' }],
    ['C', 'rw', { 'c/f': 'C', 'b/sub/h': 'C' }],
    ['D', 'ro', { 'c/sub/i': 'D', 'd/j': 'D' }],
  ]);
  const { caller: c, root } = world;
  await c.do('rename', `${root}/b/sub`, `${root}/c/moved`);
  await c.do('rename', `${root}/d`, `${root}/a/d`);
  await c.do('rename', `${root}/c/f`, `${root}/a/f`);
  await c.do('rename', `${root}/c`, `${root}/e`);
  await nowAndLater(world, async () => {
    assert.deepEqual(await c.do('names', root), ['a', 'b', 'e']);
    assert.deepEqual(await c.do('names', `${root}/b`), ['f']);
    assert.deepEqual(await c.do('names', `${root}/e`), ['moved', 'sub']);
    assert.deepEqual(await c.do('names', `${root}/e/moved`), ['g', 'h']);
    assert.equal(await c.do('readFile', `${root}/e/moved/g`), 'B');
    assert.equal(await c.do('readFile', `${root}/e/sub/i`), 'D');
    assert.equal(await c.do('readFile', `${root}/a/f`), 'C');
    assert.equal(await c.do('readFile', `${root}/a/d/j`), 'D');
  });
  await unchanged('B', 'D');
});

test('a full branch: copy-up goes on to the next writable one on the left', { skip }, async (t) => {
  const small = scratch('tmpfs', '2m');
  const world = makeWorld(t);
  t.after(() => small.dispose());
  const [a, d] = ['A', 'D'].map((n) => path.join(world.dir, n));
  const cDir = path.join(small.dir, 'C');
  for (const dir of [a!, d!, cDir]) fs.mkdirSync(dir, { mode: 0o755 });
  fs.writeFileSync(`${d}/big`, 'big '.repeat(MIB));
  world.branches = [`${a}=rw`, `${cDir}=rw`, `${d}=ro`];
  await world.mount('palimpsest');
  const { caller: c, root } = world;
  const fd = await c.do('open', `${root}/big`, O_RDWR);
  await c.do('pwrite', fd, 'BIG', 2 * MIB);
  assert.equal(await c.code('fsync', fd), 'OK');
  await c.do('close', fd);
  await nowAndLater(world, async () => {
    const text = await c.do('readFile', `${root}/big`);
    assert.equal(text.length, 4 * MIB);
    assert.equal(text.slice(2 * MIB - 1, 2 * MIB + 4), ' BIG ');
  });
  assert.ok(fs.existsSync(`${a}/big`));
});

test('symlinks in a branch lead the daemon nowhere', { skip }, async (t) => {
  const world = makeWorld(t);
  const outside = path.join(world.dir, 'outside');
  fs.mkdirSync(path.join(outside, 'sub'), { recursive: true });
  fs.writeFileSync(path.join(outside, 'secret'), 'secret');
  const c = world.caller;
  for (const name of ['d', 'e', 'x']) {
    await c.do('mkdir', `${world.lower}/${name}`);
    await c.do('writeFile', `${world.lower}/${name}/f`, 'lower');
  }
  await c.do('symlink', outside, `${world.upper}/d`);
  await c.do('symlink', '../outside', `${world.upper}/e`);
  await c.do('symlink', `${outside}/secret`, `${world.upper}/file`);
  await world.mount('palimpsest');
  const { root } = world;
  const outsideBefore = await readTree(c, outside);
  assert.equal((await c.do('lstat', `${root}/d`)).mode & 0o170000, 0o120000);
  assert.equal((await c.do('lstat', `${root}/e`)).mode & 0o170000, 0o120000);
  assert.equal(await c.do('readlink', `${root}/e`), '../outside');
  await c.do('lchown', `${root}/file`, 1, 1);
  await c.do('rename', `${root}/d`, `${root}/d2`);
  await c.do('rename', `${root}/x`, `${root}/d`);
  assert.deepEqual(await c.do('names', `${root}/d`), ['f']);
  assert.deepEqual(compareTrees(outsideBefore, await readTree(c, outside), { mtimes: true }), []);
  // A directory of a branch turns into a link behind the mount: nothing is written at the other end.
  await c.do('mkdir', `${root}/fresh`);
  fs.rmdirSync(`${world.upper}/fresh`);
  fs.symlinkSync(outside, `${world.upper}/fresh`);
  await c.code('writeFile', `${root}/fresh/planted`, 'planted');
  // If the union shows a link by now, it is the client's kernel that follows it, as it may.
  if ((await c.code('readlink', `${root}/fresh`)) === 'OK') return;
  assert.deepEqual(compareTrees(outsideBefore, await readTree(c, outside), { mtimes: true }), []);
});

test('a redirect cannot lead out of its branch', { skip }, async (t) => {
  const world = makeWorld(t);
  const c = world.caller;
  await c.do('mkdir', `${world.dir}/outside`);
  await c.do('writeFile', `${world.dir}/outside/secret`, 'secret');
  await c.do('mkdir', `${world.lower}/in`);
  await c.do('symlink', '../../outside', `${world.lower}/in/out`);
  for (const [name, redirect] of Object.entries({
    one: '/../outside',
    two: '../outside',
    three: '/in/out',
    four: '/in/../../outside',
    five: '',
    six: '/',
  })) {
    await c.do('mkdir', `${world.upper}/${name}`);
    await c.do('setxattr', `${world.upper}/${name}`, 'trusted.overlay.redirect', redirect);
  }
  await world.mount('palimpsest');
  for (const name of ['one', 'two', 'three', 'four', 'five', 'six']) {
    assert.notEqual(await c.code('readFile', `${world.root}/${name}/secret`), 'OK', name);
    const names = await c.batch([['names', `${world.root}/${name}`]]);
    assert.ok('errno' in names[0]! || !(names[0].value as string[]).includes('secret'), name);
  }
});

test('branches that cannot be are refused, with a reason', { skip }, async (t) => {
  const world = makeWorld(t);
  const { lower, upper, work, mountpoint, dir } = world;
  fs.mkdirSync(`${lower}/inner`);
  fs.writeFileSync(`${dir}/file`, '');
  const refused = async (args: string[], reason: RegExp): Promise<void> => {
    const { status, stderr } = await palimpsest(['mount', ...args, mountpoint], { cwd: '/' });
    if (status === 0) await palimpsest(['umount', mountpoint]);
    assert.notEqual(status, 0, `mounted: ${args.join(' ')}`);
    assert.match(stderr, reason);
  };
  await refused(['--branch', `${upper}=rw`, '--branch', `${dir}/file=ro`], /file/);
  await refused(['--branch', `${upper}=rw`, '--branch', `${dir}/none=ro`], /none/);
  await refused(['-o', `lowerdir=${lower},upperdir=${lower}/inner,workdir=${work}`], /inner/);
  await refused(['-o', `lowerdir=${lower},upperdir=${upper},workdir=${upper}/work`], /work/);
  await refused(['--branch', `${upper}=rw`, '--branch', `${mountpoint}=ro`], /merged/);
  await world.mount('palimpsest');
  const other = path.join(dir, 'other');
  fs.mkdirSync(other);
  const again = await palimpsest(['mount', '-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`, other], { cwd: '/' });
  if (again.status === 0) await palimpsest(['umount', other]);
  assert.notEqual(again.status, 0, 'an upper branch in use by another mount');
  assert.match(again.stderr, /upper|in use/);
});

test('a lower file that changes while it is copied is not torn', { skip }, async (t) => {
  const world = makeWorld(t, { on: 'disk' });
  const c = world.caller;
  const blocks = 8192;
  fs.writeFileSync(`${world.lower}/f`, 'a'.repeat(4096 * blocks));
  await world.mount('palimpsest');
  // Rewrites the lower file, whole, again and again, while the union copies it up.
  const writer = runOk('sh', ['-c', `for l in b c d e; do head -c ${4096 * blocks} /dev/zero | tr '\\0' $l | dd of="$1" conv=notrunc bs=64k status=none; done`, 'sh', `${world.lower}/f`]);
  const code = await c.code('setxattr', `${world.root}/f`, 'user.x', 'y');
  const fd = await c.do('open', `${world.root}/f`, O_RDWR);
  const written = await c.code('pwrite', fd, '#', 0);
  const synced = await c.code('fsync', fd);
  await c.do('closeAll');
  await writer;
  t.diagnostic(`setxattr ${code}, write ${written}, fsync ${synced}`);
  await world.remount();
  const text = await c.do('readFile', `${world.root}/f`);
  assert.equal(text.length, 4096 * blocks);
  if (text[0] === '#') assert.match(text, /^#(a+|b+|c+|d+|e+)$/, 'a mix of versions was copied up');
});
