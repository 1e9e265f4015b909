/**
 * What POSIX and Linux promise of a tree and unions in user space are known to forget: names and
 * errors, who may do what, whose a new file is, times, holes, directories that change while read.
 */
import assert from 'node:assert/strict';
import {
  O_APPEND,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  SEEK_SET,
} from '../src/abi/fcntl.ts';
import { aclHex } from './support/acl.ts';
import type { Caller } from './support/caller.ts';
import { probeTests, type Probe } from './support/probe.ts';

const MIB = 1 << 20;
const ALICE = 11_001;
const BOB = 11_002;
const TEAM = 12_001;

/** security.capability, revision 2: cap_net_bind_service, effective and permitted. */
const CAPABILITY = '0100000200040000' + '00'.repeat(12);

const mode = async (c: Caller, path: string): Promise<number> => (await c.do('lstat', path)).mode & 0o7777;

const naming: Probe[] = [
  {
    name: '256-byte name is ENAMETOOLONG, 255 work',
    run: async ({ c, dir }) => {
      const long = `${dir}/${'n'.repeat(256)}`;
      const fits = `${dir}/${'n'.repeat(255)}`;
      await c.do('writeFile', `${dir}/f`, '');
      assert.equal(await c.code('lstat', long), 'ENAMETOOLONG');
      assert.equal(await c.code('open', long, O_RDONLY), 'ENAMETOOLONG');
      assert.equal(await c.code('open', long, O_RDWR | O_CREAT), 'ENAMETOOLONG');
      assert.equal(await c.code('mkdir', long), 'ENAMETOOLONG');
      assert.equal(await c.code('unlink', long), 'ENAMETOOLONG');
      assert.equal(await c.code('symlink', 'x', long), 'ENAMETOOLONG');
      assert.equal(await c.code('rename', `${dir}/f`, long), 'ENAMETOOLONG');
      assert.equal(await c.code('link', `${dir}/f`, long), 'ENAMETOOLONG');
      assert.equal(await c.code('rename', `${dir}/f`, fits), 'OK');
    },
    after: async ({ c, dir }) => assert.deepEqual(await c.do('names', dir), ['n'.repeat(255)]),
  },
  {
    name: 'names that are not UTF-8',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/\xff\xfe`, 'lower');
      await c.do('writeFile', `${dir}/\xc3\xa9`, 'e acute');
      await c.do('symlink', '\x80 target', `${dir}/\x80`);
    },
    run: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['\x80', '\xc3\xa9', '\xff\xfe']);
      assert.equal(await c.do('readFile', `${dir}/\xff\xfe`), 'lower');
      assert.equal(await c.do('readlink', `${dir}/\x80`), '\x80 target');
      await c.do('writeFile', `${dir}/\xff\xfe`, 'upper');
      await c.do('rename', `${dir}/\xff\xfe`, `${dir}/\x01\xf0\x28`);
      await c.do('mkdir', `${dir}/\xed\xa0\x80`);
      await c.do('setxattr', `${dir}/\xed\xa0\x80`, 'user.\xe9', '\x00\xff');
      await c.do('unlink', `${dir}/\xc3\xa9`);
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['\x01\xf0\x28', '\x80', '\xed\xa0\x80']);
      assert.equal(await c.do('readFile', `${dir}/\x01\xf0\x28`), 'upper');
      assert.equal(await c.do('getxattr', `${dir}/\xed\xa0\x80`, 'user.\xe9'), '\x00\xff');
    },
  },
  {
    name: 'names that mean something to branches are ordinary or refused, never eaten',
    run: async ({ c, dir }) => {
      await c.do('writeFile', `${dir}/x`, 'x');
      const code = await c.code('writeFile', `${dir}/.wh.x`, 'w');
      assert.equal(await c.do('readFile', `${dir}/x`), 'x');
      if (code === 'OK') assert.deepEqual(await c.do('names', dir), ['.wh.x', 'x']);
      else assert.deepEqual(await c.do('names', dir), ['x']);
    },
    after: async ({ c, dir }) => assert.equal(await c.do('readFile', `${dir}/x`), 'x'),
  },
  {
    name: 'unknown ioctl is ENOTTY',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, '')),
    run: async ({ c, dir }) => {
      for (const path of [`${dir}/f`, dir]) {
        const fd = await c.do('open', path, O_RDONLY);
        assert.equal(await c.code('ioctl', fd, 0x7a63), 'ENOTTY');
        assert.equal(await c.code('ioctl', fd, 0x5401), 'ENOTTY'); // TCGETS: isatty(3).
        await c.do('close', fd);
      }
    },
  },
  {
    name: 'errors of open, in their order',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'f');
      await c.do('mkdir', `${dir}/d`);
      await c.do('symlink', 'f', `${dir}/l`);
      await c.do('symlink', 'nowhere', `${dir}/dangling`);
    },
    run: async ({ c, dir }) => {
      assert.equal(await c.code('open', `${dir}/f`, O_RDWR | O_CREAT | O_EXCL), 'EEXIST');
      assert.equal(await c.code('open', `${dir}/d`, O_RDWR), 'EISDIR');
      assert.equal(await c.code('open', `${dir}/f`, O_RDONLY | O_DIRECTORY), 'ENOTDIR');
      assert.equal(await c.code('open', `${dir}/l`, O_RDONLY | O_NOFOLLOW), 'ELOOP');
      assert.equal(await c.code('open', `${dir}/dangling`, O_RDWR | O_CREAT | O_EXCL), 'EEXIST');
      assert.equal(await c.code('open', `${dir}/f/x`, O_RDONLY), 'ENOTDIR');
      assert.equal(await c.code('mkdir', `${dir}/f`), 'EEXIST');
      assert.equal(await c.code('rmdir', `${dir}/f`), 'ENOTDIR');
      assert.equal(await c.code('unlink', `${dir}/d`), 'EISDIR');
      assert.equal(await c.code('rename', `${dir}/f`, `${dir}/d`), 'EISDIR');
      assert.equal(await c.code('rename', `${dir}/d`, `${dir}/f`), 'ENOTDIR');
      assert.equal(await c.code('rename', `${dir}/d`, `${dir}/d/in`), 'EINVAL');
      assert.equal(await c.code('link', `${dir}/d`, `${dir}/e`), 'EPERM');
      assert.equal(await c.code('link', `${dir}/f`, `${dir}/l`), 'EEXIST');
      assert.equal(await c.code('writeFile', `${dir}/dangling`, 'through'), 'OK');
      assert.equal(await c.do('readFile', `${dir}/nowhere`), 'through');
    },
  },
];

const naming2: Probe[] = [
  {
    name: 'RENAME_NOREPLACE',
    prepare: async (c, dir) => {
      for (const name of ['a', 'b', 'gone']) await c.do('writeFile', `${dir}/${name}`, name);
    },
    run: async ({ c, dir }) => {
      assert.equal(await c.code('rename', `${dir}/a`, `${dir}/b`, RENAME_NOREPLACE), 'EEXIST');
      await c.do('unlink', `${dir}/gone`);
      assert.equal(await c.code('rename', `${dir}/a`, `${dir}/gone`, RENAME_NOREPLACE), 'OK');
      assert.equal(await c.do('readFile', `${dir}/gone`), 'a');
      assert.equal(await c.do('readFile', `${dir}/b`), 'b');
    },
    after: async ({ c, dir }) => assert.deepEqual(await c.do('names', dir), ['b', 'gone']),
  },
  {
    name: 'fstat of a renamed-over file',
    except: { overlay: 'measured: the number of links stays at 1' },
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/a`, 'new one');
      await c.do('writeFile', `${dir}/b`, 'renamed over');
    },
    run: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/b`, O_RDONLY);
      const before = await c.do('fstat', fd);
      await c.do('rename', `${dir}/a`, `${dir}/b`);
      const stat = await c.do('fstat', fd);
      assert.deepEqual([stat.ino, stat.nlink, stat.size], [before.ino, 0, 12]);
      await c.do('dropPages', fd);
      assert.equal(await c.do('pread', fd, 50, 0), 'renamed over');
      assert.equal(await c.do('readFile', `${dir}/b`), 'new one');
      await c.do('close', fd);
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['b']);
      assert.equal(await c.do('readFile', `${dir}/b`), 'new one');
    },
  },
  {
    name: 'directories: full ones stay, empty ones are replaced',
    prepare: async (c, dir) => {
      for (const d of ['full', 'empty', 'moved', 'emptied']) await c.do('mkdir', `${dir}/${d}`);
      for (const d of ['full', 'moved', 'emptied']) await c.do('writeFile', `${dir}/${d}/f`, d);
    },
    run: async ({ c, dir }) => {
      assert.equal(await c.code('rmdir', `${dir}/full`), 'ENOTEMPTY');
      assert.equal(await c.code('rename', `${dir}/moved`, `${dir}/full`), 'ENOTEMPTY');
      await c.do('unlink', `${dir}/emptied/f`);
      assert.equal(await c.code('rename', `${dir}/moved`, `${dir}/emptied`), 'OK');
      assert.deepEqual(await c.do('names', `${dir}/emptied`), ['f']);
      assert.equal(await c.do('readFile', `${dir}/emptied/f`), 'moved');
      assert.equal(await c.code('rename', `${dir}/emptied`, `${dir}/empty`), 'OK');
      await c.do('unlink', `${dir}/full/f`);
      assert.equal(await c.code('rmdir', `${dir}/full`), 'OK');
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['empty']);
      assert.equal(await c.do('readFile', `${dir}/empty/f`), 'moved');
    },
  },
  {
    name: 'xattrs on a symlink do not follow',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, '');
      await c.do('setxattr', `${dir}/f`, 'trusted.whose', 'file');
      await c.do('symlink', 'f', `${dir}/l`);
      await c.do('symlink', `${dir}/loop`, `${dir}/loop`);
    },
    run: async ({ c, dir }) => {
      assert.equal(await c.code('getxattr', `${dir}/l`, 'trusted.whose'), 'ENODATA');
      assert.equal(await c.code('setxattr', `${dir}/l`, 'user.x', 'v'), 'EPERM');
      for (const name of ['l', 'loop']) {
        await c.do('setxattr', `${dir}/${name}`, 'trusted.whose', 'link');
        assert.deepEqual(await c.do('listxattr', `${dir}/${name}`), ['trusted.whose']);
      }
      assert.equal(await c.do('getxattr', `${dir}/f`, 'trusted.whose'), 'file');
      assert.equal(await c.code('setxattr', `${dir}/f`, 'trusted.whose', 'x', 1), 'EEXIST');
      assert.equal(await c.code('setxattr', `${dir}/f`, 'trusted.none', 'x', 2), 'ENODATA');
      assert.equal(await c.code('removexattr', `${dir}/f`, 'trusted.none'), 'ENODATA');
    },
    after: async ({ c, dir }) => {
      assert.equal(await c.do('getxattr', `${dir}/l`, 'trusted.whose'), 'link');
      assert.equal(await c.do('getxattr', `${dir}/f`, 'trusted.whose'), 'file');
      assert.equal(await c.do('readlink', `${dir}/l`), 'f');
    },
  },
  {
    name: 'a device that looks like a whiteout corrupts nothing',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/kept`, 'kept')),
    run: async ({ c, dir, kept }) => {
      const code = await c.code('mknod', `${dir}/w`, 0o020644, 0);
      assert.ok(code === 'OK' || code === 'EPERM', code);
      kept.set('names', code === 'OK' ? ['kept', 'w'] : ['kept']);
      assert.equal(await c.code('mknod', `${dir}/kept`, 0o020644, 0), 'EEXIST');
      assert.deepEqual(await c.do('names', dir), kept.get('names'));
      await c.do('mknod', `${dir}/null`, 0o020666, 0x103);
      assert.equal((await c.do('lstat', `${dir}/null`)).rdev, 0x103);
      await c.do('unlink', `${dir}/null`);
    },
    after: async ({ c, dir, kept }) => {
      assert.deepEqual(await c.do('names', dir), kept.get('names'));
      assert.equal(await c.do('readFile', `${dir}/kept`), 'kept');
    },
  },
];

const access: Probe[] = [
  {
    name: 'supplementary groups count',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('lchown', `${dir}/d`, 0, TEAM);
      await c.do('chmod', `${dir}/d`, 0o770);
      await c.do('writeFile', `${dir}/d/f`, 'team');
      await c.do('lchown', `${dir}/d/f`, 0, TEAM);
      await c.do('chmod', `${dir}/d/f`, 0o660);
    },
    run: async ({ c, dir }) => {
      await c.as(BOB, BOB, [], async () => {
        assert.equal(await c.code('readFile', `${dir}/d/f`), 'EACCES');
        assert.equal(await c.code('writeFile', `${dir}/d/g`, ''), 'EACCES');
      });
      await c.as(ALICE, ALICE, [1, 2, 3, TEAM], async () => {
        assert.equal(await c.do('readFile', `${dir}/d/f`), 'team');
        assert.equal(await c.code('writeFile', `${dir}/d/f`, 'alice'), 'OK');
        assert.equal(await c.code('writeFile', `${dir}/d/g`, ''), 'OK');
        assert.equal(await c.code('chmod', `${dir}/d/f`, 0o666), 'EPERM');
      });
      const [f, g] = [await c.do('lstat', `${dir}/d/f`), await c.do('lstat', `${dir}/d/g`)];
      assert.deepEqual([f.uid, f.gid, f.mode & 0o7777], [0, TEAM, 0o660]);
      assert.deepEqual([g.uid, g.gid], [ALICE, ALICE]);
    },
    after: async ({ c, dir }) => {
      const f = await c.do('lstat', `${dir}/d/f`);
      assert.deepEqual([f.uid, f.gid, f.mode & 0o7777], [0, TEAM, 0o660]);
    },
  },
  {
    name: 'setgid directory hands down its group',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('lchown', `${dir}/d`, 0, TEAM);
      await c.do('chmod', `${dir}/d`, 0o2777);
    },
    run: async ({ c, dir }) => {
      await c.as(ALICE, ALICE, [], async () => {
        await c.do('writeFile', `${dir}/d/f`, '');
        await c.do('mkdir', `${dir}/d/sub`, 0o755);
        await c.do('mkdir', `${dir}/d/sub/sub`, 0o755);
        await c.do('symlink', 'x', `${dir}/d/l`);
        await c.do('mknod', `${dir}/d/fifo`, 0o010644);
      });
      for (const name of ['f', 'sub', 'sub/sub', 'l', 'fifo']) {
        const stat = await c.do('lstat', `${dir}/d/${name}`);
        assert.deepEqual([stat.uid, stat.gid], [ALICE, TEAM], name);
      }
      assert.equal(await mode(c, `${dir}/d/sub/sub`), 0o2755);
      assert.equal(await mode(c, `${dir}/d/f`), 0o666);
    },
  },
  {
    name: 'umask counts, unless a default ACL stands in for it',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/acl`);
      const acl = aclHex([['userObj', 7], ['user', 6, ALICE], ['groupObj', 5], ['mask', 7], ['other', 0]]);
      await c.do('setxattrHex', `${dir}/acl`, 'system.posix_acl_default', acl);
    },
    run: async ({ c, dir }) => {
      await c.do('umask', 0o027);
      try {
        for (const d of [dir, `${dir}/acl`]) {
          await c.do('writeFile', `${d}/f`, '', 0o666);
          await c.do('mkdir', `${d}/d`, 0o777);
          await c.do('mknod', `${d}/p`, 0o010666);
        }
      } finally {
        await c.do('umask', 0);
      }
      assert.deepEqual([await mode(c, `${dir}/f`), await mode(c, `${dir}/d`), await mode(c, `${dir}/p`)], [0o640, 0o750, 0o640]);
      assert.deepEqual(
        [await mode(c, `${dir}/acl/f`), await mode(c, `${dir}/acl/d`), await mode(c, `${dir}/acl/p`)],
        [0o660, 0o770, 0o660],
      );
    },
    after: async ({ c, dir }) => {
      assert.equal(await mode(c, `${dir}/acl/f`), 0o660);
      assert.deepEqual(await c.do('listxattr', `${dir}/acl/f`), ['system.posix_acl_access']);
      assert.deepEqual(await c.do('listxattr', `${dir}/acl/d`), [
        'system.posix_acl_access',
        'system.posix_acl_default',
      ]);
      const wanted = aclHex([['userObj', 6], ['user', 6, ALICE], ['groupObj', 5], ['mask', 6], ['other', 0]]);
      assert.equal(await c.do('getxattrHex', `${dir}/acl/f`, 'system.posix_acl_access'), wanted);
      await c.as(ALICE, ALICE, [], async () => {
        assert.equal(await c.code('writeFile', `${dir}/acl/f`, 'by the ACL'), 'OK');
      });
      await c.as(BOB, BOB, [], async () => assert.equal(await c.code('readFile', `${dir}/acl/f`), 'EACCES'));
    },
  },
  {
    name: 'access ACL of a lower file decides, survives copy-up, and chmod changes its mask',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'acl');
      await c.do('chmod', `${dir}/f`, 0o600);
      const acl = aclHex([['userObj', 6], ['user', 6, ALICE], ['groupObj', 0], ['mask', 6], ['other', 0]]);
      await c.do('setxattrHex', `${dir}/f`, 'system.posix_acl_access', acl);
    },
    run: async ({ c, dir }) => {
      await c.as(BOB, BOB, [], async () => assert.equal(await c.code('readFile', `${dir}/f`), 'EACCES'));
      await c.as(ALICE, ALICE, [], async () => {
        assert.equal(await c.code('writeFile', `${dir}/f`, 'alice'), 'OK');
      });
      assert.equal(await mode(c, `${dir}/f`), 0o660);
      await c.do('chmod', `${dir}/f`, 0o640);
      await c.as(ALICE, ALICE, [], async () => {
        assert.equal(await c.do('readFile', `${dir}/f`), 'alice');
        assert.equal(await c.code('open', `${dir}/f`, O_RDWR), 'EACCES');
      });
    },
    after: async ({ c, dir }) => {
      const wanted = aclHex([['userObj', 6], ['user', 6, ALICE], ['groupObj', 0], ['mask', 4], ['other', 0]]);
      assert.equal(await c.do('getxattrHex', `${dir}/f`, 'system.posix_acl_access'), wanted);
      await c.as(ALICE, ALICE, [], async () => assert.equal(await c.code('open', `${dir}/f`, O_RDWR), 'EACCES'));
    },
  },
  {
    name: 'setuid and setgid are cleared by a write of an ordinary user',
    prepare: async (c, dir) => {
      for (const name of ['written', 'truncated', 'opened', 'root', 'owned']) {
        await c.do('writeFile', `${dir}/${name}`, 'content');
        await c.do('chmod', `${dir}/${name}`, 0o6777);
      }
    },
    run: async ({ c, dir }) => {
      await c.as(ALICE, ALICE, [], async () => {
        const fd = await c.do('open', `${dir}/written`, O_RDWR);
        await c.do('pwrite', fd, 'x', 0);
        await c.do('close', fd);
        await c.do('truncate', `${dir}/truncated`, 1);
        await c.do('close', await c.do('open', `${dir}/opened`, O_WRONLY | O_TRUNC));
      });
      const fd = await c.do('open', `${dir}/root`, O_RDWR);
      await c.do('pwrite', fd, 'x', 0);
      await c.do('close', fd);
      await c.do('lchown', `${dir}/owned`, ALICE, ALICE);
      assert.equal(await mode(c, `${dir}/written`), 0o777);
      assert.equal(await mode(c, `${dir}/truncated`), 0o777);
      assert.equal(await mode(c, `${dir}/opened`), 0o777);
      assert.equal(await mode(c, `${dir}/root`), 0o6777);
      assert.equal(await mode(c, `${dir}/owned`), 0o777);
    },
    after: async ({ c, dir }) => {
      assert.equal(await mode(c, `${dir}/written`), 0o777);
      assert.equal(await mode(c, `${dir}/opened`), 0o777);
      assert.equal(await mode(c, `${dir}/root`), 0o6777);
      assert.equal(await mode(c, `${dir}/owned`), 0o777);
    },
  },
  {
    name: 'capabilities: kept by copy-up, dropped by a write and a chown',
    prepare: async (c, dir) => {
      for (const name of ['moded', 'written', 'owned', 'linked']) {
        await c.do('writeFile', `${dir}/${name}`, 'program');
        await c.do('setxattrHex', `${dir}/${name}`, 'security.capability', CAPABILITY);
      }
    },
    run: async ({ c, dir }) => {
      await c.do('chmod', `${dir}/moded`, 0o755);
      await c.do('link', `${dir}/linked`, `${dir}/linked2`);
      assert.equal(await c.do('getxattrHex', `${dir}/moded`, 'security.capability'), CAPABILITY);
      assert.equal(await c.do('getxattrHex', `${dir}/linked2`, 'security.capability'), CAPABILITY);
      const fd = await c.do('open', `${dir}/written`, O_RDWR);
      await c.do('pwrite', fd, 'P', 0);
      await c.do('close', fd);
      await c.do('lchown', `${dir}/owned`, ALICE, ALICE);
      for (const name of ['written', 'owned']) {
        assert.equal(await c.code('getxattrHex', `${dir}/${name}`, 'security.capability'), 'ENODATA', name);
      }
    },
    after: async ({ c, dir }) => {
      assert.equal(await c.do('getxattrHex', `${dir}/moded`, 'security.capability'), CAPABILITY);
      for (const name of ['written', 'owned']) {
        assert.equal(await c.code('getxattrHex', `${dir}/${name}`, 'security.capability'), 'ENODATA', name);
      }
    },
  },
  {
    name: 'sticky directories',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/tmp`);
      await c.do('chmod', `${dir}/tmp`, 0o1777);
      for (const name of ['alices', 'roots']) await c.do('writeFile', `${dir}/tmp/${name}`, name);
      await c.do('lchown', `${dir}/tmp/alices`, ALICE, ALICE);
    },
    run: async ({ c, dir }) => {
      await c.as(BOB, BOB, [], async () => {
        assert.equal(await c.code('unlink', `${dir}/tmp/alices`), 'EPERM');
        assert.equal(await c.code('rename', `${dir}/tmp/roots`, `${dir}/tmp/x`), 'EPERM');
        await c.do('writeFile', `${dir}/tmp/bobs`, '');
        assert.equal(await c.code('rename', `${dir}/tmp/bobs`, `${dir}/tmp/alices`), 'EPERM');
      });
      await c.as(ALICE, ALICE, [], async () => {
        assert.equal(await c.code('unlink', `${dir}/tmp/alices`), 'OK');
        assert.equal(await c.code('unlink', `${dir}/tmp/bobs`), 'EPERM');
      });
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', `${dir}/tmp`), ['bobs', 'roots']);
      assert.equal(await mode(c, `${dir}/tmp`), 0o1777);
    },
  },
];

const data: Probe[] = [
  {
    name: 'times to the nanosecond',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('writeFile', `${dir}/d/f`, 'f');
      await c.do('symlink', 'f', `${dir}/l`);
      for (const name of ['d/f', 'l', 'd']) {
        await c.do('utimens', `${dir}/${name}`, '1000000000000000001', '1000000000999999999');
      }
    },
    run: async ({ c, dir }) => {
      await c.do('lchown', `${dir}/l`, ALICE, ALICE);
      await c.do('lchown', `${dir}/d`, ALICE, ALICE);
      await c.do('link', `${dir}/d/f`, `${dir}/g`);
      for (const name of ['d', 'l', 'g']) {
        const { mtimeNs } = await c.do('lstat', `${dir}/${name}`);
        assert.equal(mtimeNs, '1000000000999999999', name);
      }
      const fd = await c.do('open', `${dir}/d/f`, O_RDWR);
      await c.do('pwrite', fd, 'F', 0);
      await c.do('futimens', fd, '5', '1500000000000000007');
      await c.do('close', fd);
      assert.equal((await c.do('lstat', `${dir}/g`)).mtimeNs, '1500000000000000007');
      await c.do('utimens', `${dir}/l`, null, '1600000000000000009');
    },
    after: async ({ c, dir }) => {
      assert.equal((await c.do('lstat', `${dir}/g`)).mtimeNs, '1500000000000000007');
      assert.equal((await c.do('lstat', `${dir}/g`)).atimeNs, '5');
      const l = await c.do('lstat', `${dir}/l`);
      assert.deepEqual([l.atimeNs, l.mtimeNs, l.uid], ['1000000000000000001', '1600000000000000009', ALICE]);
      assert.equal((await c.do('lstat', `${dir}/d`)).mtimeNs, '1000000000999999999');
    },
  },
  {
    name: 'a write moves mtime, and a directory sees its names change',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('writeFile', `${dir}/d/f`, 'f');
      for (const name of ['d/f', 'd']) await c.do('utimens', `${dir}/${name}`, '1', '1000000000000000000');
    },
    run: async ({ c, dir, kept }) => {
      await c.do('writeFile', `${dir}/d/f`, 'F');
      assert.equal((await c.do('lstat', `${dir}/d`)).mtimeNs, '1000000000000000000');
      await c.do('unlink', `${dir}/d/f`);
      const { mtimeNs } = await c.do('lstat', `${dir}/d`);
      assert.ok(BigInt(mtimeNs) > 1_700_000_000_000_000_000n, mtimeNs);
      await c.do('writeFile', `${dir}/d/g`, 'g');
      kept.set('d', (await c.do('lstat', `${dir}/d`)).mtimeNs);
      kept.set('g', (await c.do('lstat', `${dir}/d/g`)).mtimeNs);
    },
    after: async ({ c, dir, kept }) => {
      assert.equal((await c.do('lstat', `${dir}/d`)).mtimeNs, kept.get('d'));
      assert.equal((await c.do('lstat', `${dir}/d/g`)).mtimeNs, kept.get('g'));
    },
  },
  {
    name: 'a write moves the mtime of a file whose metadata alone was copied up',
    prepare: async (c, dir) => {
      for (const name of ['now', 'later', 'x', 'y']) {
        await c.do('writeFile', `${dir}/${name}`, 'content');
        await c.do('utimens', `${dir}/${name}`, '1', '1000000000000000000');
      }
    },
    run: async ({ c, dir }) => {
      await c.do('chmod', `${dir}/now`, 0o600);
      await c.do('chmod', `${dir}/later`, 0o600);
      await c.do('rename', `${dir}/x`, `${dir}/y`, RENAME_EXCHANGE);
      await c.do('writeFile', `${dir}/now`, 'CONTENT');
      assert.ok((await c.do('lstat', `${dir}/now`)).mtimeNs > '17', 'now');
    },
    after: async ({ c, dir }) => {
      for (const name of ['now', 'later', 'x']) {
        const fd = await c.do('open', `${dir}/${name}`, O_RDWR | O_CREAT);
        await c.do('write', fd, 'NEW');
        assert.ok((await c.do('lstat', `${dir}/${name}`)).mtimeNs > '17', name);
        await c.do('fsync', fd);
        assert.ok((await c.do('lstat', `${dir}/${name}`)).mtimeNs > '17', `${name} synced`);
        await c.do('close', fd);
      }
    },
  },
  {
    name: 'trusted attributes are for the privileged',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, '');
      await c.do('setxattr', `${dir}/f`, 'trusted.secret', 'x');
      await c.do('setxattr', `${dir}/f`, 'user.open', 'y');
    },
    run: async ({ c, dir }) => {
      await c.as(ALICE, ALICE, [], async () => {
        assert.deepEqual(await c.do('listxattr', `${dir}/f`), ['user.open']);
        assert.equal(await c.code('getxattr', `${dir}/f`, 'trusted.secret'), 'ENODATA');
      });
      assert.deepEqual(await c.do('listxattr', `${dir}/f`), ['trusted.secret', 'user.open']);
    },
  },
  {
    name: 'holes stay holes on copy-up',
    prepare: async (c, dir) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR | O_CREAT);
      await c.do('ftruncate', fd, 64 * MIB);
      await c.do('pwrite', fd, 'start', 0);
      await c.do('pwrite', fd, 'late', 40 * MIB);
      await c.do('close', fd);
    },
    run: async ({ c, dir, upper }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR);
      await c.do('pwrite', fd, 'S', 0);
      await c.do('fsync', fd);
      await c.do('close', fd);
      const segments = await c.do('segments', `${dir}/f`);
      assert.deepEqual(segments.map(([start]) => start), [0, 40 * MIB]);
      assert.ok((await c.do('lstat', `${upper ?? dir}/f`)).blocks * 512 <= 2 * MIB);
      assert.ok((await c.do('lstat', `${dir}/f`)).blocks * 512 <= 2 * MIB);
    },
    after: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDONLY);
      assert.equal(await c.do('pread', fd, 6, 0), 'Start\0');
      assert.equal(await c.do('pread', fd, 5, 40 * MIB), 'late\0');
      await c.do('close', fd);
    },
  },
  {
    name: 'truncate, append and write past the end',
    prepare: async (c, dir) => {
      for (const name of ['shorter', 'longer', 'appended', 'far', 'emptied']) {
        await c.do('writeFile', `${dir}/${name}`, 'abcdefgh'.repeat(1024));
      }
    },
    run: async ({ c, dir }) => {
      await c.do('truncate', `${dir}/shorter`, 5);
      await c.do('truncate', `${dir}/shorter`, 10);
      await c.do('truncate', `${dir}/longer`, 10_000);
      const append = await c.do('open', `${dir}/appended`, O_WRONLY | O_APPEND);
      const other = await c.do('open', `${dir}/appended`, O_WRONLY | O_APPEND);
      await c.do('write', append, 'one');
      await c.do('write', other, 'two');
      await c.do('write', append, 'three');
      const far = await c.do('open', `${dir}/far`, O_RDWR);
      await c.do('pwrite', far, 'far', 20_000);
      await c.do('close', await c.do('open', `${dir}/emptied`, O_RDWR | O_TRUNC));
      for (const fd of [append, other, far]) await c.do('close', fd);
      assert.equal(await c.do('readFile', `${dir}/shorter`), 'abcde\0\0\0\0\0');
      assert.equal((await c.do('readFile', `${dir}/appended`)).slice(8192), 'onetwothree');
    },
    after: async ({ c, dir }) => {
      assert.equal(await c.do('readFile', `${dir}/shorter`), 'abcde\0\0\0\0\0');
      assert.equal(await c.do('readFile', `${dir}/longer`), 'abcdefgh'.repeat(1024) + '\0'.repeat(1808));
      assert.equal((await c.do('readFile', `${dir}/appended`)).slice(8190), 'ghonetwothree');
      assert.equal((await c.do('readFile', `${dir}/far`)).slice(8190), 'gh' + '\0'.repeat(11808) + 'far');
      assert.equal(await c.do('readFile', `${dir}/emptied`), '');
    },
  },
  {
    name: 'copy_file_range from a lower file',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, '0123456789'.repeat(2000))),
    run: async ({ c, dir }) => {
      const from = await c.do('open', `${dir}/f`, O_RDWR);
      const to = await c.do('open', `${dir}/g`, O_RDWR | O_CREAT);
      for (let done = 0; done < 15_000; ) {
        done += await c.do('copyRange', from, 3 + done, to, done, 15_000 - done);
      }
      assert.equal(await c.do('copyRange', from, 20_000, to, 15_000, 100), 0);
      await c.do('pwrite', from, 'XX', 3);
      assert.equal(await c.do('pread', to, 4, 0), '3456');
      await c.do('close', from);
      await c.do('close', to);
    },
    after: async ({ c, dir }) => {
      assert.equal(await c.do('readFile', `${dir}/g`), '0123456789'.repeat(2000).slice(3, 15_003));
      assert.equal((await c.do('readFile', `${dir}/f`)).slice(0, 8), '012XX567');
    },
  },
  {
    name: 'fifos, sockets and devices copy up as what they are',
    prepare: async (c, dir) => {
      await c.do('mknod', `${dir}/fifo`, 0o010640);
      await c.do('mknod', `${dir}/socket`, 0o140600);
      await c.do('mknod', `${dir}/null`, 0o020666, 0x103);
      await c.do('symlink', 'a target', `${dir}/link`);
    },
    run: async ({ c, dir }) => {
      for (const name of ['fifo', 'socket', 'null', 'link']) await c.do('lchown', `${dir}/${name}`, ALICE, BOB);
      await c.do('link', `${dir}/fifo`, `${dir}/fifo2`);
      await c.do('rename', `${dir}/link`, `${dir}/link2`);
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['fifo', 'fifo2', 'link2', 'null', 'socket']);
      const modes = { fifo: 0o010640, fifo2: 0o010640, socket: 0o140600, null: 0o020666 };
      for (const [name, wanted] of Object.entries(modes)) {
        const stat = await c.do('lstat', `${dir}/${name}`);
        assert.deepEqual([stat.mode, stat.uid, stat.gid], [wanted, ALICE, BOB], name);
      }
      assert.equal((await c.do('lstat', `${dir}/null`)).rdev, 0x103);
      assert.equal(await c.do('readlink', `${dir}/link2`), 'a target');
    },
  },
  {
    name: 'locks are seen by another descriptor',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, '')),
    run: async ({ c, dir }) => {
      const one = await c.do('open', `${dir}/f`, O_RDONLY);
      const two = await c.do('open', `${dir}/f`, O_RDWR);
      await c.do('flock', one, 2);
      assert.equal(await c.code('flock', two, 2 | 4), 'EAGAIN');
      await c.do('close', one);
      assert.equal(await c.code('flock', two, 2 | 4), 'OK');
      await c.do('close', two);
    },
  },
];

const BIG = 100_000;

/** Every name of a big directory once, though it changes while it is read. */
const bigDirectory: Probe = {
  name: `a directory of ${BIG} that changes while it is read`,
  prepare: async (c, dir) => {
    for (let i = 0; i < BIG; i += 5000) {
      await c.batch(
        Array.from({ length: 5000 }, (_, k) => ['mknod', `${dir}/f${i + k}`, 0o100644] as const),
      );
    }
  },
  run: async ({ c, dir, kept }) => {
    const fd = await c.do('open', dir, O_RDONLY | O_DIRECTORY);
    const early: string[] = [];
    let cookie = '';
    while (early.length < BIG / 2) {
      const some = await c.do('getdents', fd, 8192);
      early.push(...some.map((d) => d.name));
      cookie = some.at(-1)!.off;
    }
    const seen = new Set(early);
    assert.equal(seen.size, early.length, 'a name twice');
    const unread = Array.from({ length: BIG }, (_, i) => `f${i}`).filter((n) => !seen.has(n));
    const removed = new Set([...unread.slice(0, 500), ...early.filter((n) => n.startsWith('f')).slice(0, 500)]);
    await c.batch([...removed].map((n) => ['unlink', `${dir}/${n}`] as const));
    await c.do('manyFiles', dir, 'new', 500);

    const rest = async (): Promise<string[]> => {
      const names: string[] = [];
      for (;;) {
        const some = await c.do('getdents', fd, 32768);
        if (some.length === 0) return names;
        names.push(...some.map((d) => d.name));
      }
    };
    const late = await rest();
    assert.equal(new Set(late).size, late.length, 'a name twice');
    for (const name of late) assert.ok(!seen.has(name), `${name} again`);
    const lateSet = new Set(late);
    const missed = unread.filter((n) => !removed.has(n) && !lateSet.has(n));
    assert.deepEqual(missed.slice(0, 10), [], `${missed.length} names were never read`);

    await c.do('lseek', fd, Number(cookie), SEEK_SET);
    const again = new Set(await rest());
    assert.deepEqual(late.filter((n) => !n.startsWith('new') && !again.has(n) && !removed.has(n)).slice(0, 10), []);
    for (const name of again) assert.ok(!seen.has(name) || name.startsWith('new'), `${name} after seekdir`);
    await c.do('close', fd);
    const names = await c.do('names', dir);
    assert.equal(names.length, BIG - removed.size + 500);
    kept.set('count', names.length);
  },
  after: async ({ c, dir, kept }) => {
    assert.equal((await c.do('names', dir)).length, kept.get('count'));
    assert.equal((await c.do('removeTree', dir), await c.code('lstat', dir)), 'ENOENT');
  },
};

probeTests('posix', [...naming, ...naming2, ...access, ...data, bigDirectory]);
