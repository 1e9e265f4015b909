/**
 * Twenty questions that mounted unions are known to answer wrongly, some one way, some another.
 * The answer wanted is always that of a plain tmpfs, before and after a remount.
 */
import assert from 'node:assert/strict';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  O_APPEND,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  O_WRONLY,
  RENAME_EXCHANGE,
  SEEK_DATA,
  SEEK_HOLE,
} from '../src/abi/fcntl.ts';
import { probeTests, type Probe, type ProbeContext } from './support/probe.ts';

const MIB = 1 << 20;
const PROT_READ = 1;
const PROT_READ_WRITE = 3;

async function overwrite({ c, dir }: ProbeContext, name: string, text: string): Promise<void> {
  const fd = await c.do('open', `${dir}/${name}`, O_RDWR);
  await c.do('pwrite', fd, text, 0);
  await c.do('fsync', fd);
  await c.do('close', fd);
}

/** What a file occupies in the upper branch, bytes. */
async function upperBytes({ c, upper, dir }: ProbeContext, name: string): Promise<number> {
  return (await c.do('lstat', `${upper ?? dir}/${name}`)).blocks * 512;
}

async function polled(what: string, question: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await question()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`not within five seconds: ${what}`);
}

const sharing: Probe[] = [
  {
    name: 'old ro fd sees write after copy-up',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'old content')),
    run: async (p) => {
      const fd = await p.c.do('open', `${p.dir}/f`, O_RDONLY);
      assert.equal(await p.c.do('pread', fd, 100, 0), 'old content');
      await overwrite(p, 'f', 'NEW');
      assert.equal(await p.c.do('pread', fd, 100, 0), 'NEW content');
      await p.c.do('dropPages', fd);
      assert.equal(await p.c.do('pread', fd, 100, 0), 'NEW content');
      await p.c.do('close', fd);
    },
    after: async ({ c, dir }) => assert.equal(await c.do('readFile', `${dir}/f`), 'NEW content'),
  },
  {
    name: 'MAP_SHARED ro map sees it',
    except: { overlay: 'documented: a map of a lower file stays on the lower file' },
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'old content')),
    run: async (p) => {
      const fd = await p.c.do('open', `${p.dir}/f`, O_RDONLY);
      const map = await p.c.do('mmap', fd, 4096, PROT_READ);
      assert.equal(await p.c.do('mapRead', map, 0, 11), 'old content');
      await overwrite(p, 'f', 'NEW');
      assert.equal(await p.c.do('mapRead', map, 0, 11), 'NEW content');
      await p.c.do('munmap', map);
      await p.c.do('close', fd);
    },
  },
  {
    name: 'MAP_SHARED write',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'a'.repeat(10_000))),
    run: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR);
      const map = await c.do('mmap', fd, 10_000, PROT_READ_WRITE);
      await c.do('mapWrite', map, 5000, 'MAPPED');
      assert.equal(await c.do('pread', fd, 8, 4999), 'aMAPPEDa');
      await c.do('msync', map);
      await c.do('pwrite', fd, 'written', 9000);
      assert.equal(await c.do('mapRead', map, 9000, 8), 'writtena');
      await c.do('close', fd);
      await c.do('mapWrite', map, 0, 'after close');
      await c.do('munmap', map);
      assert.equal((await c.do('readFile', `${dir}/f`)).slice(0, 12), 'after closea');
    },
    after: async ({ c, dir }) => {
      const text = await c.do('readFile', `${dir}/f`);
      assert.equal(text.length, 10_000);
      assert.equal(text.slice(0, 11) + text.slice(5000, 5006) + text.slice(9000, 9007), 'after closeMAPPEDwritten');
    },
  },
  {
    name: 'lower change made behind the mount',
    except: { overlay: 'documented: undefined; it keeps names it has missed' },
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'NEW!')),
    run: async ({ c, dir, lower }) => {
      assert.equal(await c.do('readFile', `${dir}/f`), 'NEW!');
      await c.do('writeFile', `${lower}/f`, 'NEW!!');
      await polled('the longer content', async () => (await c.do('readFile', `${dir}/f`)) === 'NEW!!');
      assert.equal((await c.do('lstat', `${dir}/f`)).size, 5);
      assert.equal(await c.code('lstat', `${dir}/g`), 'ENOENT');
      await c.do('writeFile', `${lower}/g`, 'g');
      await polled('the new name', async () => (await c.code('lstat', `${dir}/g`)) === 'OK');
      assert.deepEqual(await c.do('names', dir), ['f', 'g']);
    },
  },
  {
    name: 'fstat nlink of unlinked-open file',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'still here')),
    run: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR);
      const { ino } = await c.do('fstat', fd);
      await c.do('unlink', `${dir}/f`);
      assert.equal((await c.do('fstat', fd)).nlink, 0);
      assert.equal((await c.do('fstat', fd)).ino, ino);
      await c.do('pwrite', fd, 'STILL', 0);
      await c.do('dropPages', fd);
      assert.equal(await c.do('pread', fd, 20, 0), 'STILL here');
      await c.do('close', fd);
      assert.equal(await c.code('lstat', `${dir}/f`), 'ENOENT');
    },
    after: async ({ c, dir }) => assert.deepEqual(await c.do('names', dir), []),
  },
];

const linking: Probe[] = [
  {
    name: 'hard link kept',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'hi');
      await c.do('link', `${dir}/f`, `${dir}/f2`);
    },
    run: async (p) => {
      await overwrite(p, 'f', 'ZZ');
      assert.equal(await p.c.do('readFile', `${p.dir}/f2`), 'ZZ');
      assert.equal((await p.c.do('lstat', `${p.dir}/f`)).nlink, 2);
      assert.equal((await p.c.do('lstat', `${p.dir}/f2`)).nlink, 2);
    },
    after: async ({ c, dir }) => {
      assert.equal(await c.do('readFile', `${dir}/f`), 'ZZ');
      assert.equal(await c.do('readFile', `${dir}/f2`), 'ZZ');
      const fd = await c.do('open', `${dir}/f2`, O_WRONLY | O_APPEND);
      await c.do('write', fd, 'append');
      await c.do('close', fd);
      assert.equal(await c.do('readFile', `${dir}/f`), 'ZZappend');
      const [f, f2] = [await c.do('lstat', `${dir}/f`), await c.do('lstat', `${dir}/f2`)];
      assert.deepEqual([f.nlink, f2.nlink], [2, 2]);
      assert.equal(f.ino, f2.ino);
      await c.do('unlink', `${dir}/f`);
      assert.equal((await c.do('lstat', `${dir}/f2`)).nlink, 1);
      assert.equal(await c.do('readFile', `${dir}/f2`), 'ZZappend');
    },
  },
  {
    name: 'ino stable, hard-linked file',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'hi');
      await c.do('link', `${dir}/f`, `${dir}/f2`);
    },
    run: async (p) => {
      const { ino } = await p.c.do('lstat', `${p.dir}/f`);
      assert.equal((await p.c.do('lstat', `${p.dir}/f2`)).ino, ino);
      await overwrite(p, 'f', 'ZZ');
      assert.equal((await p.c.do('lstat', `${p.dir}/f`)).ino, ino);
      assert.equal((await p.c.do('lstat', `${p.dir}/f2`)).ino, ino);
      p.kept.set('ino', ino);
    },
    after: async ({ c, dir, kept }) => {
      assert.equal((await c.do('lstat', `${dir}/f2`)).ino, kept.get('ino'));
      assert.equal((await c.do('lstat', `${dir}/f`)).ino, kept.get('ino'));
    },
  },
  {
    name: 'ino stable, plain file',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'hi');
      await c.do('writeFile', `${dir}/untouched`, 'hi');
      await c.do('mkdir', `${dir}/d`);
    },
    run: async (p) => {
      for (const name of ['f', 'untouched', 'd']) {
        p.kept.set(name, (await p.c.do('lstat', `${p.dir}/${name}`)).ino);
      }
      await overwrite(p, 'f', 'ZZ');
      await p.c.do('writeFile', `${p.dir}/d/new`, '');
      assert.equal((await p.c.do('lstat', `${p.dir}/f`)).ino, p.kept.get('f'));
      assert.equal((await p.c.do('lstat', `${p.dir}/d`)).ino, p.kept.get('d'));
      await p.c.do('rename', `${p.dir}/f`, `${p.dir}/g`);
      assert.equal((await p.c.do('lstat', `${p.dir}/g`)).ino, p.kept.get('f'));
      p.kept.set('d/new', (await p.c.do('lstat', `${p.dir}/d/new`)).ino);
    },
    after: async ({ c, dir, kept }) => {
      assert.equal((await c.do('lstat', `${dir}/g`)).ino, kept.get('f'));
      for (const name of ['untouched', 'd', 'd/new']) {
        assert.equal((await c.do('lstat', `${dir}/${name}`)).ino, kept.get(name), name);
      }
      const entries = await c.do('entries', dir);
      for (const entry of entries.filter((e) => e.name !== '..')) {
        assert.equal(entry.ino, (await c.do('lstat', `${dir}/${entry.name}`)).ino, entry.name);
      }
    },
  },
  {
    name: 'link(2) of lower file, same ino',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'one')),
    run: async ({ c, dir }) => {
      const { ino } = await c.do('lstat', `${dir}/f`);
      await c.do('link', `${dir}/f`, `${dir}/g`);
      const g = await c.do('lstat', `${dir}/g`);
      assert.deepEqual([g.ino, g.nlink], [ino, 2]);
      assert.equal((await c.do('lstat', `${dir}/f`)).nlink, 2);
      await c.do('writeFile', `${dir}/f`, 'two');
      assert.equal(await c.do('readFile', `${dir}/g`), 'two');
    },
    after: async ({ c, dir }) => {
      const [f, g] = [await c.do('lstat', `${dir}/f`), await c.do('lstat', `${dir}/g`)];
      assert.deepEqual([f.ino, f.nlink, g.nlink], [g.ino, 2, 2]);
      await c.do('writeFile', `${dir}/g`, 'three');
      assert.equal(await c.do('readFile', `${dir}/f`), 'three');
    },
  },
];

const renaming: Probe[] = [
  {
    name: 'rename lower dir',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('mkdir', `${dir}/d/sub`);
      await c.do('writeFile', `${dir}/d/a`, 'a');
      await c.do('writeFile', `${dir}/d/sub/b`, 'b');
    },
    run: async ({ c, dir, kept }) => {
      kept.set('ino', (await c.do('lstat', `${dir}/d`)).ino);
      await c.do('rename', `${dir}/d`, `${dir}/e`);
      assert.equal(await c.code('lstat', `${dir}/d`), 'ENOENT');
      assert.deepEqual(await c.do('names', dir), ['e']);
      assert.deepEqual(await c.do('names', `${dir}/e`), ['a', 'sub']);
      assert.equal(await c.do('readFile', `${dir}/e/sub/b`), 'b');
      await c.do('rename', `${dir}/e/sub`, `${dir}/moved`);
      await c.do('mkdir', `${dir}/d`);
      assert.deepEqual(await c.do('names', `${dir}/d`), []);
    },
    after: async ({ c, dir, kept }) => {
      assert.deepEqual(await c.do('names', dir), ['d', 'e', 'moved']);
      assert.deepEqual(await c.do('names', `${dir}/e`), ['a']);
      assert.deepEqual(await c.do('names', `${dir}/d`), []);
      assert.equal(await c.do('readFile', `${dir}/moved/b`), 'b');
      assert.equal((await c.do('lstat', `${dir}/e`)).ino, kept.get('ino'));
    },
  },
  {
    name: 'rename merged dir',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('writeFile', `${dir}/d/a`, 'a');
      await c.do('writeFile', `${dir}/d/b`, 'b');
      await c.do('writeFile', `${dir}/d/gone`, '');
    },
    run: async ({ c, dir }) => {
      await c.do('writeFile', `${dir}/d/new`, 'new');
      await c.do('writeFile', `${dir}/d/a`, 'A');
      await c.do('unlink', `${dir}/d/gone`);
      await c.do('rename', `${dir}/d`, `${dir}/e`);
      assert.deepEqual(await c.do('names', `${dir}/e`), ['a', 'b', 'new']);
      assert.equal(await c.do('readFile', `${dir}/e/a`), 'A');
      assert.equal(await c.do('readFile', `${dir}/e/b`), 'b');
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['e']);
      assert.deepEqual(await c.do('names', `${dir}/e`), ['a', 'b', 'new']);
      assert.equal(await c.do('readFile', `${dir}/e/b`), 'b');
    },
  },
  {
    name: 'rm -r + mkdir empty',
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('mkdir', `${dir}/d/sub`);
      await c.do('writeFile', `${dir}/d/sub/f`, '');
      await c.do('writeFile', `${dir}/d/f`, '');
    },
    run: async ({ c, dir }) => {
      await c.do('removeTree', `${dir}/d`);
      assert.deepEqual(await c.do('names', dir), []);
      await c.do('mkdir', `${dir}/d`);
      assert.deepEqual(await c.do('names', `${dir}/d`), []);
      await c.do('mkdir', `${dir}/d/sub`);
      assert.deepEqual(await c.do('names', `${dir}/d/sub`), []);
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', `${dir}/d`), ['sub']);
      assert.deepEqual(await c.do('names', `${dir}/d/sub`), []);
    },
  },
  {
    name: 'RENAME_EXCHANGE',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'file');
      await c.do('mkdir', `${dir}/d`);
      await c.do('writeFile', `${dir}/d/inside`, 'inside');
    },
    run: async ({ c, dir }) => {
      await c.do('rename', `${dir}/f`, `${dir}/d`, RENAME_EXCHANGE);
      assert.equal(await c.do('readFile', `${dir}/d`), 'file');
      assert.equal(await c.do('readFile', `${dir}/f/inside`), 'inside');
      assert.equal(await c.code('rename', `${dir}/f`, `${dir}/no`, RENAME_EXCHANGE), 'ENOENT');
    },
    after: async ({ c, dir }) => {
      assert.equal(await c.do('readFile', `${dir}/d`), 'file');
      assert.deepEqual(await c.do('names', `${dir}/f`), ['inside']);
      assert.deepEqual(await c.do('names', dir), ['d', 'f']);
    },
  },
  {
    name: 'dir nlink, 2 subdirs',
    except: { overlay: 'documented: a merged directory has one link' },
    prepare: async (c, dir) => {
      await c.do('mkdir', `${dir}/d`);
      await c.do('mkdir', `${dir}/d/one`);
      await c.do('mkdir', `${dir}/d/two`);
      await c.do('writeFile', `${dir}/d/file`, '');
    },
    run: async ({ c, dir }) => {
      assert.equal((await c.do('lstat', `${dir}/d`)).nlink, 4);
      await c.do('mkdir', `${dir}/d/three`);
      assert.equal((await c.do('lstat', `${dir}/d`)).nlink, 5);
      await c.do('rmdir', `${dir}/d/one`);
      await c.do('rename', `${dir}/d/two`, `${dir}/two`);
      assert.equal((await c.do('lstat', `${dir}/d`)).nlink, 3);
      assert.equal((await c.do('lstat', dir)).nlink, 4);
    },
    after: async ({ c, dir }) => {
      assert.equal((await c.do('lstat', `${dir}/d`)).nlink, 3);
      assert.equal((await c.do('lstat', dir)).nlink, 4);
    },
  },
];

const copying: Probe[] = [
  {
    name: 'chmod copy-up keeps mtime, xattr',
    prepare: async (c, dir) => {
      await c.do('writeFile', `${dir}/f`, 'content');
      await c.do('setxattr', `${dir}/f`, 'user.note', 'kept');
      await c.do('utimens', `${dir}/f`, '1111111111123456789', '1222222222987654321');
    },
    run: async ({ c, dir }) => {
      await c.do('chmod', `${dir}/f`, 0o751);
      const stat = await c.do('lstat', `${dir}/f`);
      assert.equal(stat.mtimeNs, '1222222222987654321');
      assert.equal(stat.atimeNs, '1111111111123456789');
      assert.equal(stat.mode & 0o7777, 0o751);
      assert.equal(await c.do('getxattr', `${dir}/f`, 'user.note'), 'kept');
      assert.equal(await c.do('readFile', `${dir}/f`), 'content');
    },
    after: async ({ c, dir }) => {
      const stat = await c.do('lstat', `${dir}/f`);
      assert.deepEqual([stat.mtimeNs, stat.mode & 0o7777, stat.size], ['1222222222987654321', 0o751, 7]);
      assert.deepEqual(await c.do('listxattr', `${dir}/f`), ['user.note']);
      assert.equal(await c.do('readFile', `${dir}/f`), 'content');
    },
  },
  {
    name: '+1 B to 1 GiB sparse lower',
    prepare: async (c, dir) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR | O_CREAT);
      await c.do('ftruncate', fd, 1024 * MIB);
      await c.do('pwrite', fd, 'middle', 512 * MIB);
      await c.do('close', fd);
    },
    run: async (p) => {
      const fd = await p.c.do('open', `${p.dir}/f`, O_RDWR | O_APPEND);
      await p.c.do('write', fd, '!');
      await p.c.do('fsync', fd);
      assert.equal((await p.c.do('fstat', fd)).size, 1024 * MIB + 1);
      assert.equal(await p.c.do('pread', fd, 8, 512 * MIB - 1), '\0middle\0');
      assert.equal(await p.c.do('pread', fd, 8, 1024 * MIB - 1), '\0!');
      await p.c.do('close', fd);
      const grown = await upperBytes(p, 'f');
      assert.ok(grown <= 2 * MIB, `the upper branch grew by ${grown} bytes`);
    },
    after: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDONLY);
      assert.equal(await c.do('pread', fd, 8, 512 * MIB - 1), '\0middle\0');
      assert.equal(await c.do('pread', fd, 8, 1024 * MIB - 1), '\0!');
      await c.do('close', fd);
    },
  },
  {
    name: '1 B into 256 MiB dense lower',
    prepare: async (c, dir) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR | O_CREAT);
      await c.do('fill', fd, 'dense ', 0, 256 * MIB);
      await c.do('close', fd);
    },
    run: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR);
      const before = await c.do('pread', fd, 4096, 200 * MIB);
      await c.do('pwrite', fd, '#', 100 * MIB);
      await c.do('fsync', fd);
      await c.do('dropPages', fd);
      assert.equal((await c.do('fstat', fd)).size, 256 * MIB);
      assert.equal(await c.do('pread', fd, 4096, 200 * MIB), before);
      const around = await c.do('pread', fd, 3, 100 * MIB - 1);
      assert.match(around, /^[dens ]#[dens ]$/);
      await c.do('close', fd);
    },
    after: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDONLY);
      assert.equal((await c.do('pread', fd, 3, 100 * MIB - 1))[1], '#');
      assert.match(await c.do('pread', fd, 60_000, 255 * MIB), /^[dens ]{60000}$/);
      await c.do('close', fd);
      await c.do('unlink', `${dir}/f`);
    },
  },
  {
    name: 'O_TMPFILE',
    run: async ({ c, dir }) => {
      const fd = await c.do('open', dir, O_TMPFILE | O_RDWR, 0o640);
      await c.do('pwrite', fd, 'without a name', 0);
      assert.equal((await c.do('fstat', fd)).nlink, 0);
      assert.deepEqual(await c.do('names', dir), []);
      await c.do('linkfd', fd, `${dir}/named`);
      assert.equal((await c.do('fstat', fd)).nlink, 1);
      assert.equal(await c.do('readFile', `${dir}/named`), 'without a name');
      assert.equal(await c.code('linkfd', fd, `${dir}/named`), 'EEXIST');
      await c.do('close', fd);
      assert.equal((await c.do('lstat', `${dir}/named`)).mode, 0o100640);
    },
    after: async ({ c, dir }) => {
      assert.deepEqual(await c.do('names', dir), ['named']);
      assert.equal(await c.do('readFile', `${dir}/named`), 'without a name');
    },
  },
  {
    name: 'punch hole',
    prepare: async (c, dir) => void (await c.do('writeFile', `${dir}/f`, 'x'.repeat(65536))),
    run: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR);
      await c.do('fallocate', fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16384, 32768);
      assert.equal(await c.do('pread', fd, 4, 16382), 'xx\0\0');
      assert.equal(await c.do('pread', fd, 4, 49150), '\0\0xx');
      assert.equal((await c.do('fstat', fd)).size, 65536);
      await c.do('close', fd);
      assert.deepEqual(await c.do('segments', `${dir}/f`), [[0, 16384], [49152, 65536]]);
    },
    after: async ({ c, dir }) => {
      const text = await c.do('readFile', `${dir}/f`);
      assert.equal(text, 'x'.repeat(16384) + '\0'.repeat(32768) + 'x'.repeat(16384));
    },
  },
  {
    name: 'SEEK_DATA real',
    prepare: async (c, dir) => {
      const fd = await c.do('open', `${dir}/f`, O_RDWR | O_CREAT);
      await c.do('ftruncate', fd, 8 * MIB);
      await c.do('pwrite', fd, 'data', 4 * MIB);
      await c.do('close', fd);
    },
    run: async ({ c, dir }) => {
      const fd = await c.do('open', `${dir}/f`, O_RDONLY);
      assert.equal(await c.do('lseek', fd, 0, SEEK_DATA), 4 * MIB);
      assert.equal(await c.do('lseek', fd, 0, SEEK_HOLE), 0);
      assert.equal(await c.do('lseek', fd, 4 * MIB, SEEK_HOLE), 4 * MIB + 4096);
      assert.equal(await c.code('lseek', fd, 5 * MIB, SEEK_DATA), 'ENXIO');
      assert.equal(await c.code('lseek', fd, 9 * MIB, SEEK_DATA), 'ENXIO');
      await c.do('close', fd);
    },
  },
];

probeTests('probes', [...sharing, ...linking, ...renaming, ...copying]);
