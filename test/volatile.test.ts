/** `-o volatile`, as a user meets it and as kernel overlayfs has it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { O_CREAT, O_RDWR } from '../src/abi/fcntl.ts';
import { forceUnmount, registerMount } from './support/cleanup.ts';
import { makeWorld, palimpsest, run, runOk, scratch, subjects, unable } from './support/world.ts';

const skip = unable() ?? (subjects().includes('palimpsest') ? false : 'palimpsest is not among the subjects');

test('a volatile mount syncs at once, and its upper is refused until the mark is removed', { skip }, async (t) => {
  const world = makeWorld(t, { mountOptions: ['volatile'] });
  const mark = path.join(world.work, 'work/incompat/volatile');
  await world.caller.do('writeFile', `${world.lower}/f`, 'lower');
  await world.mount('palimpsest');
  const fd = await world.caller.do('open', `${world.root}/f`, O_RDWR | O_CREAT, 0o644);
  await world.caller.do('write', fd, 'UNION');
  await world.caller.do('fsync', fd);
  await world.caller.do('close', fd);
  assert.ok(fs.existsSync(`${mark}/dirty`));
  await world.unmount();
  assert.equal(fs.readFileSync(`${world.upper}/f`, 'latin1'), 'UNION');
  assert.ok(fs.existsSync(`${mark}/dirty`), 'a clean unmount does not make it durable');

  for (const options of [[], ['volatile']]) {
    world.mountOptions = options;
    const { status, stderr } = await palimpsest(['mount', ...world.mountArguments()], { cwd: '/' });
    assert.equal(status, 32);
    assert.match(stderr, new RegExp(`${world.upper} was mounted volatile.* remove ${mark} and mount again`));
  }
  const dirs = `lowerdir=${world.lower},upperdir=${world.upper},workdir=${world.work}`;
  const overlay = ['-t', 'overlay', 'overlay', '-o', `${dirs},index=on`, world.mountpoint];
  assert.notEqual((await run('mount', overlay)).status, 0, 'the kernel knows the mark');

  fs.rmSync(mark, { recursive: true });
  world.mountOptions = [];
  await world.mount('palimpsest');
  assert.equal(await world.caller.do('readFile', `${world.root}/f`), 'UNION');
});

test('an upper that the kernel has mounted volatile is refused, too', { skip }, async (t) => {
  const world = makeWorld(t);
  const dirs = `lowerdir=${world.lower},upperdir=${world.upper},workdir=${world.work}`;
  await runOk('mount', ['-t', 'overlay', 'overlay', '-o', `${dirs},volatile`, world.mountpoint]);
  forceUnmount(world.mountpoint);
  await assert.rejects(world.mount('palimpsest'), /was mounted volatile/);
  assert.ok(fs.existsSync(path.join(world.work, 'work/incompat/volatile')));
});

test('a commit of a volatile mount leaves it mounted, and still marked', { skip }, async (t) => {
  const world = makeWorld(t, { mountOptions: ['volatile'] });
  await world.mount('palimpsest');
  await world.caller.do('writeFile', `${world.root}/new`, 'new');
  const { status, stderr } = await palimpsest(['commit', world.mountpoint], { cwd: '/' });
  assert.equal(status, 0, stderr);
  assert.equal(fs.readFileSync(`${world.lower}/new`, 'latin1'), 'new');
  assert.equal(await world.caller.do('readFile', `${world.root}/new`), 'new');
  assert.ok(fs.existsSync(path.join(world.work, 'work/incompat/volatile/dirty')));
});

test('after the host has failed to write back, every sync of a volatile mount fails', { skip }, async (t) => {
  const world = makeWorld(t);
  // A disk on a tmpfs that is too small for it: what it has no room for is lost at writeback.
  const small = scratch('tmpfs', '8m');
  t.after(() => small.dispose());
  const image = path.join(small.dir, 'image');
  const disk = path.join(small.dir, 'disk');
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 64 << 20);
  fs.mkdirSync(disk);
  // Without a journal, whose loss would make the whole filesystem read-only.
  const made = await run('mkfs.ext4', ['-q', '-O', '^has_journal', image]);
  if (made.status !== 0) return t.skip(`no filesystem can be made: ${made.stderr}`);
  const registration = registerMount(disk);
  const mounted = await run('mount', ['-o', 'loop', image, disk]);
  t.after(() => {
    forceUnmount(disk);
    registration.release();
  });
  if (mounted.status !== 0) return t.skip(`no loop device: ${mounted.stderr}`);
  const upper = path.join(disk, 'upper');
  fs.mkdirSync(upper);
  world.branches = [`${upper}=rw`, `${world.lower}=ro`];
  world.mountOptions = ['volatile'];
  await world.mount('palimpsest');
  const c = world.caller;
  const lost = await c.do('open', `${world.root}/lost`, O_RDWR | O_CREAT, 0o644);
  const other = await c.do('open', `${world.root}/other`, O_RDWR | O_CREAT, 0o644);
  for (let mib = 0; mib < 16; mib++) await c.do('write', lost, 'x'.repeat(1 << 20));
  await c.do('fsync', lost);
  await run('sync', ['-f', disk]);
  await c.do('fsync', other);
  for (const fd of [lost, lost, other]) await assert.rejects(c.do('fsync', fd), /EIO/);
  for (const fd of [lost, other]) await c.do('close', fd);
  await world.unmount();
});
