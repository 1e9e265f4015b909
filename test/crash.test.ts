/**
 * kill -9 of the daemon under load, and branches that fill up: what was promised is kept, and nothing
 * half done is to be seen.
 *
 * The moment of a kill is a number of steps of the load, taken from the seed; where the daemon is in
 * its work at that moment is chance. PALIMPSEST_CRASHES says how many kills, PALIMPSEST_FROM the seed.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { O_RDWR } from '../src/abi/fcntl.ts';
import { killPid, registerProcess } from './support/cleanup.ts';
import { CrashModel, blockOf, type Step } from './support/crash-model.ts';
import { Random } from './support/ops.ts';
import { readTree } from './support/tree.ts';
import { World, makeWorld, palimpsest, runOk, scratch, subjects, unable } from './support/world.ts';

const CRASHES = Number(process.env['PALIMPSEST_CRASHES'] ?? 100);
const FROM = Number(process.env['PALIMPSEST_FROM'] ?? 1);
/** Kills in one world, before a fresh one with an untouched lower branch. */
const KILLS_PER_WORLD = 10;
const MIB = 1 << 20;

const skip = unable() ?? (subjects().includes('palimpsest') ? false : 'palimpsest is not among the subjects');

async function daemonPid(mountpoint: string): Promise<number> {
  const { stdout } = await palimpsest(['ls', '--json']);
  const records = stdout.trim().split('\n').map((line) => JSON.parse(line) as { target?: string; pid?: number });
  const pid = records.find((r) => r.target === mountpoint)?.pid;
  assert.ok(pid !== undefined, `no daemon of ${mountpoint} in ${stdout}`);
  return pid;
}

/** Lower files whose every block says what it is, hard links and directories among them. */
function fillLower(lower: string, model: CrashModel): void {
  const write = (name: string, blocks: number): void => {
    const id = model.addFile(name, blocks);
    const content = Array.from({ length: blocks }, (_, b) => blockOf(id, b, 0)).join('');
    fs.writeFileSync(path.join(lower, name), content, { mode: 0o644 });
  };
  for (const dir of ['d', 'd/e', 'g']) {
    fs.mkdirSync(path.join(lower, dir), { mode: 0o755 });
    model.addDirectory(dir);
  }
  for (let i = 0; i < 12; i++) write(`${['d', 'd/e', 'g'][i % 3]}/f${i}`, 1 + i);
  write('big', 1024);
  write('d/big', 1024);
  for (const name of ['d/f0', 'g/f2']) {
    fs.linkSync(path.join(lower, name), path.join(lower, `${name}-link`));
    model.nodes.set(`${name}-link`, model.nodes.get(name)!);
  }
}

/** Runs the load until `moment` steps are done, kills the daemon, says how many were done in the end. */
function loadAndKill(root: string, stepsFile: string, moment: number, daemon: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const client = path.join(import.meta.dirname, 'support/crash-client.ts');
    const child = spawn(process.execPath, [client, root, stepsFile], { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
    const registration = registerProcess(child.pid!);
    let said = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
      // `begin` is a line too: after `moment` steps there are moment + 1 lines.
      if (said.split('\n').length - 1 > moment) killPid(daemon, 'SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('latin1')));
    child.on('error', reject);
    child.on('close', () => {
      registration.release();
      const done = said.trimEnd().split('\n').length - 1;
      if (said.includes('end\n') || done < moment) reject(new Error(`the load ended at step ${done}, not by the kill: ${stderr}`));
      else resolve(done);
    });
  });
}

async function verify(world: World, before: CrashModel, under: Step): Promise<CrashModel> {
  const tree = await readTree(world.caller, world.root);
  const contents = new Map<string, string>();
  for (const entry of tree) {
    if ((entry.stat.mode & 0o170000) !== 0o100000) continue;
    contents.set(entry.path, await world.caller.do('readFile', `${world.root}/${entry.path}`));
    for (const problem of entry.problems) assert.fail(`${entry.path}: ${problem}`);
  }
  const content = (name: string): string => contents.get(name) ?? '';
  const after = before.clone();
  after.takeNumbers(before);
  after.apply(under, false);
  const temporary = under.kind === 'replace' ? under.temporary : undefined;
  const candidates = [before, after];
  const differences = candidates.map((m) => [...m.check(tree, content, m === before ? temporary : undefined)]);
  const fits = differences.findIndex((d) => d.length === 0);
  if (fits === -1) {
    const [one, two] = differences.map((d) => d.slice(0, 10).join('\n    '));
    assert.fail(`step under way: ${JSON.stringify(under)}\n  if it has not happened:\n    ${one}\n  if it has:\n    ${two}`);
  }
  const model = candidates[fits]!;
  if (temporary !== undefined && contents.has(temporary)) await world.caller.do('unlink', `${world.root}/${temporary}`);
  model.settle(content);
  return model;
}

async function killOnce(world: World, model: CrashModel, r: Random): Promise<CrashModel> {
  const moment = r.below(60);
  const planned = model.clone();
  planned.takeNumbers(model);
  const steps: Step[] = [];
  for (let i = 0; i < moment + 2000; i++) {
    const step = planned.step(r);
    planned.apply(step, true);
    steps.push(step);
  }
  const file = path.join(world.dir, 'steps.json');
  fs.writeFileSync(file, JSON.stringify(steps));
  const done = await loadAndKill(world.root, file, moment, await daemonPid(world.mountpoint));
  model.takeNumbers(planned);
  for (const step of steps.slice(0, done)) model.apply(step, true);
  const cleaned = await palimpsest(['umount', world.mountpoint]);
  assert.equal(cleaned.status, 0, `umount of a dead mount: ${cleaned.stderr}`);
  world.forceDown();
  await world.mount('palimpsest');
  assert.deepEqual(fs.readdirSync(path.join(world.work, 'work')), [], 'the work directory after the next mount');
  return verify(world, model, steps[done]!);
}

/** Ends like a world, but early and with the failure. */
async function killMany(t: TestContext, seed: number, kills: number): Promise<void> {
  const world = makeWorld(t, { on: seed % 5 === 0 ? 'disk' : 'tmpfs' });
  const r = new Random(seed);
  let model = new CrashModel();
  fillLower(world.lower, model);
  await world.mount('palimpsest');
  for (let i = 0; i < kills; i++) {
    try {
      model = await killOnce(world, model, r);
    } catch (e) {
      throw new Error(`SEED=${seed}, kill ${i + 1}: ${e instanceof Error ? e.message : String(e)}`, { cause: e });
    }
  }
}

test(`kill -9 of the daemon at ${CRASHES} moments`, { skip }, async (t) => {
  for (let seed = FROM; (seed - FROM) * KILLS_PER_WORLD < CRASHES; seed++) {
    await t.test(`seed ${seed}, ${KILLS_PER_WORLD} kills`, (t2) => killMany(t2, seed, KILLS_PER_WORLD));
  }
});

for (const kind of subjects()) {
  test(`${kind}: a branch that fills up`, { skip: unable() ?? false }, async (t) => {
    const small = scratch('tmpfs', '8m');
    const world = makeWorld(t, { on: 'disk' });
    t.after(() => small.dispose());
    for (const name of ['upper', 'work']) {
      fs.rmdirSync(path.join(world.dir, name));
      fs.mkdirSync(path.join(small.dir, name), { mode: 0o755 });
      fs.symlinkSync(path.join(small.dir, name), path.join(world.dir, name));
    }
    const c = world.caller;
    const fd = await c.do('open', `${world.lower}/big`, O_RDWR | 0o100);
    for (let at = 0; at < 20 * MIB; at += 6 * MIB) {
      await c.do('pwrite', fd, 'lower '.repeat(MIB).slice(0, Math.min(6 * MIB, 20 * MIB - at)), at);
    }
    await c.do('close', fd);
    await c.do('writeFile', `${world.lower}/small`, 'small');
    const wanted = await readTree(c, world.lower);
    await world.mount(kind);
    const root = world.root;

    // Copy-up has not the room: the write fails, at once or when it is flushed, and the old file stays.
    const attempt = async (): Promise<string> => {
      const big = await c.code('open', `${root}/big`, O_RDWR);
      if (big !== 'OK') return big;
      const open = await c.do('open', `${root}/big`, O_RDWR);
      const written = await c.code('pwrite', open, 'UPPER', 10 * MIB);
      const synced = await c.code('fsync', open);
      const closed = await c.code('close', open);
      await c.do('closeAll');
      return [written, synced, closed].find((code) => code !== 'OK') ?? 'OK';
    };
    assert.equal(await attempt(), 'ENOSPC');
    assert.deepEqual(fs.existsSync(path.join(small.dir, 'work/work')) ? fs.readdirSync(path.join(small.dir, 'work/work')) : [], []);
    // The page that could not be written back may still be in the page cache, as on any filesystem;
    // all else is the old file, and after a remount the old file is all there is.
    const old = 'lower '.repeat(4 * MIB).slice(0, 20 * MIB);
    const now = await c.do('readFile', `${root}/big`);
    assert.equal(now.length, 20 * MIB);
    assert.ok(now.slice(0, 10 * MIB) + now.slice(10 * MIB + 5) === old.slice(0, 10 * MIB) + old.slice(10 * MIB + 5));
    assert.ok(['UPPER', old.slice(10 * MIB, 10 * MIB + 5)].includes(now.slice(10 * MIB, 10 * MIB + 5)));
    assert.equal(await c.code('writeFile', `${root}/small`, 'SMALL'), 'OK', 'a small file still fits');
    await world.remount();
    assert.equal((await readTree(c, root)).find((e) => e.path === 'big')!.hash, wanted.find((e) => e.path === 'big')!.hash);

    // A new file that does not fit: an error, not silence; and room again once it is removed.
    const filler = await c.do('open', `${root}/filler`, O_RDWR | 0o100);
    const codes = [await c.code('fill', filler, 'x', 0, 12 * MIB), await c.code('fsync', filler), await c.code('close', filler)];
    assert.ok(codes.includes('ENOSPC'), codes.join(' '));
    await c.do('closeAll');
    await c.do('unlink', `${root}/filler`);
    await runOk('mount', ['-o', 'remount,size=64m', small.dir]);
    assert.equal(await attempt(), 'OK');
    const back = await c.do('open', `${root}/big`, O_RDWR);
    assert.equal((await c.do('pread', back, 7, 10 * MIB - 1)).slice(1, 6), 'UPPER');
    assert.equal((await c.do('fstat', back)).size, 20 * MIB);
    await c.do('close', back);
    await world.remount();
    assert.equal(await c.do('readFile', `${root}/small`), 'SMALL');
  });
}
