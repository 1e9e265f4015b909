/** The wrappers against a real directory, and against node:fs where that can tell. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Errno } from '../abi/errno.ts';
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  SEEK_DATA,
  SEEK_HOLE,
  XATTR_CREATE,
  XATTR_REPLACE,
} from '../abi/fcntl.ts';
import { S_IFCHR, S_IFIFO, S_IFREG } from '../abi/mode.ts';
import { errnoOf } from '../kernel/error.ts';
import { runAsync, runSync } from '../kernel/task.ts';
import {
  KEEP_OWNER,
  pretendNoFchmodat2,
  tryFchmodat,
  tryFchownat,
  tryUtimensat,
  UTIME_NOW,
  UTIME_OMIT,
} from './attributes.ts';
import { monotonicNs, now } from './clock.ts';
import { tryNameToHandle, tryOpenByHandle } from './file-handle.ts';
import { getdents64 } from './getdents.ts';
import { HostCall } from './host-call.ts';
import {
  IN_CREATE,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  inotifyInit,
  inotifyRead,
  tryInotifyAddWatch,
  tryInotifyRemoveWatch,
} from './inotify.ts';
import {
  copyFileRangeWait,
  fdatasyncWait,
  tryFsync,
  fsyncWait,
  preadWait,
  pwriteWait,
  syncfsWait,
  tryCopyFileRange,
  tryFallocate,
  tryFiclone,
  tryFtruncate,
  tryLseek,
  tryPread,
  tryPreadNowait,
  tryPwrite,
  tryRead,
  tryWrite,
  tryWritev,
} from './io.ts';
import { filesystemUuid, FS_IOC_GETFLAGS, ioctl, tryIoctl } from './ioctl.ts';
import { addressOf, allocateArena, foldIdentity, Scratch } from './memory.ts';
import {
  CLONE_FS,
  MNT_DETACH,
  mount,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_RDONLY,
  OPEN_TREE_CLONE,
  tryMountSetattr,
  tryMoveMount,
  tryOpenTree,
  tryUmount2,
  tryUnshare,
  umount2,
} from './mount.ts';
import {
  linkat,
  makedev,
  mkdirat,
  mknodat,
  readlinkat,
  renameat2,
  rmdirat,
  symlinkat,
  tryLinkat,
  tryLinkFd,
  tryMkdirat,
  tryRenameat2,
  tryUnlinkat,
  unlinkat,
} from './namespace.ts';
import { libc, outcome } from './native.ts';
import {
  close,
  dup3,
  openat,
  openat2,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  tryOpenat,
  tryOpenat2,
  umask,
} from './open.ts';
import { eventfd, eventfdSignal, POLLIN, PollSet, tryEventfdDrain } from './poll.ts';
import {
  geteuid,
  getpid,
  getrlimit,
  getuid,
  raiseDescriptorLimit,
  RLIMIT_NOFILE,
  tryPrctl,
} from './process.ts';
import { tryReceiveDescriptor } from './socket.ts';
import { filesystemType, fstatfs } from './statfs.ts';
import { statx, statxFd, statxIsMountRoot, statxPath, tryStatx } from './statx.ts';
import {
  pretendNoXattrat,
  tryGetxattr,
  tryListxattr,
  tryRemovexattr,
  trySetxattr,
  xattrNames,
  xattrValue,
} from './xattr.ts';

const isRoot = process.geteuid!() === 0;
const needsRoot = isRoot ? false : 'only root may';

let base = '';
let dir = -1;
const at = (...names: string[]): string => path.join(base, ...names);

before(() => {
  base = fs.mkdtempSync(path.join(os.tmpdir(), 'sys-'));
  dir = openat(AT_FDCWD, base, O_PATH | O_DIRECTORY);
});

after(() => {
  close(dir);
  fs.rmSync(base, { recursive: true, force: true });
});

function throwsErrno(errno: number, call: () => unknown): void {
  assert.throws(call, (error) => errnoOf(error) === errno);
}

/** Use a fresh file's descriptor and close it. */
function withFile(name: string, use: (fd: number) => void): void {
  const fd = openat(dir, name, O_RDWR | O_CREAT, 0o644);
  try {
    use(fd);
  } finally {
    close(fd);
  }
}

function putText(fd: number, text: string, position = 0): void {
  const arena = allocateArena(text.length);
  Buffer.from(arena.bytes.buffer).write(text, 'latin1');
  assert.equal(tryPwrite(fd, arena.address, text.length, position), text.length);
}

function textOf(fd: number, length: number, position = 0): string {
  const arena = allocateArena(length);
  const count = tryPread(fd, arena.address, length, position);
  assert(count >= 0);
  return Buffer.from(arena.bytes.subarray(0, count)).toString('latin1');
}

describe('memory', () => {
  it('knows the address of every view of a buffer', () => {
    const arena = allocateArena(100);
    assert.equal(addressOf(arena.bytes), arena.address);
    assert.equal(addressOf(arena.bytes.subarray(10)), arena.address + 10);
    // Small typed arrays start on V8's heap: the address must be of where they are after.
    const small = new Uint8Array(8);
    const address = addressOf(small);
    withFile('mem', (fd) => {
      putText(fd, '12345678');
      assert.equal(tryPread(fd, address, 8, 0), 8);
    });
    assert.equal(Buffer.from(small).toString(), '12345678');
    assert.equal(addressOf(small), address);
  });

  it('decodes 64 bits and folds what does not fit', () => {
    const scratch = new Scratch(16);
    for (const value of [0, 1, -1, -5_000_000_000, 2 ** 40 + 7, Number.MAX_SAFE_INTEGER]) {
      scratch.putU64(0, value);
      assert.equal(scratch.i64(0), value);
      assert.equal(scratch.buffer.readBigInt64LE(0), BigInt(value));
    }
    assert.equal(foldIdentity(5, 0x1f_ffff), 5 + 0x1f_ffff * 2 ** 32);
    const folded = foldIdentity(5, 0x8000_0001);
    assert(Number.isSafeInteger(folded));
    assert.notEqual(folded, foldIdentity(5, 1));
  });
});

describe('open', () => {
  it('opens, misses without a throw, and creates', () => {
    assert.equal(tryOpenat(dir, 'none', O_RDONLY), -Errno.ENOENT);
    throwsErrno(Errno.ENOENT, () => openat(dir, 'none', O_RDONLY));
    const fd = openat(dir, 'open\xe9', O_CREAT | O_EXCL | O_RDWR, 0o600);
    assert.equal(tryOpenat(dir, 'open\xe9', O_CREAT | O_EXCL | O_RDWR), -Errno.EEXIST);
    const raw = Buffer.concat([Buffer.from(`${base}/open`), Buffer.from([0xe9])]);
    assert.equal(fs.statSync(raw).mode & 0o777, 0o600);
    close(fd);
    throwsErrno(Errno.EBADF, () => close(fd));
  });

  it('sets close-on-exec', () => {
    const fd = openat(dir, '.', O_RDONLY);
    const flags = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1').match(/flags:\s*(\d+)/)![1]!;
    assert.notEqual(parseInt(flags, 8) & 0o2000000, 0);
    close(fd);
  });

  it('says ENAMETOOLONG for a path of 4096 bytes and opens one of 4095', () => {
    const long = './'.repeat(2047) + '.';
    assert.equal(long.length, 4095);
    close(openat(dir, long, O_PATH));
    assert.equal(tryOpenat(dir, `${long}/`, O_PATH), -Errno.ENAMETOOLONG);
    assert.equal(tryOpenat(dir, 'x'.repeat(9000), O_PATH), -Errno.ENAMETOOLONG);
    assert.equal(tryOpenat(dir, 'x'.repeat(256), O_PATH), -Errno.ENAMETOOLONG);
  });

  it('openat2 stays beneath, follows nothing and crosses nothing', () => {
    fs.mkdirSync(at('beneath'));
    fs.symlinkSync('..', at('beneath', 'up'));
    const beneath = openat2(dir, 'beneath', O_PATH | O_DIRECTORY, RESOLVE_BENEATH);
    assert.equal(tryOpenat2(beneath, 'up', O_PATH | O_DIRECTORY, RESOLVE_BENEATH), -Errno.EXDEV);
    assert.equal(tryOpenat2(beneath, '..', O_PATH, RESOLVE_BENEATH), -Errno.EXDEV);
    assert.equal(tryOpenat2(beneath, 'up/x', O_PATH, RESOLVE_NO_SYMLINKS), -Errno.ELOOP);
    const top = openat(AT_FDCWD, '/', O_PATH);
    assert.equal(tryOpenat2(top, 'proc/self', O_PATH, RESOLVE_NO_XDEV), -Errno.EXDEV);
    close(top);
    close(beneath);
  });

  it('dup3 puts one file under another number', () => {
    const one = openat(dir, 'dup1', O_CREAT | O_RDWR, 0o600);
    const two = openat(dir, 'dup2', O_CREAT | O_RDWR, 0o600);
    putText(one, 'one');
    dup3(one, two);
    assert.equal(textOf(two, 10), 'one');
    close(one);
    close(two);
  });

  it('umask gives the mask before', () => {
    const before = umask(0o077);
    assert.equal(umask(before), 0o077);
    assert.equal(process.umask(), before);
  });
});

describe('statx', () => {
  it('agrees with node:fs in every field', () => {
    fs.writeFileSync(at('st'), 'x'.repeat(5000));
    fs.utimesSync(at('st'), 1.5, -1.25);
    const fd = openat(dir, 'st', O_PATH);
    const theirs = fs.statSync(at('st'), { bigint: true });
    const ns = (sec: number, nsec: number): bigint => BigInt(sec) * 1_000_000_000n + BigInt(nsec);
    for (const ours of [
      statx(dir, 'st'),
      statxFd(fd),
      statx(fd, ''),
      statxPath(AT_FDCWD, at('st')),
    ]) {
      for (const field of [
        'ino',
        'mode',
        'nlink',
        'uid',
        'gid',
        'size',
        'blocks',
        'blksize',
      ] as const) {
        assert.equal(BigInt(ours[field]), theirs[field], field);
      }
      assert.equal(ns(ours.atimeSec, ours.atimeNsec), theirs.atimeNs);
      assert.equal(ns(ours.mtimeSec, ours.mtimeNsec), theirs.mtimeNs);
      assert.equal(ns(ours.ctimeSec, ours.ctimeNsec), theirs.ctimeNs);
      assert.equal(ns(ours.btimeSec, ours.btimeNsec), theirs.birthtimeNs);
      const device = (BigInt(ours.devMajor) << 8n) | BigInt(ours.devMinor);
      if (ours.devMinor < 256) assert.equal(device, theirs.dev);
    }
    close(fd);
  });

  it('does not follow the last component, unless asked by path', () => {
    fs.symlinkSync('/proc', at('to-proc'));
    assert.equal(statx(dir, 'to-proc').mode & 0o170000, 0o120000);
    assert.equal(statxPath(AT_FDCWD, at('to-proc')).mode & 0o170000, 0o040000);
    assert.equal(statxIsMountRoot(), true);
    assert.equal(tryStatx(dir, 'none'), -Errno.ENOENT);
    assert.equal(statxIsMountRoot(), true, 'a miss leaves the record alone');
    assert.equal(tryStatx(-1, ''), -Errno.EBADF);
  });

  it('counts a file of 8 EiB less one', (t) => {
    withFile('huge', (fd) => {
      const result = tryFtruncate(fd, Number.MAX_SAFE_INTEGER);
      if (result === -Errno.EFBIG) t.skip('this filesystem has no such files');
      else assert.equal(statxFd(fd).size, Number.MAX_SAFE_INTEGER);
    });
    unlinkat(dir, 'huge');
  });
});

describe('names in directories', () => {
  it('makes, links, renames and removes', () => {
    mkdirat(dir, 'ns', 0o750);
    assert.equal(tryMkdirat(dir, 'ns', 0o750), -Errno.EEXIST);
    const ns = openat(dir, 'ns', O_PATH | O_DIRECTORY);
    symlinkat('t\xff\x01', ns, 'sym');
    assert.equal(readlinkat(ns, 'sym'), 't\xff\x01');
    const sym = openat(ns, 'sym', O_PATH | O_NOFOLLOW);
    assert.equal(readlinkat(sym, ''), 't\xff\x01');
    close(sym);
    throwsErrno(Errno.EINVAL, () => readlinkat(dir, 'ns'));
    linkat(ns, 'sym', dir, 'sym2');
    assert.equal(tryLinkat(ns, 'sym', dir, 'sym2'), -Errno.EEXIST);
    assert.equal(statx(dir, 'sym2').nlink, 2);
    assert.equal(tryRenameat2(ns, 'sym', dir, 'ns2', RENAME_EXCHANGE), -Errno.ENOENT);
    mknodat(dir, 'fifo', S_IFIFO | 0o600, 0);
    renameat2(dir, 'fifo', ns, 'sym', RENAME_EXCHANGE);
    assert.equal(statx(ns, 'sym').mode, S_IFIFO | 0o600);
    assert.equal(tryRenameat2(dir, 'fifo', ns, 'sym', RENAME_NOREPLACE), -Errno.EEXIST);
    assert.equal(tryUnlinkat(dir, 'ns', AT_REMOVEDIR), -Errno.ENOTEMPTY);
    assert.equal(tryUnlinkat(dir, 'ns'), -Errno.EISDIR);
    unlinkat(ns, 'sym');
    rmdirat(dir, 'ns');
    close(ns);
  });

  it('packs device numbers as the C library does', { skip: needsRoot }, () => {
    for (const [major, minor] of [
      [0, 0],
      [8, 1],
      [254, 256],
      [4095, 0xfffff],
    ] as const) {
      mknodat(dir, 'dev', S_IFCHR | 0o600, makedev(major, minor));
      const stat = statx(dir, 'dev');
      assert.deepEqual([stat.rdevMajor, stat.rdevMinor], [major, minor]);
      assert.equal(Number(fs.statSync(at('dev'), { bigint: true }).rdev), makedev(major, minor));
      unlinkat(dir, 'dev');
    }
    mknodat(dir, 'reg', S_IFREG | 0o640, 0);
    assert.equal(statx(dir, 'reg').mode & S_IFREG, S_IFREG);
  });

  it('gives a nameless file a name', () => {
    const fd = openat(dir, '.', O_TMPFILE | O_RDWR, 0o600);
    assert.equal(tryLinkFd(fd, dir, 'was-nameless'), 0);
    assert.equal(statx(dir, 'was-nameless').ino, statxFd(fd).ino);
    assert.equal(tryLinkFd(fd, dir, 'was-nameless'), -Errno.EEXIST);
    close(fd);
  });
});

describe('getdents64', () => {
  it('lists 5,000 names of any bytes and length, each once', () => {
    fs.mkdirSync(at('many'));
    const many = openat(dir, 'many', O_PATH | O_DIRECTORY);
    const expected = new Set<string>();
    for (let count = 0; count < 5000; count++) {
      const name = `${count}-\xff\x80\n${'\xe9'.repeat(count % 240)}`;
      expected.add(name);
      mknodat(many, name, S_IFREG | 0o600, 0);
    }
    mkdirat(many, '...', 0o700);
    mkdirat(many, '..x', 0o700);
    const listing = openat(many, '.', O_RDONLY | O_DIRECTORY);
    const entries = getdents64(listing);
    assert.equal(entries.length, 5002);
    const names = new Set(entries.map((entry) => entry.name));
    assert.equal(names.size, 5002);
    for (const name of expected) assert(names.has(name));
    const sample = entries.find((entry) => entry.name === '...')!;
    assert.equal(sample.type, 4);
    assert.equal(sample.ino, statx(many, '...').ino);
    assert.deepEqual(getdents64(listing), [], 'it stands at the end');
    assert.equal(tryLseek(listing, 0, 0), 0);
    assert.equal(getdents64(listing).length, 5002);
    throwsErrno(Errno.EBADF, () => getdents64(many));
    close(listing);
    close(many);
  });
});

describe('attributes', () => {
  for (const old of [false, true]) {
    it(`changes mode and times by name and descriptor${old ? ', as on an old kernel' : ''}`, () => {
      pretendNoFchmodat2(old);
      fs.writeFileSync(at('attr'), '');
      const opath = openat(dir, 'attr', O_PATH);
      assert.equal(tryFchmodat(dir, 'attr', 0o4711), 0);
      assert.equal(statx(dir, 'attr').mode & 0o7777, 0o4711);
      assert.equal(tryFchmodat(opath, '', 0o600), 0);
      assert.equal(statx(dir, 'attr').mode & 0o7777, 0o600);
      symlinkat('attr', dir, `sl${old}`);
      assert.equal(tryFchmodat(dir, `sl${old}`, 0o777), -Errno.EOPNOTSUPP);
      const times = { atimeSec: -7, atimeNsec: 999_999_999, mtimeSec: 4e9, mtimeNsec: 1 };
      assert.equal(tryUtimensat(dir, 'attr', times), 0);
      const stat = statxFd(opath);
      assert.deepEqual([stat.atimeSec, stat.atimeNsec], [-7, 999_999_999]);
      assert.deepEqual([stat.mtimeSec, stat.mtimeNsec], [4e9, 1]);
      const omit = { atimeSec: 0, atimeNsec: UTIME_OMIT, mtimeSec: 0, mtimeNsec: UTIME_NOW };
      assert.equal(tryUtimensat(opath, '', omit), 0);
      assert.equal(statxFd(opath).atimeSec, -7);
      assert(statxFd(opath).mtimeSec < 4e9);
      assert.equal(tryUtimensat(dir, `sl${old}`, times), 0);
      assert.equal(statx(dir, `sl${old}`).mtimeSec, 4e9);
      close(opath);
      pretendNoFchmodat2(false);
    });
  }

  it('changes owners, of a symlink its own', { skip: needsRoot }, () => {
    fs.writeFileSync(at('own'), '');
    symlinkat('own', dir, 'own-link');
    assert.equal(tryFchownat(dir, 'own-link', 11, 12), 0);
    assert.equal(statx(dir, 'own').uid, 0);
    assert.deepEqual([statx(dir, 'own-link').uid, statx(dir, 'own-link').gid], [11, 12]);
    const opath = openat(dir, 'own', O_PATH);
    assert.equal(tryFchownat(opath, '', KEEP_OWNER, 0xffff_fffe), 0);
    assert.deepEqual([statx(dir, 'own').uid, statx(dir, 'own').gid], [0, 0xffff_fffe]);
    close(opath);
  });
});

describe('data', () => {
  it('reads and writes by address, now, parked, and without a wait', async () => {
    const fd = openat(dir, 'io', O_CREAT | O_RDWR, 0o600);
    putText(fd, 'hello', 3);
    assert.equal(textOf(fd, 100), '\0\0\0hello');
    const arena = allocateArena(64);
    assert.equal(tryPreadNowait(fd, arena.address, 64, 3), 5);
    assert.equal(tryPread(fd, arena.address, 64, 100), 0);
    assert.equal(runSync(preadWait(fd, arena.address, 2, 3, arena.bytes)), 2);
    assert.equal(await runAsync(preadWait(fd, arena.address, 64, 4, arena.bytes)), 4);
    assert.equal(Buffer.from(arena.bytes.subarray(0, 4)).toString(), 'ello');
    assert.equal(await runAsync(pwriteWait(fd, arena.address, 4, 0, arena.bytes)), 4);
    assert.equal(textOf(fd, 100), 'ellollo\0'.slice(0, 4) + 'ello');
    assert.equal(await runAsync(preadWait(9999, arena.address, 1, 0, arena.bytes)), -Errno.EBADF);
    assert.equal(tryPwrite(fd, 1, 8, 0), -Errno.EFAULT);
    for (const wait of [fsyncWait, fdatasyncWait, syncfsWait]) {
      assert.equal(runSync(wait(fd)), 0);
      assert.equal(await runAsync(wait(fd)), 0);
      assert.equal(await runAsync(wait(9999)), -Errno.EBADF);
    }
    assert.equal(tryFsync(fd), 0);
    assert.equal(tryLseek(fd, 0, 0), 0);
    assert.equal(tryRead(fd, arena.address, 2), 2);
    assert.equal(tryWrite(fd, arena.address, 2), 2);
    close(fd);
  });

  it('gathers with writev', () => {
    withFile('gather', (fd) => {
      const arena = allocateArena(16);
      Buffer.from(arena.bytes.buffer).write('headtail');
      const vectors = new Scratch(32);
      vectors.putU64(0, arena.address + 4);
      vectors.putU64(2, 4);
      vectors.putU64(4, arena.address);
      vectors.putU64(6, 4);
      assert.equal(tryWritev(fd, vectors.address, 2), 8);
      assert.equal(textOf(fd, 16), 'tailhead');
    });
  });

  it('parks many calls at once', async () => {
    const fd = openat(dir, 'parked', O_CREAT | O_RDWR, 0o600);
    putText(fd, 'abcdefgh'.repeat(512));
    const arenas = Array.from({ length: 600 }, () => allocateArena(8));
    const reads = arenas.map(({ address, bytes }, slot) =>
      runAsync(preadWait(fd, address, 8, (slot % 512) * 8, bytes)),
    );
    assert.deepEqual(new Set(await Promise.all(reads)), new Set([8]));
    for (const { bytes } of arenas) assert.equal(Buffer.from(bytes).toString(), 'abcdefgh');
    close(fd);
  });

  it('waits on another thread for what another thread brings', async () => {
    const pipeCall = libc('int pipe(uintptr_t ends)');
    const ends = new Scratch(8);
    assert.equal(outcome(pipeCall(ends.address)), 0);
    const [reader, writer] = [ends.i32[0]!, ends.i32[1]!];
    const arena = allocateArena(8);
    const wait = new HostCall(
      'read',
      libc('int64_t read(int fd, uintptr_t b, size_t n)'),
      [reader, arena.address, 8],
      arena,
    );
    const over = new Promise<void>((resolve) => wait.park(resolve));
    tryWrite(writer, arena.address, 3);
    await over;
    assert.equal(wait.result, 3);
    close(reader);
    close(writer);
  });

  it('finds, makes and fills holes', () => {
    withFile('holes', (fd) => {
      assert.equal(tryFtruncate(fd, 1 << 20), 0);
      assert.equal(tryLseek(fd, 0, SEEK_DATA), -Errno.ENXIO);
      putText(fd, 'data', 1 << 19);
      assert.equal(tryLseek(fd, 0, SEEK_DATA), 1 << 19);
      assert.equal(tryLseek(fd, 1 << 19, SEEK_HOLE), (1 << 19) + 4096);
      const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      assert.equal(tryFallocate(fd, punch, 1 << 19, 4096), 0);
      assert.equal(textOf(fd, 4, 1 << 19), '\0\0\0\0');
      assert.equal(tryFallocate(fd, 0, 0, 1 << 21), 0);
      assert.equal(statxFd(fd).size, 1 << 21);
      assert.equal(tryFallocate(fd, 0, -1, 5), -Errno.EINVAL);
    });
  });

  it('copies inside the kernel', async () => {
    const from = openat(dir, 'cfr1', O_CREAT | O_RDWR, 0o600);
    const to = openat(dir, 'cfr2', O_CREAT | O_RDWR, 0o600);
    putText(from, 'copy me');
    assert.equal(tryCopyFileRange({ from, fromPosition: 5, to, toPosition: 1, length: 99 }), 2);
    assert.equal(textOf(to, 9), '\0me');
    const copy = { from, fromPosition: 0, to, toPosition: 0, length: 7 };
    assert.equal(await runAsync(copyFileRangeWait(copy)), 7);
    assert.equal(textOf(to, 9), 'copy me');
    const cloned = tryFiclone(to, from);
    assert(cloned === 0 || cloned === -Errno.EOPNOTSUPP || cloned === -Errno.EXDEV, String(cloned));
    close(from);
    close(to);
  });
});

describe('extended attributes', () => {
  for (const old of [false, true]) {
    it(`are bytes, by name and descriptor${old ? ', as on an old kernel' : ''}`, () => {
      pretendNoXattrat(old);
      const name = `x\xff${old}`;
      const value = new Uint8Array([0, 1, 255, 10]);
      const data = openat(dir, name, O_CREAT | O_RDWR, 0o644);
      const opath = openat(dir, name, O_PATH);
      const self = openat(dir, '.', O_PATH);
      const places: [number, string][] = [
        [dir, name],
        [data, ''],
        [opath, ''],
        [self, '.'],
        [self, ''],
      ];
      for (const [fd, at] of places) {
        assert.equal(tryGetxattr(fd, at, 'user.n\xe9'), -Errno.ENODATA);
        assert.equal(trySetxattr(fd, at, 'user.n\xe9', value, XATTR_CREATE), 0);
        assert.equal(trySetxattr(fd, at, 'user.n\xe9', value, XATTR_CREATE), -Errno.EEXIST);
        assert.equal(trySetxattr(fd, at, 'user.m', value, XATTR_REPLACE), -Errno.ENODATA);
        const length = tryGetxattr(fd, at, 'user.n\xe9');
        assert.deepEqual(xattrValue(length), value);
        assert.deepEqual(xattrNames(tryListxattr(fd, at)), ['user.n\xe9']);
        assert.equal(tryRemovexattr(fd, at, 'user.n\xe9'), 0);
        assert.equal(tryRemovexattr(fd, at, 'user.n\xe9'), -Errno.ENODATA);
        assert.deepEqual(xattrNames(tryListxattr(fd, at)), []);
      }
      assert.equal(trySetxattr(dir, name, 'user.big', new Uint8Array(65537), 0), -Errno.E2BIG);
      assert.equal(tryGetxattr(dir, 'none', 'user.x'), -Errno.ENOENT);
      for (const fd of [data, opath, self]) close(fd);
      pretendNoXattrat(false);
    });

    it(`of a symlink are its own${old ? ', as on an old kernel' : ''}`, { skip: needsRoot }, () => {
      pretendNoXattrat(old);
      const name = `xl${old}`;
      symlinkat('/etc/hostname', dir, name);
      const opath = openat(dir, name, O_PATH | O_NOFOLLOW);
      assert.equal(trySetxattr(dir, name, 'trusted.a', new Uint8Array([1]), 0), 0);
      assert.equal(trySetxattr(opath, '', 'trusted.b', new Uint8Array([2]), 0), 0);
      assert.deepEqual(xattrNames(tryListxattr(dir, name)).sort(), ['trusted.a', 'trusted.b']);
      assert.deepEqual(xattrNames(tryListxattr(opath, '')).sort(), ['trusted.a', 'trusted.b']);
      close(opath);
      pretendNoXattrat(false);
    });
  }
});

describe('filesystems', () => {
  it('statfs, flags, UUID', () => {
    const theirs = fs.statfsSync(base);
    const ours = fstatfs(dir);
    assert.deepEqual(
      [ours.bsize, ours.blocks, ours.files, filesystemType(dir)],
      [theirs.bsize, theirs.blocks, theirs.files, theirs.type],
    );
    withFile('flags', (fd) => {
      const uuid = filesystemUuid(fd);
      assert(uuid === undefined || uuid.length === 16);
      assert.equal(tryIoctl(fd, 0x5401, new Uint8Array(64)), -Errno.ENOTTY);
      assert.equal(filesystemUuid(dir), undefined, 'not of an O_PATH descriptor');
      try {
        assert.equal(ioctl(fd, FS_IOC_GETFLAGS, new Uint8Array(4), 4).length, 4);
      } catch (error) {
        assert.equal(errnoOf(error), Errno.ENOTTY);
      }
    });
  });

  it('handles lead back', { skip: needsRoot }, () => {
    fs.writeFileSync(at('handle'), 'h');
    const handle = tryNameToHandle(dir, 'handle');
    assert(typeof handle !== 'number');
    const opath = openat(dir, 'handle', O_PATH);
    assert.deepEqual(tryNameToHandle(opath, ''), handle);
    const mountFd = openat(dir, '.', O_RDONLY);
    const fd = tryOpenByHandle(mountFd, handle, O_RDONLY);
    assert.equal(textOf(fd, 5), 'h');
    close(fd);
    close(opath);
    unlinkat(dir, 'handle');
    assert.equal(tryOpenByHandle(mountFd, handle, O_RDONLY), -Errno.ESTALE);
    assert.equal(tryNameToHandle(dir, 'handle'), -Errno.ENOENT);
    close(mountFd);
  });

  it('mounts, clones, moves and unmounts', { skip: needsRoot }, () => {
    fs.mkdirSync(at('mnt'));
    fs.mkdirSync(at('mnt2'));
    fs.writeFileSync(at('mnt', 'under'), '');
    mount('none', at('mnt'), 'tmpfs', 0, 'size=1m,mode=0711');
    try {
      assert.equal(statxPath(AT_FDCWD, at('mnt')).mode & 0o777, 0o711);
      assert.equal(statxIsMountRoot(), true);
      const tree = tryOpenTree(AT_FDCWD, base, OPEN_TREE_CLONE);
      assert(tree >= 0);
      assert.equal(tryMountSetattr(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME), 0);
      // The private copy does not see the tmpfs that was mounted over.
      assert.equal(tryStatx(openat(tree, 'mnt', O_PATH), 'under'), 0);
      assert.equal(tryMkdirat(tree, 'x', 0o700), -Errno.EROFS);
      assert.equal(tryMoveMount(tree, AT_FDCWD, at('mnt2')), 0);
      close(tree);
      assert(fs.existsSync(at('mnt2', 'mnt2')));
    } finally {
      tryUmount2(at('mnt2'), MNT_DETACH);
      umount2(at('mnt'), MNT_DETACH);
    }
    assert.equal(tryUmount2(at('mnt'), 0), -Errno.EINVAL);
  });
});

describe('events', () => {
  it('inotify tells of names as bytes', () => {
    const fd = inotifyInit();
    assert.deepEqual(inotifyRead(fd), []);
    const watch = tryInotifyAddWatch(
      fd,
      `/proc/self/fd/${dir}`,
      IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO,
    );
    assert(watch > 0);
    mkdirat(dir, 'ev\xff', 0o700);
    renameat2(dir, 'ev\xff', dir, 'event');
    const events = inotifyRead(fd);
    assert.deepEqual(
      events.map((event) => event.name),
      ['ev\xff', 'ev\xff', 'event'],
    );
    assert.equal(events[1]!.cookie, events[2]!.cookie);
    assert.notEqual(events[0]!.mask & IN_CREATE, 0);
    assert.equal(events[0]!.watch, watch);
    assert.equal(tryInotifyRemoveWatch(fd, watch), 0);
    close(fd);
  });

  it('poll waits for what it is told to', () => {
    const one = eventfd();
    const two = eventfd();
    const set = new PollSet(3);
    set.set(0, one, POLLIN);
    set.set(2, two, POLLIN);
    assert.equal(set.wait(0), 0);
    assert.equal(tryEventfdDrain(two), -Errno.EAGAIN);
    eventfdSignal(two);
    eventfdSignal(two);
    assert.equal(set.wait(-1), 1);
    assert.deepEqual([set.revents(0), set.revents(1), set.revents(2)], [0, 0, POLLIN]);
    assert.equal(tryEventfdDrain(two), 2);
    assert.equal(set.wait(0), 0);
    close(one);
    close(two);
  });

  it('receives a descriptor from another process', async (t) => {
    const socketpair = libc('int socketpair(int domain, int type, int protocol, uintptr_t ends)');
    const ends = new Scratch(8);
    assert.equal(outcome(socketpair(1, 1, 0, ends.address)), 0);
    const [ours, theirs] = [ends.i32[0]!, ends.i32[1]!];
    fs.writeFileSync(at('sent'), 'sent over');
    const script = `import socket,sys;s=socket.socket(fileno=3);f=open(sys.argv[1]);socket.send_fds(s,[b'x'],[f.fileno()])`;
    const child = spawn('python3', ['-c', script, at('sent')], {
      stdio: ['ignore', 'ignore', 'inherit', theirs],
    });
    const code = await new Promise<number | null>((resolve) => {
      child.once('error', () => resolve(null));
      child.once('exit', resolve);
    });
    close(theirs);
    if (code === null) {
      close(ours);
      t.skip('no python3 to send with');
      return;
    }
    assert.equal(code, 0);
    const fd = tryReceiveDescriptor(ours);
    assert(fd >= 0);
    assert.equal(textOf(fd, 100), 'sent over');
    close(fd);
    assert.equal(tryReceiveDescriptor(ours), -Errno.ENOTCONN);
    close(ours);
  });
});

describe('process', () => {
  it('knows itself', () => {
    assert.equal(getpid(), process.pid);
    assert.equal(getuid(), process.getuid!());
    assert.equal(geteuid(), process.geteuid!());
    assert.equal(tryPrctl(3), 1, 'PR_GET_DUMPABLE');
    assert.equal(tryPrctl(-1), -Errno.EINVAL);
    const limit = raiseDescriptorLimit();
    assert.equal(getrlimit(RLIMIT_NOFILE).soft, limit);
    assert.equal(limit, getrlimit(RLIMIT_NOFILE).hard);
  });

  it('has clocks', () => {
    const time = now();
    assert(Math.abs(time.sec + time.nsec / 1e9 - Date.now() / 1000) < 60);
    const before = monotonicNs();
    assert(monotonicNs() >= before);
    assert(before > 0);
  });

  it('unshares its own umask', { skip: needsRoot }, () => {
    // In a child: the thread that runs tests must stay as it is.
    const code = `
      const { tryUnshare, CLONE_FS } = await import(${JSON.stringify(path.join(import.meta.dirname, 'mount.ts'))});
      process.exit(tryUnshare(CLONE_FS) === 0 ? 0 : 1);`;
    execFileSync(process.execPath, ['--input-type=module', '-e', code]);
    assert.equal(CLONE_FS, 0x200);
    assert.equal(tryUnshare(0), 0);
  });
});
