/**
 * `-o passthrough`: the kernel reads and writes files of the upper branch itself.
 *
 * What is counted are requests: none may come for the data of a passed file. What is compared are the
 * bytes, sizes and modes that several descriptors, maps and the branch itself show.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test, type TestContext } from 'node:test';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  O_APPEND,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  O_TRUNC,
  O_WRONLY,
  SEEK_DATA,
  SEEK_HOLE,
} from '../src/abi/fcntl.ts';
import { Opcode } from '../src/fuse/abi.ts';
import { makeWorld, palimpsest, runOk, unable, type World } from './support/world.ts';

const PROT_READ = 1;
const PROT_READ_WRITE = 3;

interface Counters {
  byOpcode: Record<string, number>;
  passedOpens: number;
  bugs: number;
  refusedReplies: number;
  illegalReplies: number;
}

async function counters(world: World): Promise<Counters> {
  const { stdout } = await palimpsest(['status', '--json', world.mountpoint], { cwd: '/' });
  return JSON.parse(stdout).daemon.requests;
}

/** READ and WRITE requests so far. */
async function dataRequests(world: World): Promise<number> {
  const { byOpcode } = await counters(world);
  return byOpcode[Opcode.READ]! + byOpcode[Opcode.WRITE]!;
}

async function passed(world: World): Promise<number> {
  return (await counters(world)).passedOpens;
}

const noFuse = unable();

/** A mounted world with `lower` and `upper` files, or undefined: the kernel passes no file. */
async function mounted(t: TestContext, on: 'disk' | 'tmpfs'): Promise<World | undefined> {
  const world = makeWorld(t, { on, mountOptions: ['passthrough'] });
  fs.writeFileSync(`${world.lower}/low`, 'lower content');
  fs.writeFileSync(`${world.upper}/up`, 'upper content');
  await world.mount('palimpsest');
  const fd = await world.caller.do('open', `${world.root}/up`, O_RDONLY);
  await world.caller.do('close', fd);
  if ((await passed(world)) > 0) return world;
  t.skip('the kernel takes no backing file here');
  return undefined;
}

async function checkUnharmed(world: World): Promise<void> {
  const { bugs, illegalReplies, refusedReplies } = await counters(world);
  assert.deepEqual({ bugs, illegalReplies, refusedReplies }, { bugs: 0, illegalReplies: 0, refusedReplies: 0 });
}

function passTest(name: string, body: (world: World) => Promise<void>, on: 'disk' | 'tmpfs' = 'disk'): void {
  test(`passthrough: ${name}`, { skip: noFuse ?? false }, async (t) => {
    const world = await mounted(t, on);
    if (world === undefined) return;
    await body(world);
    await checkUnharmed(world);
  });
}

passTest('data of a file of the upper branch costs no request', async (world) => {
  const { caller: c, root } = world;
  const before = await dataRequests(world);
  const fd = await c.do('open', `${root}/up`, O_RDWR);
  assert.equal(await c.do('pread', fd, 100, 0), 'upper content');
  assert.equal(await c.do('pwrite', fd, 'UPPER', 0), 5);
  const map = await c.do('mmap', fd, 13, PROT_READ_WRITE);
  assert.equal(await c.do('mapRead', map, 0, 13), 'UPPER content');
  await c.do('mapWrite', map, 6, 'mapped!');
  assert.equal(await c.do('pread', fd, 100, 0), 'UPPER mapped!');
  assert.equal(fs.readFileSync(`${world.upper}/up`, 'latin1'), 'UPPER mapped!');
  await c.do('msync', map);
  await c.do('fsync', fd);
  await c.do('close', fd);
  // The map lives on: whoever opens the file now sees it, and it sees them.
  const late = await c.do('open', `${root}/up`, O_RDWR);
  await c.do('mapWrite', map, 0, 'after');
  assert.equal(await c.do('pread', late, 100, 0), 'after mapped!');
  await c.do('pwrite', late, 'again', 0);
  assert.equal(await c.do('mapRead', map, 0, 5), 'again');
  await c.do('munmap', map);
  await c.do('close', late);
  assert.equal(await dataRequests(world), before);
});

passTest('a created file and a nameless one are passed', async (world) => {
  const { caller: c, root } = world;
  const before = await dataRequests(world);
  const opens = await passed(world);
  for (const [path, flags] of [
    [`${root}/made`, O_RDWR | O_CREAT],
    [root, O_RDWR | O_TMPFILE],
  ] as const) {
    const fd = await c.do('open', path, flags);
    await c.do('fill', fd, 'abcdefgh', 0, 3 << 20);
    assert.equal((await c.do('fstat', fd)).size, 3 << 20);
    assert.equal(await c.do('pread', fd, 8, (3 << 20) - 8), 'abcdefgh');
    await c.do('close', fd);
  }
  assert.equal(await passed(world), opens + 2);
  assert.equal(await dataRequests(world), before);
});

passTest('what is copied up while open stays one file, and is passed later', async (world) => {
  const { caller: c, root } = world;
  const old = await c.do('open', `${root}/low`, O_RDONLY);
  const map = await c.do('mmap', old, 13, PROT_READ);
  assert.equal(await c.do('pread', old, 100, 0), 'lower content');
  const opens = await passed(world);
  const writer = await c.do('open', `${root}/low`, O_RDWR);
  await c.do('pwrite', writer, 'LOWER', 0);
  const reader = await c.do('open', `${root}/low`, O_RDONLY);
  for (const fd of [old, writer, reader]) {
    assert.equal(await c.do('pread', fd, 100, 0), 'LOWER content');
  }
  assert.equal(await c.do('mapRead', map, 0, 13), 'LOWER content');
  assert.equal(await passed(world), opens);
  for (const fd of [old, writer, reader]) await c.do('close', fd);
  // The map still is a descriptor of the cached kind.
  const beside = await c.do('open', `${root}/low`, O_RDWR);
  await c.do('pwrite', beside, 'beside', 0);
  assert.equal(await c.do('mapRead', map, 0, 13), 'besidecontent');
  assert.equal(await passed(world), opens);
  await c.do('close', beside);
  await c.do('munmap', map);
  const anew = await c.do('open', `${root}/low`, O_RDWR);
  assert.equal(await passed(world), opens + 1);
  assert.equal(await c.do('pread', anew, 6, 0), 'beside');
  await c.do('close', anew);
  assert.equal(fs.readFileSync(`${world.lower}/low`, 'latin1'), 'lower content');
});

passTest('unlinked and renamed over while open', async (world) => {
  const { caller: c, root } = world;
  const fd = await c.do('open', `${root}/up`, O_RDWR);
  await c.do('unlink', `${root}/up`);
  await c.do('pwrite', fd, 'nameless', 0);
  assert.equal(await c.do('pread', fd, 8, 0), 'nameless');
  assert.equal((await c.do('fstat', fd)).nlink, 0);
  await c.do('ftruncate', fd, 4);
  assert.equal((await c.do('fstat', fd)).size, 4);
  await c.do('writeFile', `${root}/one`, 'one');
  await c.do('writeFile', `${root}/two`, 'two');
  const two = await c.do('open', `${root}/two`, O_RDWR);
  const one = await c.do('open', `${root}/one`, O_RDWR);
  await c.do('rename', `${root}/one`, `${root}/two`);
  await c.do('pwrite', two, 'OLD', 0);
  await c.do('pwrite', one, 'NEW', 0);
  assert.equal(await c.do('pread', two, 3, 0), 'OLD');
  assert.equal(await c.do('readFile', `${root}/two`), 'NEW');
  for (const each of [fd, one, two]) await c.do('close', each);
});

passTest('size and times follow each writer at once', async (world) => {
  const { caller: c, root } = world;
  const one = await c.do('open', `${root}/up`, O_RDWR);
  const two = await c.do('open', `${root}/up`, O_WRONLY | O_APPEND);
  assert.equal((await c.do('fstat', one)).size, 13);
  await c.do('write', two, ' more');
  assert.equal((await c.do('fstat', one)).size, 18);
  assert.equal((await c.do('lstat', `${root}/up`)).size, 18);
  await c.do('ftruncate', one, 3);
  await c.do('write', two, 'END');
  assert.equal(await c.do('readFile', `${root}/up`), 'uppEND');
  await c.do('truncate', `${root}/up`, 10_000);
  assert.equal((await c.do('fstat', two)).size, 10_000);
  assert.equal(await c.do('lseek', one, 0, 2), 10_000);
  const { mtimeNs } = fs.statSync(`${world.upper}/up`, { bigint: true });
  assert.equal((await c.do('fstat', one)).mtimeNs, String(mtimeNs));
  await c.do('utimens', `${root}/up`, '1000000000', '1000000000');
  await c.do('truncate', `${root}/up`, 10_000);
  assert.equal((await c.do('fstat', one)).mtimeNs, '1000000000');
  await c.do('ftruncate', one, 10_000);
  assert.notEqual((await c.do('fstat', one)).mtimeNs, '1000000000');
  const trunc = await c.do('open', `${root}/up`, O_WRONLY | O_TRUNC);
  assert.equal((await c.do('fstat', one)).size, 0);
  for (const fd of [one, two, trunc]) await c.do('close', fd);
});

passTest('allocation, holes and copies', async (world) => {
  const { caller: c, root } = world;
  const fd = await c.do('open', `${root}/holes`, O_RDWR | O_CREAT);
  await c.do('fill', fd, 'x', 0, 65_536);
  await c.do('fallocate', fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 16_384, 16_384);
  assert.equal(await c.do('pread', fd, 3, 16_383), 'x\0\0');
  assert.equal(await c.do('lseek', fd, 0, SEEK_HOLE), 16_384);
  assert.equal(await c.do('lseek', fd, 16_384, SEEK_DATA), 32_768);
  await c.do('fallocate', fd, 0, 65_536, 65_536);
  assert.equal((await c.do('fstat', fd)).size, 131_072);
  const copy = await c.do('open', `${root}/copy`, O_RDWR | O_CREAT);
  assert.equal(await c.do('copyRange', fd, 0, copy, 0, 65_536), 65_536);
  assert.equal((await c.do('fstat', copy)).size, 65_536);
  assert.equal(await c.do('pread', copy, 2, 16_383), 'x\0');
  for (const each of [fd, copy]) await c.do('close', each);
});

passTest('a write by someone else takes the set-id bits away', async (world) => {
  const { caller: c, root } = world;
  for (const early of [true, false]) {
    await c.do('writeFile', `${root}/suid`, 'program');
    await c.do('chmod', `${root}/suid`, early ? 0o4777 : 0o777);
    const fd = await c.as(1000, 1000, [], () => c.do('open', `${root}/suid`, O_WRONLY));
    await c.do('chmod', `${root}/suid`, 0o4777);
    assert.equal((await c.do('lstat', `${root}/suid`)).mode & 0o7777, 0o4777);
    await c.as(1000, 1000, [], () => c.do('pwrite', fd, 'changed', 0));
    assert.equal((await c.do('lstat', `${root}/suid`)).mode & 0o7777, 0o777, `early: ${early}`);
    await c.do('close', fd);
    await c.do('unlink', `${root}/suid`);
  }
});

passTest('root writes to a set-id file that was passed before, and it stays one', async (world) => {
  const { caller: c, root } = world;
  await c.do('writeFile', `${root}/suid`, 'program');
  await c.do('chmod', `${root}/suid`, 0o6711);
  const fd = await c.do('open', `${root}/suid`, O_RDWR);
  await c.do('pwrite', fd, 'changed', 0);
  assert.equal(await c.do('pread', fd, 7, 0), 'changed');
  assert.equal((await c.do('lstat', `${root}/suid`)).mode & 0o7777, 0o6711);
  await c.do('close', fd);
});

passTest('a backing file is let go with the last open of it', async (world) => {
  const { caller: c, root } = world;
  const fd = await c.do('open', `${root}/up`, O_RDWR);
  await c.do('fill', fd, 'x', 0, 8 << 20);
  await c.do('fsync', fd);
  const free = (): number => fs.statfsSync(world.upper).bavail * fs.statfsSync(world.upper).bsize;
  const before = free();
  await c.do('unlink', `${root}/up`);
  await c.do('close', fd);
  // The RELEASE and FORGET of a file without names come in their own time.
  for (let tries = 0; free() < before + (8 << 20); tries++) {
    assert.ok(tries < 100, 'its space is not free after five seconds');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}, 'tmpfs');

passTest('git and SQLite', async (world) => {
  const script = `
    git init -q -b main fresh && cd fresh
    git config user.name a; git config user.email a@example.org
    for i in 1 2 3 4 5 6 7 8 9; do seq $i 3000 > file$i; done
    git add . && git commit -q -m one && git rm -q file1 && git commit -q -m two
    git gc -q --prune=now && git fsck --full --strict
    cd .. && git clone -q --no-hardlinks fresh clone && git -C clone fsck --full
    test -z "$(git -C clone status --porcelain)"
    cp /bin/ls program && ./program clone > /dev/null`;
  await runOk('sh', ['-ec', script], { cwd: world.root, env: { PATH: process.env['PATH'], HOME: world.dir } });
  const sqlite = `
    const { DatabaseSync } = require('node:sqlite');
    const db = new DatabaseSync('db'), other = new DatabaseSync('db');
    db.exec('PRAGMA journal_mode=WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)');
    for (let n = 0; n < 300; n++) {
      (n % 2 ? db : other).prepare('INSERT INTO t VALUES (?, ?)').run(n, 'v'.repeat(n * 10));
      if (other.prepare('SELECT count(*) AS n FROM t').get().n !== n + 1) throw new Error(String(n));
    }
    db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    if (db.prepare('PRAGMA integrity_check').get().integrity_check !== 'ok') throw new Error('broken');`;
  await runOk(process.execPath, ['-e', sqlite], { cwd: world.root });
});

test('passthrough: an upper branch that the kernel refuses is served without it', { skip: noFuse ?? false }, async (t) => {
  // What is made first goes first.
  const world = makeWorld(t, { on: 'disk', mountOptions: ['passthrough'] });
  const below = makeWorld(t, { on: 'disk' });
  await below.mount('overlay');
  // A stacked filesystem may not be the backing of another one.
  fs.mkdirSync(`${below.root}/upper`);
  fs.mkdirSync(`${below.root}/work`);
  world.branches = [`${below.root}/upper=rw`, `${world.lower}=ro`];
  await world.mount('palimpsest');
  const { caller: c, root } = world;
  const fd = await c.do('open', `${root}/f`, O_RDWR | O_CREAT);
  await c.do('pwrite', fd, 'served', 0);
  assert.equal(await c.do('pread', fd, 6, 0), 'served');
  await c.do('close', fd);
  assert.equal(await passed(world), 0);
  await checkUnharmed(world);
});
