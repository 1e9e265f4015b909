/** HostFs against a real directory: the contract, and what only a host can do to it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Errno } from '../../abi/errno.ts';
import {
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  SEEK_DATA,
  SEEK_HOLE,
  XATTR_CREATE,
  XATTR_REPLACE,
} from '../../abi/fcntl.ts';
import { S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../abi/mode.ts';
import { errnoOf } from '../../kernel/error.ts';
import { runAsync, runSync, type Task } from '../../kernel/task.ts';
import type { Cred, Inode, Name } from '../../vfs/inode-operations.ts';
import type { HostFs } from './host-fs.ts';
import { openHostFs } from './host-fs.ts';
import type { HostInode } from './host-inode.ts';
import { HostProcess } from './host-process.ts';

const ROOT: Cred = { uid: 0, gid: 0, umask: 0o022, pid: 1 };
const USER: Cred = { uid: 1234, gid: 2345, umask: 0o027, pid: 1 };
const isRoot = process.geteuid!() === 0;
const needsRoot = isRoot ? false : 'only root may';

const n = (name: string): Name => name as Name;
const bytesOf = (name: string): Buffer => Buffer.from(name, 'latin1');

let base = '';
let host: HostFs;
let root: HostInode;

/** A path below the test directory, for node:fs. */
const at = (...names: string[]): string => path.join(base, ...names);

function throwsErrno(errno: number, task: () => Task<unknown>): void {
  assert.throws(
    () => runSync(task()),
    (error) => {
      assert.equal(errnoOf(error), errno, String(error));
      return true;
    },
  );
}

function find(dir: Inode, name: string): HostInode {
  const inode = runSync(dir.lookup(n(name)));
  assert(inode !== undefined, `${name} is not there`);
  return inode as HostInode;
}

function readAll(inode: Inode, length = 1 << 16): string {
  const bytes = new Uint8Array(length);
  const count = runSync(inode.read({ bytes, offset: 0, length }, 0));
  return Buffer.from(bytes.subarray(0, count)).toString('latin1');
}

function writeAll(inode: Inode, text: string, position = 0): void {
  const bytes = new Uint8Array(Buffer.from(text, 'latin1'));
  const buffer = { bytes, offset: 0, length: bytes.length };
  assert.equal(runSync(inode.write(buffer, position)), bytes.length);
}

const openDescriptors = (): number => fs.readdirSync('/proc/self/fd').length;

before(() => {
  base = fs.mkdtempSync(path.join(os.tmpdir(), 'hostfs-'));
  host = openHostFs({ path: base, readOnly: false });
  root = host.root;
});

after(() => {
  runSync(host.unmount());
  fs.rmSync(base, { recursive: true, force: true });
});

describe('names', () => {
  it('are bytes, in every call', () => {
    const name = 'caf\xe9\xff\x80\x01 \n';
    const inode = runSync(root.create(n(name), 0o644, ROOT));
    writeAll(inode, 'x');
    const raw = Buffer.concat([bytesOf(base + '/'), bytesOf(name)]);
    assert.equal(fs.statSync(raw).size, 1);
    assert(runSync(root.readdir()).some((entry) => entry.name === name));
    assert.equal(readAll(find(root, name)), 'x');
    runSync(root.unlink(n(name), inode));
    assert.equal(runSync(root.lookup(n(name))), undefined);
    inode.forget();
  });

  it('of 255 bytes work, of 256 are ENAMETOOLONG before anything else', () => {
    const long = 'n'.repeat(255);
    const inode = runSync(root.create(n(long), 0o644, ROOT));
    runSync(root.unlink(n(long), inode));
    inode.forget();
    const file = runSync(root.create(n('plain'), 0o644, ROOT));
    throwsErrno(Errno.ENAMETOOLONG, () => root.lookup(n('n'.repeat(256))));
    throwsErrno(Errno.ENAMETOOLONG, () => root.mkdir(n('n'.repeat(256)), 0o755, ROOT));
    throwsErrno(Errno.ENAMETOOLONG, () => file.lookup(n('n'.repeat(256))));
    throwsErrno(Errno.ENOTDIR, () => file.lookup(n('x')));
    throwsErrno(Errno.ENOTDIR, () => file.readdir());
    file.forget();
  });

  it('that are none are EINVAL', () => {
    for (const bad of ['', '.', '..', 'a/b', 'a\0b', '\u0100']) {
      throwsErrno(Errno.EINVAL, () => root.lookup(n(bad)));
      throwsErrno(Errno.EINVAL, () => root.create(n(bad), 0o644, ROOT));
    }
  });
});

describe('lookup and attributes', () => {
  it('gives undefined for what is not there', () => {
    assert.equal(runSync(root.lookup(n('missing'))), undefined);
    assert.equal(runSync(root.lookupWithStat(n('missing'))), undefined);
  });

  it('never follows a symlink, neither as the last nor as a middle component', () => {
    fs.mkdirSync(at('real'));
    fs.writeFileSync(at('real', 'secret'), 'no');
    fs.symlinkSync('real', at('link'));
    fs.symlinkSync('/etc', at('out'));
    const link = find(root, 'link');
    assert.equal(link.type, S_IFLNK);
    assert.equal(runSync(link.readlink()), 'real');
    throwsErrno(Errno.ENOTDIR, () => link.lookup(n('secret')));
    throwsErrno(Errno.EINVAL, () =>
      link.read({ bytes: new Uint8Array(1), offset: 0, length: 1 }, 0),
    );
    // Somebody puts a link to elsewhere where a directory was, with nothing of it open.
    const dir = find(root, 'real');
    fs.renameSync(at('real'), at('real2'));
    fs.symlinkSync('/etc', at('real'));
    throwsErrno(Errno.ESTALE, () => dir.lookup(n('passwd')));
    dir.forget();
    link.forget();
  });

  it('agrees with lstat in every field', () => {
    fs.writeFileSync(at('stat-me'), 'abc');
    fs.utimesSync(at('stat-me'), -5.5, 1e9 + 0.25);
    const inode = find(root, 'stat-me');
    const stat = runSync(inode.getattr());
    const theirs = fs.lstatSync(at('stat-me'), { bigint: true });
    assert.equal(BigInt(stat.ino), theirs.ino);
    assert.equal(BigInt(stat.mode), theirs.mode);
    assert.equal(BigInt(stat.size), theirs.size);
    assert.equal(BigInt(stat.blocks), theirs.blocks);
    const ns = (sec: number, nsec: number): bigint => BigInt(sec) * 10n ** 9n + BigInt(nsec);
    assert.equal(ns(stat.atimeSec, stat.atimeNsec), theirs.atimeNs);
    assert.equal(ns(stat.mtimeSec, stat.mtimeNsec), theirs.mtimeNs);
    assert.equal(ns(stat.ctimeSec, stat.ctimeNsec), theirs.ctimeNs);
    assert.equal(ns(stat.btimeSec, stat.btimeNsec), theirs.birthtimeNs);
    assert.deepEqual(runSync(root.lookupWithStat(n('stat-me')))!.stat, stat);
    inode.forget();
  });

  it('sees changes made beneath, and answers errors for what has gone', () => {
    fs.writeFileSync(at('goes'), 'old');
    fs.mkdirSync(at('gone-dir'));
    const file = find(root, 'goes');
    const dir = find(root, 'gone-dir');
    fs.appendFileSync(at('goes'), 'er');
    assert.equal(runSync(file.getattr()).size, 5);
    fs.rmSync(at('goes'));
    fs.rmdirSync(at('gone-dir'));
    throwsErrno(Errno.ENOENT, () => file.getattr());
    throwsErrno(Errno.ENOENT, () => dir.getattr());
    throwsErrno(Errno.ESTALE, () => dir.lookup(n('x')));
    fs.mkdirSync(at('goes'));
    throwsErrno(Errno.ESTALE, () => file.getattr());
    fs.rmdirSync(at('goes'));
    file.forget();
    dir.forget();
  });

  it('does not take a new directory for the old one of the same name', () => {
    fs.mkdirSync(at('twice'));
    fs.writeFileSync(at('twice', 'first'), '1');
    const old = find(root, 'twice');
    const first = find(old, 'first');
    fs.renameSync(at('twice'), at('elsewhere'));
    fs.mkdirSync(at('twice'));
    fs.writeFileSync(at('twice', 'second'), '2');
    const fresh = find(root, 'twice');
    assert.equal(readAll(find(fresh, 'second')), '2');
    // The old one has a descriptor, which still leads to it.
    assert.equal(readAll(first), '1');
    assert.equal(runSync(old.lookup(n('second'))), undefined);
    for (const inode of [old, first, fresh]) inode.forget();
  });
});

describe('creation', () => {
  it('gives owner and umask, and the returned file is ready', { skip: needsRoot }, () => {
    const file = runSync(root.create(n('owned'), 0o666, USER));
    const stat = runSync(file.getattr());
    assert.deepEqual([stat.uid, stat.gid, stat.mode], [1234, 2345, S_IFREG | 0o640]);
    const dir = runSync(root.mkdir(n('owned-dir'), 0o1777, USER));
    const dirStat = runSync(dir.getattr());
    assert.deepEqual([dirStat.uid, dirStat.gid, dirStat.mode], [1234, 2345, S_IFDIR | 0o1750]);
    const link = runSync(root.symlink(n('owned-link'), 'caf\xe9', USER));
    const linkStat = runSync(link.getattr());
    assert.deepEqual([linkStat.uid, linkStat.gid], [1234, 2345]);
    assert.equal(runSync(link.readlink()), 'caf\xe9');
    const fifo = runSync(root.mknod(n('owned-fifo'), S_IFIFO | 0o666, 0, 0, USER));
    assert.deepEqual(
      [runSync(fifo.getattr()).mode, runSync(fifo.getattr()).uid],
      [S_IFIFO | 0o640, 1234],
    );
    for (const inode of [file, dir, link, fifo]) inode.forget();
  });

  it('keeps setuid and setgid over the change of owner', { skip: needsRoot }, () => {
    const file = runSync(root.create(n('suid'), 0o6755, { ...USER, umask: 0 }));
    assert.equal(runSync(file.getattr()).mode, S_IFREG | 0o6755);
    const node = runSync(root.mknod(n('suid2'), S_IFREG | 0o6711, 0, 0, USER));
    assert.equal(runSync(node.getattr()).mode, S_IFREG | 0o6710);
    file.forget();
    node.forget();
  });

  it('hands the group of a setgid directory down', { skip: needsRoot }, () => {
    const parent = runSync(root.mkdir(n('setgid'), 0o755, ROOT));
    runSync(parent.setattr({ gid: 777 }));
    runSync(parent.setattr({ mode: 0o2775 }));
    const file = runSync(parent.create(n('f'), 0o644, USER));
    assert.deepEqual([runSync(file.getattr()).uid, runSync(file.getattr()).gid], [1234, 777]);
    const dir = runSync(parent.mkdir(n('d'), 0o755, USER));
    const stat = runSync(dir.getattr());
    assert.deepEqual([stat.gid, stat.mode], [777, S_IFDIR | 0o2750]);
    // Two levels down without a getattr in between, and through a fresh lookup.
    const below = runSync(runSync(dir.mkdir(n('e'), 0o755, USER)).create(n('f'), 0o644, USER));
    assert.equal(runSync(below.getattr()).gid, 777);
    const again = runSync(find(root, 'setgid').create(n('g'), 0o644, USER));
    assert.equal(runSync(again.getattr()).gid, 777);
    for (const inode of [parent, file, dir, below, again]) inode.forget();
  });

  it('lets a default ACL override the umask', { skip: needsRoot }, (t) => {
    const parent = runSync(root.mkdir(n('acl'), 0o755, ROOT));
    // POSIX ACL xattr, version 2: user::rwx, group::rwx, other::r-x.
    const entry = (tag: number, perm: number): number[] => [tag, 0, perm, 0, 255, 255, 255, 255];
    const acl = new Uint8Array([2, 0, 0, 0, ...entry(1, 7), ...entry(4, 7), ...entry(32, 5)]);
    try {
      runSync(parent.setxattr('system.posix_acl_default', acl, 0));
    } catch (error) {
      if (errnoOf(error) !== Errno.EOPNOTSUPP) throw error;
      t.skip('no ACL on this filesystem');
      return;
    }
    const strict = { ...USER, umask: 0o077 };
    const file = runSync(parent.create(n('f'), 0o666, strict));
    assert.equal(runSync(file.getattr()).mode & 0o777, 0o664);
    const dir = runSync(parent.mkdir(n('d'), 0o777, strict));
    assert.equal(runSync(dir.getattr()).mode & 0o777, 0o775);
    const plain = runSync(root.create(n('no-acl'), 0o666, strict));
    assert.equal(runSync(plain.getattr()).mode & 0o777, 0o600);
    for (const inode of [parent, file, dir, plain]) inode.forget();
  });

  it('makes whiteouts and devices', { skip: needsRoot }, () => {
    const white = runSync(root.mknod(n('white'), S_IFCHR, 0, 0, ROOT));
    const stat = runSync(white.getattr());
    assert.deepEqual([stat.mode, stat.rdevMajor, stat.rdevMinor], [S_IFCHR, 0, 0]);
    const big = runSync(root.mknod(n('big-dev'), S_IFCHR | 0o600, 300, 0xabcde, ROOT));
    const bigStat = runSync(big.getattr());
    assert.deepEqual([bigStat.rdevMajor, bigStat.rdevMinor], [300, 0xabcde]);
    white.forget();
    big.forget();
  });

  it('answers EEXIST, and what symlinks must', () => {
    fs.writeFileSync(at('exists'), '');
    throwsErrno(Errno.EEXIST, () => root.create(n('exists'), 0o644, ROOT));
    throwsErrno(Errno.EEXIST, () => root.mkdir(n('exists'), 0o755, ROOT));
    throwsErrno(Errno.EEXIST, () => root.symlink(n('exists'), 'x', ROOT));
    throwsErrno(Errno.ENAMETOOLONG, () => root.symlink(n('l'), 'x'.repeat(4096), ROOT));
    const long = runSync(root.symlink(n('l'), 'x'.repeat(4095), ROOT));
    assert.equal(runSync(long.readlink()).length, 4095);
    throwsErrno(Errno.EOPNOTSUPP, () => long.setattr({ mode: 0o600 }));
    long.forget();
  });
});

describe('removal, links and rename', () => {
  it('leaves an unlinked file readable and writable until forget', () => {
    fs.writeFileSync(at('orphan'), 'still here');
    const inode = find(root, 'orphan');
    const before = openDescriptors();
    runSync(root.unlink(n('orphan'), inode));
    assert.equal(fs.existsSync(at('orphan')), false);
    assert.equal(runSync(inode.getattr()).nlink, 0);
    assert.equal(readAll(inode), 'still here');
    writeAll(inode, 'STILL');
    assert.equal(readAll(inode), 'STILL here');
    runSync(inode.setattr({ size: 2, mode: 0o600, mtime: { sec: 5, nsec: 6 } }));
    assert.equal(runSync(inode.getattr()).mtimeNsec, 6);
    runSync(inode.setxattr('user.x', new Uint8Array([1]), 0));
    assert.deepEqual(runSync(inode.listxattr()), ['user.x']);
    inode.forget();
    assert.equal(openDescriptors(), before);
  });

  it('keeps a removed symlink, fifo and directory too', () => {
    fs.symlinkSync('target', at('orphan-link'));
    const link = find(root, 'orphan-link');
    runSync(root.unlink(n('orphan-link'), link));
    assert.equal(runSync(link.readlink()), 'target');
    assert.equal(runSync(link.getattr()).nlink, 0);
    const dir = runSync(root.mkdir(n('orphan-dir'), 0o755, ROOT));
    runSync(root.rmdir(n('orphan-dir'), dir));
    runSync(dir.getattr());
    assert.deepEqual(runSync(dir.readdir()), []);
    assert.equal(runSync(dir.lookup(n('x'))), undefined);
    throwsErrno(Errno.ENOENT, () => dir.create(n('x'), 0o644, ROOT));
    // A new one of that name is another.
    const fresh = runSync(root.mkdir(n('orphan-dir'), 0o755, ROOT));
    runSync(fresh.create(n('y'), 0o644, ROOT)).forget();
    assert.deepEqual(runSync(dir.readdir()), []);
    for (const inode of [link, dir, fresh]) inode.forget();
  });

  it('answers the errors of removal', () => {
    fs.mkdirSync(at('full'));
    fs.writeFileSync(at('full', 'x'), '');
    const full = find(root, 'full');
    const file = find(full, 'x');
    throwsErrno(Errno.ENOTEMPTY, () => root.rmdir(n('full'), full));
    throwsErrno(Errno.EISDIR, () => root.unlink(n('full'), full));
    throwsErrno(Errno.ENOTDIR, () => full.rmdir(n('x'), file));
    throwsErrno(Errno.ENOENT, () => full.unlink(n('y'), file));
    assert.equal(readAll(file), '');
    full.forget();
    file.forget();
  });

  it('moves a file, and all that is known beneath a directory', () => {
    fs.mkdirSync(at('from', 'sub'), { recursive: true });
    fs.mkdirSync(at('to'));
    fs.writeFileSync(at('from', 'sub', 'f'), 'deep');
    const from = find(root, 'from');
    const sub = find(from, 'sub');
    const deep = find(sub, 'f');
    const to = find(root, 'to');
    runSync(root.rename(n('from'), from, to, n('moved'), undefined, 0));
    assert.equal(readAll(deep), 'deep');
    assert.equal(fs.readFileSync(at('to', 'moved', 'sub', 'f'), 'latin1'), 'deep');
    runSync(sub.rename(n('f'), deep, root, n('top'), undefined, RENAME_NOREPLACE));
    runSync(deep.setattr({ mode: 0o604 }));
    assert.equal(fs.statSync(at('top')).mode & 0o777, 0o604);
    throwsErrno(Errno.EINVAL, () => to.rename(n('moved'), from, sub, n('loop'), undefined, 0));
    throwsErrno(Errno.EEXIST, () =>
      root.rename(n('top'), deep, root, n('to'), to, RENAME_NOREPLACE),
    );
    throwsErrno(Errno.EINVAL, () => root.rename(n('top'), deep, root, n('z'), undefined, 64));
    for (const inode of [from, sub, deep, to]) inode.forget();
  });

  it('keeps what a rename replaces', () => {
    fs.writeFileSync(at('new'), 'new');
    fs.writeFileSync(at('old'), 'old');
    const source = find(root, 'new');
    const replaced = find(root, 'old');
    runSync(root.rename(n('new'), source, root, n('old'), replaced, 0));
    assert.equal(readAll(replaced), 'old');
    assert.equal(readAll(source), 'new');
    assert.equal(fs.readFileSync(at('old'), 'latin1'), 'new');
    const dirA = runSync(root.mkdir(n('dirA'), 0o755, ROOT));
    const dirB = runSync(root.mkdir(n('dirB'), 0o755, ROOT));
    runSync(dirA.create(n('in'), 0o644, ROOT)).forget();
    runSync(root.rename(n('dirA'), dirA, root, n('dirB'), dirB, 0));
    assert.deepEqual(runSync(dirB.readdir()), []);
    assert.equal(runSync(dirA.readdir()).length, 1);
    assert.equal(runSync(find(root, 'dirB').readdir()).length, 1);
    for (const inode of [source, replaced, dirA, dirB]) inode.forget();
  });

  it('exchanges, also a file with a directory', () => {
    fs.writeFileSync(at('ex-file'), 'file');
    fs.mkdirSync(at('ex-dir'));
    fs.writeFileSync(at('ex-dir', 'in'), 'inside');
    const file = find(root, 'ex-file');
    const dir = find(root, 'ex-dir');
    const inside = find(dir, 'in');
    runSync(root.rename(n('ex-file'), file, root, n('ex-dir'), dir, RENAME_EXCHANGE));
    assert.equal(readAll(file), 'file');
    assert.equal(readAll(inside), 'inside');
    assert.equal(fs.readFileSync(at('ex-file', 'in'), 'latin1'), 'inside');
    const other = runSync(root.mkdir(n('ex-dir2'), 0o755, ROOT));
    runSync(root.rename(n('ex-file'), dir, root, n('ex-dir2'), other, RENAME_EXCHANGE));
    assert.equal(runSync(dir.readdir()).length, 1);
    assert.equal(runSync(other.readdir()).length, 0);
    assert.equal(runSync(find(root, 'ex-dir2').readdir()).length, 1);
    throwsErrno(Errno.EINVAL, () =>
      root.rename(n('ex-dir'), file, root, n('x'), undefined, RENAME_EXCHANGE | RENAME_NOREPLACE),
    );
    for (const inode of [file, dir, inside, other]) inode.forget();
  });

  it('leaves a whiteout where asked to', { skip: needsRoot }, () => {
    fs.writeFileSync(at('covered'), 'x');
    const file = find(root, 'covered');
    runSync(root.rename(n('covered'), file, root, n('uncovered'), undefined, RENAME_WHITEOUT));
    const white = find(root, 'covered');
    assert.equal(white.type, S_IFCHR);
    assert.equal(readAll(file), 'x');
    white.forget();
    file.forget();
  });

  it('lives on by its other names, without a descriptor for each', () => {
    const inode = runSync(root.create(n('hard1'), 0o644, ROOT));
    writeAll(inode, 'linked');
    runSync(root.link(n('hard2'), inode));
    runSync(root.link(n('hard3'), inode));
    assert.equal(runSync(inode.getattr()).nlink, 3);
    // Another object takes one of the known names away.
    const other = find(root, 'hard3');
    runSync(root.unlink(n('hard3'), other));
    other.forget();
    runSync(root.unlink(n('hard1'), inode));
    assert.equal(inode.pinned, false);
    assert.equal(inode.name, 'hard2');
    assert.equal(readAll(inode), 'linked');
    runSync(root.unlink(n('hard2'), inode));
    assert.equal(inode.pinned, true);
    assert.equal(readAll(inode), 'linked');
    inode.forget();
  });

  it('drops a further name that is unlinked first', () => {
    const inode = runSync(root.create(n('h1'), 0o644, ROOT));
    runSync(root.link(n('h2'), inode));
    runSync(root.unlink(n('h2'), inode));
    runSync(root.unlink(n('h1'), inode));
    assert.equal(inode.pinned, true);
    inode.forget();
  });

  it('does nothing when a rename is between two names of one inode', () => {
    const one = runSync(root.create(n('same1'), 0o644, ROOT));
    runSync(root.link(n('same2'), one));
    const two = find(root, 'same2');
    runSync(root.rename(n('same1'), one, root, n('same2'), two, 0));
    assert.equal(one.name, 'same1');
    assert.equal(two.pinned, false);
    assert(fs.existsSync(at('same1')) && fs.existsSync(at('same2')));
    for (const inode of [one, two]) inode.forget();
  });

  it('links symlinks themselves and refuses directories', () => {
    fs.symlinkSync('nowhere', at('sl'));
    const link = find(root, 'sl');
    runSync(root.link(n('sl2'), link));
    assert.equal(fs.readlinkSync(at('sl2')), 'nowhere');
    throwsErrno(Errno.EPERM, () => root.link(n('dl'), root));
    throwsErrno(Errno.EEXIST, () => root.link(n('sl2'), link));
    link.forget();
  });

  it('gives a tmpfile its name', () => {
    const inode = runSync(root.tmpfile(0o640, ROOT));
    writeAll(inode, 'born without');
    assert.equal(inode.pinned, true);
    runSync(root.link(n('named'), inode));
    assert.equal(inode.pinned, false);
    assert.equal(fs.readFileSync(at('named'), 'latin1'), 'born without');
    runSync(root.rename(n('named'), inode, root, n('renamed'), undefined, 0));
    assert.equal(readAll(inode), 'born without');
    inode.forget();
  });

  it('renames between two roots of one filesystem, and EXDEV between two', () => {
    fs.mkdirSync(at('work'));
    const work = host.openRoot(at('work'));
    const temp = runSync(work.create(n('temp'), 0o644, ROOT));
    runSync(work.rename(n('temp'), temp, root, n('published'), undefined, 0));
    assert(fs.existsSync(at('published')));
    const second = openHostFs({ path: at('work'), readOnly: false });
    throwsErrno(Errno.EXDEV, () =>
      root.rename(n('published'), temp, second.root, n('x'), undefined, 0),
    );
    throwsErrno(Errno.EXDEV, () => second.root.link(n('x'), temp));
    runSync(second.unmount());
    temp.forget();
    work.forget();
  });
});

describe('data', () => {
  it('reads and writes at positions, past holes and at the end', async () => {
    const inode = runSync(root.create(n('data'), 0o644, ROOT));
    writeAll(inode, 'head');
    writeAll(inode, 'tail', 1 << 20);
    const bytes = new Uint8Array(16).fill(7);
    assert.equal(runSync(inode.read({ bytes, offset: 4, length: 8 }, (1 << 20) - 4)), 8);
    assert.equal(
      Buffer.from(bytes).toString('latin1'),
      '\x07\x07\x07\x07\0\0\0\0tail\x07\x07\x07\x07',
    );
    assert.equal(await runAsync(inode.read({ bytes, offset: 0, length: 16 }, (1 << 20) + 2)), 2);
    assert.equal(runSync(inode.read({ bytes, offset: 0, length: 16 }, 1 << 30)), 0);
    assert.equal(runSync(inode.seek(0, SEEK_HOLE)), 4096);
    assert.equal(runSync(inode.seek(4096, SEEK_DATA)), 1 << 20);
    throwsErrno(Errno.ENXIO, () => inode.seek(1 << 21, SEEK_DATA));
    throwsErrno(Errno.EINVAL, () => inode.seek(0, 0));
    runSync(inode.fsync(false));
    await runAsync(inode.fsync(true));
    await runAsync(root.fsync(false));
    runSync(inode.fallocate(3, 1 << 20, 4096));
    assert.equal(readAll(inode).slice(0, 4), 'head');
    runSync(inode.fallocate(0, 0, 1 << 22));
    assert.equal(runSync(inode.getattr()).size, 1 << 22);
    throwsErrno(Errno.EISDIR, () => root.read({ bytes, offset: 0, length: 1 }, 0));
    inode.forget();
  });

  it('reads what is not in the page cache, on the spot and parked, and survives a forget', async () => {
    const text = 'x'.repeat(300_000);
    fs.writeFileSync(at('cold'), text);
    const cold = (): void => {
      execFileSync(
        'dd',
        [`of=${at('cold')}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'],
        {
          stdio: 'ignore',
        },
      );
    };
    cold();
    const inode = find(root, 'cold');
    assert.equal(readAll(inode, 400_000).length, 300_000);
    cold();
    const bytes = new Uint8Array(400_000);
    const reading = runAsync(inode.read({ bytes, offset: 0, length: 400_000 }, 0));
    inode.forget();
    // Forgotten while it waits: either the whole text, or an error; never other bytes.
    try {
      assert.equal(await reading, 300_000);
    } catch (error) {
      assert.equal(errnoOf(error), Errno.ESTALE);
    }
  });

  it('copies ranges inside the host, big ones as a wait', async () => {
    const from = runSync(root.create(n('copy-from'), 0o644, ROOT));
    const to = runSync(root.create(n('copy-to'), 0o644, ROOT));
    writeAll(from, 'abcdefgh'.repeat(300_000));
    assert.equal(runSync(from.copyRange(2, to, 1, 4)), 4);
    assert.equal(readAll(to), '\0cdef');
    const copied = await runAsync(from.copyRange(0, to, 0, 2_400_000));
    assert(copied > 0);
    assert.equal(readAll(to, 8), 'abcdefgh');
    throwsErrno(Errno.EINVAL, () => from.copyRange(0, from, 10, 1000));
    from.forget();
    to.forget();
  });

  it('copies from a read-only branch into another', () => {
    fs.mkdirSync(at('lower'));
    fs.writeFileSync(at('lower', 'f'), 'from below');
    const lower = openHostFs({ path: at('lower'), readOnly: true });
    const target = runSync(root.create(n('copied-up'), 0o644, ROOT));
    const source = find(lower.root, 'f');
    assert.equal(runSync(source.copyRange(0, target, 0, 100)), 10);
    assert.equal(fs.readFileSync(at('copied-up'), 'latin1'), 'from below');
    source.forget();
    target.forget();
    runSync(lower.unmount());
  });

  it('reads what may not be written', { skip: needsRoot }, () => {
    fs.copyFileSync('/bin/sleep', at('program'));
    fs.chmodSync(at('program'), 0o755);
    const inode = find(root, 'program');
    // Immutable: open for writing is EPERM, reading is not.
    const flags = new Uint8Array(4);
    flags[0] = 0x10;
    try {
      runSync(inode.ioctl(0x4008_6602, flags, 0));
    } catch (error) {
      if (errnoOf(error) === Errno.EOPNOTSUPP || errnoOf(error) === Errno.ENOTTY) return;
      throw error;
    }
    const fresh = find(root, 'program');
    try {
      assert.equal(readAll(fresh, 4), '\x7fELF');
      const buffer = { bytes: new Uint8Array(1), offset: 0, length: 1 };
      throwsErrno(Errno.EPERM, () => fresh.write(buffer, 0));
      assert.equal(runSync(fresh.ioctl(0x8008_6601, new Uint8Array(0), 4))[0]! & 0x10, 0x10);
    } finally {
      runSync(inode.ioctl(0x4008_6602, new Uint8Array(4), 0));
    }
    // The same descriptor, opened for reading, is upgraded for the first write.
    writeAll(fresh, '\x7fELF');
    throwsErrno(Errno.ENOTTY, () => inode.ioctl(0x5401, new Uint8Array(0), 36));
    inode.forget();
    fresh.forget();
  });
});

describe('setattr', () => {
  it('changes owner, then mode, size and times', { skip: needsRoot }, () => {
    const inode = runSync(root.create(n('attr'), 0o755, ROOT));
    runSync(
      inode.setattr({
        uid: 55,
        gid: 66,
        mode: 0o6711,
        size: 1000,
        atime: { sec: -1, nsec: 999_999_999 },
        mtime: { sec: 3e9, nsec: 123_456_789 },
      }),
    );
    const stat = runSync(inode.getattr());
    assert.deepEqual(
      [
        stat.uid,
        stat.gid,
        stat.mode,
        stat.size,
        stat.atimeSec,
        stat.atimeNsec,
        stat.mtimeSec,
        stat.mtimeNsec,
      ],
      [55, 66, S_IFREG | 0o6711, 1000, -1, 999_999_999, 3e9, 123_456_789],
    );
    runSync(inode.setattr({ gid: 67 }));
    assert.deepEqual([runSync(inode.getattr()).uid, runSync(inode.getattr()).gid], [55, 67]);
    runSync(inode.setattr({ mtime: 'now' }));
    const later = runSync(inode.getattr());
    assert.equal(later.atimeSec, -1);
    assert(later.mtimeSec < 3e9);
    throwsErrno(Errno.EISDIR, () => root.setattr({ size: 0 }));
    throwsErrno(Errno.EINVAL, () => inode.setattr({ size: -1 }));
    throwsErrno(Errno.EFBIG, () => inode.setattr({ size: 2 ** 60 }));
    inode.forget();
  });

  it('takes privileges away', { skip: needsRoot }, () => {
    const inode = runSync(root.create(n('priv'), 0o6755, { ...ROOT, umask: 0 }));
    // struct vfs_cap_data, revision 2, CAP_NET_RAW.
    const caps = new Uint8Array(20);
    caps.set([1, 0, 0, 2, 0, 0x20]);
    runSync(inode.setxattr('security.capability', caps, 0));
    runSync(inode.setattr({ killPriv: true }));
    assert.equal(runSync(inode.getattr()).mode, S_IFREG | 0o755);
    assert.equal(runSync(inode.getxattr('security.capability')), undefined);
    runSync(inode.setattr({ mode: 0o2644 }));
    runSync(inode.setattr({ killPriv: true, size: 0 }));
    assert.equal(runSync(inode.getattr()).mode, S_IFREG | 0o2644);
    inode.forget();
  });

  it('works on symlinks and fifos without following or waiting', { skip: needsRoot }, () => {
    fs.symlinkSync('/etc/passwd', at('to-passwd'));
    const link = find(root, 'to-passwd');
    runSync(link.setattr({ uid: 9, gid: 9, mtime: { sec: 1, nsec: 2 } }));
    const stat = runSync(link.getattr());
    assert.deepEqual([stat.uid, stat.mtimeSec, stat.mtimeNsec], [9, 1, 2]);
    assert.equal(fs.statSync('/etc/passwd').uid, 0);
    const fifo = runSync(root.mknod(n('pipe'), S_IFIFO | 0o600, 0, 0, ROOT));
    runSync(fifo.setattr({ mode: 0o644, atime: { sec: 3, nsec: 4 } }));
    assert.equal(runSync(fifo.getattr()).atimeNsec, 4);
    runSync(root.unlink(n('pipe'), fifo));
    runSync(fifo.setattr({ mode: 0o600 }));
    assert.equal(runSync(fifo.getattr()).mode, S_IFIFO | 0o600);
    link.forget();
    fifo.forget();
  });
});

describe('extended attributes', () => {
  it('are bytes, on files, directories and by every way to reach them', () => {
    const dir = runSync(root.mkdir(n('xdir'), 0o755, ROOT));
    fs.writeFileSync(at('xfile'), '');
    const value = new Uint8Array([0, 255, 10, 0]);
    for (const inode of [dir, find(root, 'xfile'), runSync(root.create(n('xopen'), 0o644, ROOT))]) {
      assert.equal(runSync(inode.getxattr('user.none')), undefined);
      runSync(inode.setxattr('user.bin', value, XATTR_CREATE));
      assert.deepEqual(runSync(inode.getxattr('user.bin')), value);
      throwsErrno(Errno.EEXIST, () => inode.setxattr('user.bin', value, XATTR_CREATE));
      throwsErrno(Errno.ENODATA, () => inode.setxattr('user.no', value, XATTR_REPLACE));
      runSync(inode.setxattr('user.empty', new Uint8Array(0), 0));
      assert.equal(runSync(inode.getxattr('user.empty'))!.length, 0);
      assert.deepEqual(runSync(inode.listxattr()).sort(), ['user.bin', 'user.empty']);
      runSync(inode.removexattr('user.empty'));
      throwsErrno(Errno.ENODATA, () => inode.removexattr('user.empty'));
      inode.forget();
    }
  });

  it('of a symlink are its own', { skip: needsRoot }, () => {
    fs.symlinkSync('xfile', at('xlink'));
    const link = find(root, 'xlink');
    runSync(link.setxattr('trusted.of.link', new Uint8Array([1]), 0));
    assert.deepEqual(runSync(link.listxattr()), ['trusted.of.link']);
    runSync(root.unlink(n('xlink'), link));
    assert.deepEqual(runSync(link.getxattr('trusted.of.link')), new Uint8Array([1]));
    link.forget();
  });
});

describe('handles', () => {
  it('lead to a file and a directory, wherever they were moved to', { skip: needsRoot }, () => {
    const file = runSync(root.create(n('handled'), 0o644, ROOT));
    writeAll(file, 'by handle');
    const handle = runSync(file.exportHandle())!;
    runSync(root.rename(n('handled'), file, root, n('handled2'), undefined, 0));
    const found = runSync(host.decodeHandle(handle))!;
    assert.equal(readAll(found), 'by handle');
    writeAll(found, 'BY');
    assert.equal(runSync(found.getattr()).ino, runSync(file.getattr()).ino);
    const dir = runSync(root.mkdir(n('hdir'), 0o755, ROOT));
    const dirHandle = runSync(dir.exportHandle())!;
    const foundDir = runSync(host.decodeHandle(dirHandle))!;
    runSync(foundDir.create(n('in'), 0o644, ROOT)).forget();
    assert.equal(runSync(dir.readdir()).length, 1);
    runSync(root.unlink(n('handled2'), file));
    file.forget();
    found.forget();
    assert.equal(runSync(host.decodeHandle(handle)), undefined);
    assert.equal(
      runSync(host.decodeHandle({ ...dirHandle, uuid: new Uint8Array(16).fill(9) })),
      undefined,
    );
    dir.forget();
    foundDir.forget();
  });
});

describe('opening', () => {
  it('says which path and why not', () => {
    fs.writeFileSync(at('a-file'), '');
    for (const readOnly of [true, false]) {
      assert.throws(
        () => openHostFs({ path: at('a-file'), readOnly }),
        (error) =>
          errnoOf(error) === Errno.ENOTDIR &&
          String(error).includes(`${at('a-file')} is not a directory`),
      );
      assert.throws(
        () => openHostFs({ path: at('not-there'), readOnly }),
        (error) => errnoOf(error) === Errno.ENOENT && String(error).includes(at('not-there')),
      );
    }
  });

  it('read-only: nothing changes, and names are checked first', () => {
    fs.mkdirSync(at('ro'));
    fs.writeFileSync(at('ro', 'f'), 'text');
    for (const isolate of [true, false]) {
      const ro = openHostFs({ path: at('ro'), readOnly: true, isolate });
      const f = find(ro.root, 'f');
      assert.equal(readAll(f), 'text');
      const buffer = { bytes: new Uint8Array(1), offset: 0, length: 1 };
      throwsErrno(Errno.EROFS, () => f.write(buffer, 0));
      throwsErrno(Errno.EROFS, () => f.setattr({ mode: 0 }));
      throwsErrno(Errno.EEXIST, () => ro.root.create(n('f'), 0o644, ROOT));
      throwsErrno(Errno.EROFS, () => ro.root.create(n('g'), 0o644, ROOT));
      throwsErrno(Errno.ENAMETOOLONG, () => ro.root.mkdir(n('g'.repeat(256)), 0o755, ROOT));
      throwsErrno(Errno.EROFS, () => ro.root.unlink(n('f'), f));
      throwsErrno(Errno.ENOENT, () => ro.root.unlink(n('g'), f));
      throwsErrno(Errno.EROFS, () => ro.root.rename(n('f'), f, ro.root, n('g'), undefined, 0));
      throwsErrno(Errno.EROFS, () => f.setxattr('user.x', new Uint8Array(1), 0));
      runSync(ro.syncfs());
      f.forget();
      runSync(ro.unmount());
    }
    assert.equal(fs.readFileSync(at('ro', 'f'), 'latin1'), 'text');
  });

  it("statfs is the host's", () => {
    const ours = runSync(host.statfs());
    const theirs = fs.statfsSync(base);
    assert.deepEqual(
      [ours.bsize, ours.blocks, ours.files, ours.namelen],
      [theirs.bsize, theirs.blocks, theirs.files, 255],
    );
    runSync(host.syncfs());
  });
});

describe('limits', () => {
  it('reads 3,000 files and 200 nested directories with 32 descriptors', () => {
    const process = new HostProcess(0);
    fs.mkdirSync(at('many'));
    for (let i = 0; i < 3000; i++) fs.writeFileSync(at('many', `f${i}`), String(i));
    const few = openHostFs({ path: at('many'), readOnly: false, process });
    const before = openDescriptors();
    const inodes: HostInode[] = [];
    for (let i = 0; i < 3000; i++) inodes.push(find(few.root, `f${i}`));
    for (let i = 0; i < 3000; i++) assert.equal(readAll(inodes[i]!, 16), String(i));
    for (let i = 2999; i >= 0; i -= 7) assert.equal(readAll(inodes[i]!, 16), String(i));
    process.descriptors.check();
    assert(openDescriptors() <= before + 33);
    // A chain deeper than the cache, and a rename between two ends of it.
    let dir: HostInode = few.root;
    const chain: HostInode[] = [];
    for (let i = 0; i < 200; i++) {
      dir = runSync(dir.mkdir(n('d'), 0o755, ROOT));
      chain.push(dir);
    }
    const other = runSync(few.root.mkdir(n('e'), 0o755, ROOT));
    let deep: HostInode = other;
    for (let i = 0; i < 100; i++) deep = runSync(deep.mkdir(n('d'), 0o755, ROOT));
    const file = runSync(dir.create(n('end'), 0o644, ROOT));
    const victim = runSync(deep.create(n('victim'), 0o644, ROOT));
    writeAll(victim, 'victim');
    writeAll(file, 'end');
    for (let i = 0; i < 100; i++) readAll(inodes[i]!, 16);
    runSync(dir.rename(n('end'), file, deep, n('victim'), victim, 0));
    for (let i = 0; i < 100; i++) readAll(inodes[i]!, 16);
    assert.equal(readAll(file, 16), 'end');
    assert.equal(readAll(victim, 16), 'victim');
    process.descriptors.check();
    for (const inode of [...inodes, ...chain, other, file, victim]) inode.forget();
    runSync(few.unmount());
    assert.equal(process.descriptors.cachedCount, 0);
  });

  it('looks up and reads 30,000 files without EMFILE', () => {
    fs.mkdirSync(at('crowd'));
    const crowd = find(root, 'crowd');
    const inodes: HostInode[] = [];
    for (let i = 0; i < 30_000; i++) inodes.push(runSync(crowd.create(n(`f${i}`), 0o644, ROOT)));
    const buffer = { bytes: new Uint8Array(16), offset: 0, length: 16 };
    for (const inode of inodes) assert.equal(runSync(inode.read(buffer, 0)), 0);
    host.process.descriptors.check();
    for (const [i, inode] of inodes.entries()) {
      runSync(crowd.unlink(n(`f${i}`), inode));
      inode.forget();
    }
    runSync(root.rmdir(n('crowd'), crowd));
    crowd.forget();
  });

  it('gives all descriptors back on unmount', () => {
    const before = openDescriptors();
    fs.mkdirSync(at('give', 'back'), { recursive: true });
    fs.writeFileSync(at('give', 'f'), 'x');
    const own = openHostFs({ path: at('give'), readOnly: false });
    const f = find(own.root, 'f');
    readAll(f);
    runSync(own.root.unlink(n('f'), f));
    runSync(find(own.root, 'back').readdir());
    runSync(own.unmount());
    assert.equal(openDescriptors(), before);
  });
});
