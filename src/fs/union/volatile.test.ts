/** Volatile unions: what is marked, what is refused, and what a sync says. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { Errno } from '../../abi/errno.ts';
import { errnoOf } from '../../kernel/error.ts';
import { runSync, taskOf } from '../../kernel/task.ts';
import { bytesOf } from '../../lib/latin1.ts';
import type { Inode, Name } from '../../vfs/inode-operations.ts';
import { openHostFs } from '../host/host-fs.ts';
import { openUnion } from './union.ts';
import type { UnionFs } from './union.ts';
import { markVolatile } from './volatile.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: trusted xattrs and device nodes';
const MARK = 'work/incompat/volatile';

class World {
  readonly dir = fs.mkdtempSync('/var/tmp/palimpsest-volatile-');
  readonly work = path.join(this.dir, 'work');

  constructor(t: TestContext) {
    for (const name of ['upper', 'work', 'lower']) fs.mkdirSync(path.join(this.dir, name));
    fs.writeFileSync(path.join(this.dir, 'lower/f'), 'lower');
    t.after(() => fs.rmSync(this.dir, { recursive: true, force: true }));
  }

  open(volatile: boolean): UnionFs {
    const upper = openHostFs({ path: path.join(this.dir, 'upper'), readOnly: false, volatile });
    const lower = openHostFs({ path: path.join(this.dir, 'lower'), readOnly: true });
    const work = upper.openRoot(this.work);
    const union = runSync(openUnion([
      { fs: upper, root: upper.root, mode: 'rw', label: 'UPPER', work, workLabel: this.work },
      { fs: lower, root: lower.root, mode: 'ro', label: 'lower' },
    ], { metacopy: true, volatile }));
    if (volatile) runSync(markVolatile(union));
    return union;
  }
}

const write = (union: UnionFs, text: string): Inode => {
  const inode = runSync(union.root.lookup('f' as Name))!;
  runSync(inode.write({ bytes: bytesOf(text), offset: 0, length: text.length }, 0));
  return inode;
};

test('a branch that was volatile is refused until the mark is removed, however it was left', { skip }, (t) => {
  const world = new World(t);
  const union = world.open(true);
  assert.ok(fs.existsSync(path.join(world.work, MARK, 'dirty')), 'where the kernel puts it');
  write(union, 'UNION');
  runSync(union.unmount());
  for (const volatile of [false, true]) {
    assert.throws(() => world.open(volatile), (error: Error) => {
      assert.equal(errnoOf(error), Errno.EINVAL);
      assert.match(error.message, /UPPER was mounted volatile/);
      assert.ok(error.message.includes(`remove ${world.work}/${MARK} `), error.message);
      return true;
    });
  }
  fs.rmSync(path.join(world.work, MARK), { recursive: true });
  const again = world.open(false);
  assert.equal(fs.readFileSync(path.join(world.dir, 'upper/f'), 'latin1'), 'UNION');
  runSync(again.unmount());
  runSync(world.open(false).unmount());
});

test('a feature of overlayfs that is not known is refused too, and stays', { skip }, (t) => {
  const world = new World(t);
  const feature = path.join(world.work, 'work/incompat/future');
  fs.mkdirSync(feature, { recursive: true });
  assert.throws(() => world.open(false), /EINVAL: branch UPPER .* not known here: .*incompat\/future$/);
  assert.ok(fs.existsSync(feature));
});

test('nothing is synced, and after a failure to write back no sync succeeds any more', { skip }, (t) => {
  const world = new World(t);
  const union = world.open(true);
  const file = write(union, 'x') as Inode & { real: Inode };
  const { fs: upper } = file.real;
  let failed = false;
  Object.assign(file.real, {
    fsync: () => assert.fail('a volatile file was synced'),
    writebackFailed: () => taskOf(failed),
  });
  Object.assign(upper, { syncfs: () => assert.fail('a volatile branch was synced') });
  runSync(file.fsync(false));
  runSync(union.root.fsync(false));
  runSync(union.syncfs());
  failed = true;
  const eio = (error: unknown): boolean => errnoOf(error) === Errno.EIO;
  assert.throws(() => runSync(file.fsync(true)), eio);
  failed = false;
  assert.throws(() => runSync(file.fsync(true)), eio, 'it is not forgotten');
  assert.throws(() => runSync(union.root.fsync(false)), eio, 'nor for others');
  assert.throws(() => runSync(union.syncfs()), eio);
  runSync(union.unmount());
});

test('a file of a host says that nothing has failed', { skip }, (t) => {
  const world = new World(t);
  const union = world.open(true);
  const file = write(union, 'x') as Inode & { real: Inode };
  assert.equal(runSync(file.real.writebackFailed!()), false);
  runSync(union.unmount());
});
