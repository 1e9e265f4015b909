/**
 * Many files: find(1) and rm(1) work, and what an inode costs the daemon is said.
 *
 * PALIMPSEST_FILES says how many, 10^5 if nobody does; 10^6 takes minutes.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { makeWorld, palimpsest, runOk, subjects, unable } from './support/world.ts';

const FILES = Number(process.env['PALIMPSEST_FILES'] ?? 100_000);
const PER_DIRECTORY = 1000;
const HOUR_MS = 3_600_000;
const skip = unable() ?? (subjects().includes('palimpsest') ? false : 'palimpsest is not among the subjects');

async function daemonPid(mountpoint: string): Promise<number> {
  const { stdout } = await palimpsest(['ls', '--json']);
  const records = stdout.trim().split('\n').map((line) => JSON.parse(line) as { target?: string; pid?: number });
  return records.find((r) => r.target === mountpoint)!.pid!;
}

function residentKib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))![1]);
}

function openDescriptors(pid: number): number {
  return fs.readdirSync(`/proc/${pid}/fd`).length;
}

test(`${FILES} files: find, memory, rm -rf`, { skip }, async (t) => {
  const world = makeWorld(t);
  const c = world.caller;
  const dirs = Math.ceil(FILES / PER_DIRECTORY);
  for (let d = 0; d < dirs; d++) {
    await c.do('mkdir', `${world.lower}/d${d}`);
    await c.batch(Array.from({ length: PER_DIRECTORY }, (_, i) => ['mknod', `${world.lower}/d${d}/f${i}`, 0o100644] as const));
  }
  await world.mount('palimpsest');
  const daemon = await daemonPid(world.mountpoint);
  const start = residentKib(daemon);

  const found = await runOk('find', [world.root, '-type', 'f', '-size', '0', '-perm', '644'], { limitMs: HOUR_MS });
  assert.equal(found.stdout.trimEnd().split('\n').length, dirs * PER_DIRECTORY);
  const known = residentKib(daemon);
  t.diagnostic(`daemon: ${start} KiB at first, ${known} KiB with ${FILES} known inodes: ${(((known - start) * 1024) / FILES).toFixed(0)} bytes each`);

  for (let d = 0; d < dirs; d += 7) await c.do('writeFile', `${world.root}/d${d}/f1`, 'copied up');
  t.diagnostic(`${openDescriptors(daemon)} descriptors open, ${residentKib(daemon)} KiB`);

  fs.writeFileSync('/proc/sys/vm/drop_caches', '2');
  // Forgets come as requests: one that is answered after them shows that they have been served.
  await c.do('mkdir', `${world.root}/after-forget`);
  t.diagnostic(`after the kernel forgot: ${residentKib(daemon)} KiB`);
  assert.equal(await c.do('readFile', `${world.root}/d0/f1`), 'copied up');

  const inos = await c.do('lstat', `${world.root}/d1/f500`);
  await world.remount();
  assert.equal((await c.do('lstat', `${world.root}/d1/f500`)).ino, inos.ino);
  await runOk('rm', ['-rf', ...(await c.do('names', world.root)).map((n) => `${world.root}/${n}`)], { limitMs: HOUR_MS });
  assert.deepEqual(await c.do('names', world.root), []);
  t.diagnostic(`after rm -rf: ${residentKib(await daemonPid(world.mountpoint))} KiB`);
  await world.remount();
  assert.deepEqual(await c.do('names', world.root), []);
});
