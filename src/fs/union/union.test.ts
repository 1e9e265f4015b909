/** The union in process, over real host directories. Mounted behaviour is tested in test/. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../abi/fcntl.ts';
import { bytesOf, textOf } from '../../lib/latin1.ts';
import { runSync } from '../../kernel/task.ts';
import type { Cred, Inode, Name } from '../../vfs/inode-operations.ts';
import { openHostFs } from '../host/host-fs.ts';
import type { UnionInode } from './inode.ts';
import { openUnion } from './union.ts';
import type { UnionFs, UnionOptions } from './union.ts';

const cred: Cred = { uid: 0, gid: 0, umask: 0o022, pid: 0 };
const skip = process.getuid?.() === 0 ? false : 'needs root: trusted xattrs and device nodes';

class World {
  readonly dir: string;
  union!: UnionFs;
  readonly spec: string;
  readonly options: UnionOptions;

  constructor(t: TestContext, spec = 'U=rw L=ro', options: Partial<UnionOptions> = {}) {
    this.dir = fs.mkdtempSync('/var/tmp/palimpsest-union-');
    this.spec = spec;
    this.options = { metacopy: true, volatile: true, ...options };
    for (const { name } of this.branches()) {
      fs.mkdirSync(path.join(this.dir, name));
      fs.mkdirSync(path.join(this.dir, `${name}.work`));
    }
    t.after(() => {
      if (this.union !== undefined) runSync(this.union.unmount());
      fs.rmSync(this.dir, { recursive: true, force: true });
    });
  }

  branches(): { name: string; mode: 'rw' | 'ro' }[] {
    return this.spec.split(' ').map((text) => {
      const [name, mode] = text.split('=') as [string, 'rw' | 'ro'];
      return { name, mode };
    });
  }

  host(...parts: string[]): string {
    return path.join(this.dir, ...parts);
  }

  mount(): this {
    const specs = this.branches().map(({ name, mode }) => {
      const hostFs = openHostFs({ path: this.host(name), readOnly: mode === 'ro' });
      const work = mode === 'rw' ? { work: hostFs.openRoot(this.host(`${name}.work`)) } : {};
      return { fs: hostFs, root: hostFs.root, mode, label: name, ...work };
    });
    this.union = runSync(openUnion(specs, this.options));
    return this;
  }

  remount(): this {
    runSync(this.union.unmount());
    return this.mount();
  }

  find(where: string): UnionInode | undefined {
    let inode: Inode | undefined = this.union.root;
    for (const name of where.split('/').filter((part) => part !== '' && part !== '.')) inode = runSync(inode!.lookup(name as Name));
    return inode as UnionInode | undefined;
  }

  get(where: string): UnionInode {
    const inode = this.find(where);
    assert.ok(inode !== undefined, `${where} is there`);
    return inode;
  }

  split(where: string): [UnionInode, Name] {
    return [this.get(path.dirname(where)), path.basename(where) as Name];
  }

  write(where: string, text: string): void {
    const [dir, name] = this.split(where);
    const inode = runSync(dir.lookup(name)) ?? runSync(dir.create(name, 0o644, cred));
    runSync(inode.setattr({ size: 0 }));
    runSync(inode.write({ bytes: bytesOf(text), offset: 0, length: text.length }, 0));
  }

  read(where: string): string {
    const bytes = new Uint8Array(4096);
    const length = runSync(this.get(where).read({ bytes, offset: 0, length: bytes.length }, 0));
    return textOf(bytes.subarray(0, length));
  }

  list(where: string): string[] {
    return runSync(this.get(where).readdir()).map((entry) => entry.name as string).sort();
  }

  mkdir(where: string): void {
    const [dir, name] = this.split(where);
    runSync(dir.mkdir(name, 0o755, cred));
  }

  unlink(where: string): void {
    const [dir, name] = this.split(where);
    runSync(dir.unlink(name, this.get(where)));
  }

  rmdir(where: string): void {
    const [dir, name] = this.split(where);
    runSync(dir.rmdir(name, this.get(where)));
  }

  rename(from: string, to: string, flags = 0): void {
    const [dir, name] = this.split(from);
    const [newDir, newName] = this.split(to);
    const source = this.get(from);
    runSync(dir.rename(name, source, newDir, newName, runSync(newDir.lookup(newName)), flags));
  }

  stat(where: string) {
    return runSync(this.get(where).getattr());
  }
}

const errno = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

test('a lower file is read, then written on the upper branch only', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/f'), 'below');
  world.mount();
  const { ino } = world.stat('f');
  assert.equal(world.read('f'), 'below');
  world.write('f', 'above');
  assert.equal(world.read('f'), 'above');
  assert.equal(world.stat('f').ino, ino);
  assert.equal(fs.readFileSync(world.host('L/f'), 'utf8'), 'below');
  assert.equal(fs.readFileSync(world.host('U/f'), 'utf8'), 'above');
  world.remount();
  assert.equal(world.stat('f').ino, ino);
  assert.deepEqual(fs.readdirSync(world.host('U.work/work')), []);
});

test('chmod copies metadata up, and the first write the data', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/f'), 'below');
  world.mount();
  runSync(world.get('f').setattr({ mode: 0o600 }));
  assert.equal(fs.statSync(world.host('U/f')).blocks * 512 < 4096 * 2, true);
  assert.equal(world.read('f'), 'below');
  world.remount();
  assert.equal(world.read('f'), 'below');
  assert.equal(world.stat('f').mode & 0o777, 0o600);
  runSync(world.get('f').write({ bytes: bytesOf('B'), offset: 0, length: 1 }, 0));
  assert.equal(world.read('f'), 'Below');
  assert.equal(fs.readFileSync(world.host('U/f'), 'utf8'), 'Below');
  world.remount();
  assert.equal(world.read('f'), 'Below');
});

test('a metacopy whose lower has gone is an error, not zeros', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/f'), 'below');
  world.mount();
  runSync(world.get('f').setattr({ mode: 0o600 }));
  fs.unlinkSync(world.host('L/f'));
  world.remount();
  assert.equal(world.stat('f').mode & 0o777, 0o600);
  assert.throws(() => world.read('f'), errno('EIO'));
  const bytes = bytesOf('x');
  assert.throws(() => runSync(world.get('f').write({ bytes, offset: 0, length: 1 }, 0)), errno('EIO'));
  world.unlink('f');
  assert.deepEqual(world.list('/'), []);
});

test('what is deleted stays deleted, and what is made over it starts empty', { skip }, (t) => {
  const world = new World(t);
  fs.mkdirSync(world.host('L/d/sub'), { recursive: true });
  fs.writeFileSync(world.host('L/d/f'), 'x');
  fs.writeFileSync(world.host('L/g'), 'x');
  world.mount();
  assert.throws(() => world.rmdir('d'), errno('ENOTEMPTY'));
  world.unlink('d/f');
  world.rmdir('d/sub');
  assert.deepEqual(world.list('d'), []);
  world.rmdir('d');
  world.unlink('g');
  assert.deepEqual(world.list('/'), []);
  world.remount();
  assert.deepEqual(world.list('/'), []);
  world.mkdir('d');
  world.write('g', 'new');
  assert.deepEqual(world.list('d'), []);
  world.remount();
  assert.deepEqual(world.list('d'), []);
  assert.equal(world.read('g'), 'new');
});

test('a merged directory is renamed with all that is in it', { skip }, (t) => {
  const world = new World(t);
  fs.mkdirSync(world.host('L/d/deep'), { recursive: true });
  fs.writeFileSync(world.host('L/d/a'), 'a');
  fs.writeFileSync(world.host('L/d/deep/b'), 'b');
  fs.mkdirSync(world.host('L/other'));
  world.mount();
  world.write('d/new', 'new');
  const { ino } = world.stat('d');
  world.rename('d', 'e');
  const check = (where: string): void => {
    assert.deepEqual(world.list(where), ['a', 'deep', 'new']);
    assert.equal(world.read(`${where}/deep/b`), 'b');
    assert.equal(world.stat(where).ino, ino);
  };
  check('e');
  assert.equal(world.find('d'), undefined);
  world.remount();
  check('e');
  world.rename('e', 'other/moved');
  check('other/moved');
  world.remount();
  check('other/moved');
  assert.deepEqual(world.list('/'), ['other']);
  world.rename('other/moved/deep', 'deep');
  world.remount();
  assert.equal(world.read('deep/b'), 'b');
  assert.deepEqual(world.list('other/moved'), ['a', 'new']);
  world.mkdir('d');
  assert.deepEqual(world.list('d'), []);
  world.remount();
  assert.deepEqual(world.list('d'), []);
});

test('a directory replaces an empty one that shows through, and nothing shows through it', { skip }, (t) => {
  const world = new World(t);
  fs.mkdirSync(world.host('L/old'));
  fs.writeFileSync(world.host('L/old/x'), 'x');
  world.mount();
  world.unlink('old/x');
  world.mkdir('fresh');
  world.write('fresh/y', 'y');
  world.rename('fresh', 'old');
  assert.deepEqual(world.list('old'), ['y']);
  world.remount();
  assert.deepEqual(world.list('/'), ['old']);
  assert.deepEqual(world.list('old'), ['y']);
});

test('rename flags', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/a'), 'a');
  fs.mkdirSync(world.host('L/d'));
  fs.writeFileSync(world.host('L/d/in'), 'in');
  world.mount();
  assert.throws(() => world.rename('a', 'd', RENAME_NOREPLACE), errno('EEXIST'));
  assert.throws(() => world.rename('a', 'd'), errno('EISDIR'));
  assert.throws(() => world.rename('d', 'a'), errno('ENOTDIR'));
  assert.throws(() => world.rename('d', 'd/x'), errno('EINVAL'));
  world.rename('a', 'd', RENAME_EXCHANGE);
  assert.equal(world.read('d'), 'a');
  assert.equal(world.read('a/in'), 'in');
  world.remount();
  assert.equal(world.read('d'), 'a');
  assert.equal(world.read('a/in'), 'in');
});

test('names of one lower file stay names of one file', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/f'), 'hi');
  fs.linkSync(world.host('L/f'), world.host('L/g'));
  world.mount();
  const { ino } = world.stat('f');
  assert.equal(world.stat('f').nlink, 2);
  world.write('f', 'ZZ');
  assert.equal(world.read('g'), 'ZZ');
  assert.equal(world.stat('g').ino, ino);
  world.remount();
  assert.equal(world.read('g'), 'ZZ');
  assert.equal(world.read('f'), 'ZZ');
  assert.equal(world.stat('g').ino, ino);
  assert.equal(world.stat('f').nlink, 2);
  world.unlink('f');
  assert.equal(world.stat('g').nlink, 1);
  world.remount();
  assert.equal(world.read('g'), 'ZZ');
  assert.equal(world.stat('g').nlink, 1);
  const [dir] = world.split('h');
  runSync(dir.link('h' as Name, world.get('g')));
  assert.equal(world.stat('h').nlink, 2);
  assert.equal(world.stat('h').ino, ino);
  world.remount();
  assert.equal(world.stat('h').ino, world.stat('g').ino);
  world.unlink('g');
  world.unlink('h');
  assert.deepEqual(fs.readdirSync(world.host('U.work/index')), []);
});

test('a name of an indexed file that is only beneath can be renamed, exchanged and replaced', { skip }, (t) => {
  const world = new World(t);
  for (const name of ['f', 'g', 'h', 'i']) {
    if (name === 'f') fs.writeFileSync(world.host('L/f'), 'hi');
    else fs.linkSync(world.host('L/f'), world.host('L', name));
  }
  fs.writeFileSync(world.host('L/other'), 'other');
  world.mount();
  world.write('f', 'ZZ');
  world.remount();
  world.rename('g', 'g2');
  world.rename('h', 'other', RENAME_EXCHANGE);
  world.rename('h', 'i');
  assert.deepEqual(world.list('/'), ['f', 'g2', 'i', 'other']);
  assert.equal(world.stat('f').nlink, 3);
  world.remount();
  assert.equal(world.stat('f').nlink, 3);
  assert.deepEqual(['f', 'g2', 'other'].map((name) => world.read(name)), ['ZZ', 'ZZ', 'ZZ']);
  assert.equal(world.read('i'), 'other');
});

test('an unlinked file lives on for who holds it, also a lower one that is then written', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/low'), 'low');
  world.mount();
  world.write('up', 'up');
  for (const name of ['low', 'up']) {
    const held = world.get(name);
    world.unlink(name);
    assert.equal(runSync(held.getattr()).nlink, 0);
    runSync(held.write({ bytes: bytesOf('!'), offset: 0, length: 1 }, 0));
    const bytes = new Uint8Array(10);
    const length = runSync(held.read({ bytes, offset: 0, length: 10 }, 0));
    assert.equal(textOf(bytes.subarray(0, length)), `!${name.slice(1)}`);
    assert.equal(world.find(name), undefined);
    held.forget();
  }
  assert.equal(fs.readFileSync(world.host('L/low'), 'utf8'), 'low');
  assert.deepEqual(fs.readdirSync(world.host('U.work/work')), []);
});

test('several writable branches: copy-up to the nearest on the left, deletion covers what is beneath', { skip }, (t) => {
  const world = new World(t, 'A=ro B=rw C=ro D=rw');
  fs.writeFileSync(world.host('C/c'), 'c');
  fs.writeFileSync(world.host('D/d'), 'd');
  fs.writeFileSync(world.host('A/a'), 'a');
  fs.writeFileSync(world.host('D/a'), 'hidden');
  world.mount();
  world.write('c', 'c2');
  assert.equal(fs.readFileSync(world.host('B/c'), 'utf8'), 'c2');
  world.write('d', 'd2');
  assert.equal(fs.readFileSync(world.host('D/d'), 'utf8'), 'd2');
  assert.equal(fs.existsSync(world.host('B/d')), false);
  world.write('n', 'n');
  assert.equal(fs.existsSync(world.host('B/n')), true);
  assert.throws(() => world.write('a', 'x'), errno('EROFS'));
  world.rename('d', 'c');
  assert.equal(world.read('c'), 'd2');
  world.remount();
  assert.equal(world.read('c'), 'd2');
  assert.deepEqual(world.list('/'), ['a', 'c', 'n']);
});

test('aufs and OCI whiteouts on a read-only branch are honoured and not shown', { skip }, (t) => {
  const world = new World(t, 'U=rw M=ro L=ro');
  fs.mkdirSync(world.host('L/d'));
  fs.mkdirSync(world.host('M/d'));
  for (const name of ['gone', 'kept']) fs.writeFileSync(world.host('L', name), name);
  fs.writeFileSync(world.host('L/d/old'), '');
  fs.writeFileSync(world.host('M/.wh.gone'), '');
  fs.writeFileSync(world.host('M/d/.wh..wh..opq'), '');
  fs.writeFileSync(world.host('M/d/new'), '');
  world.mount();
  assert.deepEqual(world.list('/'), ['d', 'kept']);
  assert.equal(world.find('gone'), undefined);
  assert.deepEqual(world.list('d'), ['new']);
  assert.equal(world.find('d/old'), undefined);
});

test('holes, times, owner and xattrs survive copy-up', { skip }, (t) => {
  const world = new World(t);
  const file = world.host('L/sparse');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, 64 << 20);
  fs.chownSync(file, 12, 34);
  fs.chmodSync(file, 0o4711);
  fs.utimesSync(file, 1000.5, 2000.25);
  world.mount();
  const lower = world.get('sparse');
  runSync(lower.setxattr('user.x', bytesOf('y'), 0));
  const before = runSync(lower.getattr());
  assert.deepEqual([before.uid, before.gid, before.mode & 0o7777, before.mtimeSec], [12, 34, 0o4711, 2000]);
  runSync(lower.write({ bytes: bytesOf('1'), offset: 0, length: 1 }, 32 << 20));
  const stat = fs.statSync(world.host('U/sparse'));
  assert.equal(stat.size, 64 << 20);
  assert.ok(stat.blocks * 512 < 1 << 20, `${stat.blocks} blocks`);
  assert.equal(textOf(runSync(world.get('sparse').getxattr('user.x'))!), 'y');
  assert.deepEqual(runSync(world.get('sparse').listxattr()), ['user.x']);
});

test('a default ACL around the work directory is not handed down to copies', { skip }, (t) => {
  const world = new World(t);
  fs.writeFileSync(world.host('L/data'), 'data', { mode: 0o666 });
  fs.writeFileSync(world.host('L/mode'), 'mode', { mode: 0o666 });
  fs.chmodSync(world.host('L/data'), 0o664);
  fs.chmodSync(world.host('L/mode'), 0o4664);
  // user::rw-, user:8:rwx, group::r--, mask::rwx, other::---
  const entries = [[1, 6, -1], [2, 7, 8], [4, 4, -1], [16, 7, -1], [32, 0, -1]];
  const acl = Buffer.alloc(4 + 8 * entries.length);
  acl.writeUInt32LE(2, 0);
  for (const [i, [tag, perm, id]] of entries.entries()) {
    acl.writeUInt16LE(tag!, 4 + 8 * i);
    acl.writeUInt16LE(perm!, 6 + 8 * i);
    acl.writeInt32LE(id!, 8 + 8 * i);
  }
  const around = openHostFs({ path: world.host('U.work'), readOnly: false });
  runSync(around.root.setxattr('system.posix_acl_default', acl, 0));
  runSync(around.unmount());
  world.mount();
  runSync(world.get('data').write({ bytes: bytesOf('D'), offset: 0, length: 1 }, 0));
  runSync(world.get('mode').setattr({ mtime: { sec: 1, nsec: 0 } }));
  for (const [name, mode] of [['data', 0o664], ['mode', 0o4664]] as const) {
    assert.equal(fs.statSync(world.host('U', name)).mode & 0o7777, mode, name);
    assert.deepEqual(runSync(world.get(name).listxattr()), [], name);
  }
});

test('holes are copied as holes wherever they are, and a file without any whole', { skip }, (t) => {
  const world = new World(t);
  const block = Buffer.alloc(65536, 'x');
  const layouts = { none: [0, 1, 2], begin: [2], middle: [0, 2], end: [0] };
  for (const [name, blocks] of Object.entries(layouts)) {
    const fd = fs.openSync(world.host('L', name), 'w');
    for (const at of blocks) fs.writeSync(fd, block, 0, block.length, at * block.length);
    fs.ftruncateSync(fd, 3 * block.length);
    fs.fsyncSync(fd); // Blocks are counted when they are allocated.
    fs.closeSync(fd);
  }
  world.mount();
  for (const [name, blocks] of Object.entries(layouts)) {
    runSync(world.get(name).write({ bytes: bytesOf('x'), offset: 0, length: 1 }, blocks[0]! * block.length));
    const copy = fs.readFileSync(world.host('U', name));
    assert.ok(copy.equals(fs.readFileSync(world.host('L', name))), name);
    assert.ok(fs.statSync(world.host('U', name)).blocks * 512 < (blocks.length + 1) * block.length, name);
  }
});

test('nobody can forge a whiteout or an overlay xattr from above', { skip }, (t) => {
  const world = new World(t);
  fs.mkdirSync(world.host('L/d'));
  fs.writeFileSync(world.host('L/d/f'), 'f');
  world.mount();
  assert.throws(() => runSync(world.union.root.mknod('w' as Name, 0o020000, 0, 0, cred)), errno('EPERM'));
  runSync(world.get('d').setxattr('trusted.overlay.opaque', bytesOf('y'), 0));
  world.remount();
  assert.deepEqual(world.list('d'), ['f']);
  assert.equal(textOf(runSync(world.get('d').getxattr('trusted.overlay.opaque'))!), 'y');
});
