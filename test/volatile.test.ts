/** `-o volatile`, as a user meets it and as kernel overlayfs has it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { O_CREAT, O_RDWR } from '../src/abi/fcntl.ts';
import { forceUnmount } from './support/cleanup.ts';
import { makeWorld, palimpsest, run, runOk, subjects, unable } from './support/world.ts';

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
