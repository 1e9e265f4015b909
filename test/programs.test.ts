/**
 * Real programs on a mounted union: the same exit status and the same tree as on a plain directory.
 *
 * Left out of comparisons, each with its reason in place: what holds inode numbers, times or the
 * path of the directory it was made in.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { CACHE, Unavailable, debianBase, debianSource, need } from './support/cache.ts';
import { killPid, registerProcess } from './support/cleanup.ts';
import { Random } from './support/ops.ts';
import { assertSameTree, readTree, type CompareOptions } from './support/tree.ts';
import {
  REPOSITORY,
  World,
  makeWorld,

  run,
  runOk,
  scratch,
  subjects,
  unable,
  type Finished,
  type SubjectKind,
} from './support/world.ts';

const skip = unable() ?? false;
const HERE = import.meta.dirname;

/** The program changes its directory itself: a spawn into a hung mount would hang the test. */
function runIn(dir: string, command: string, args: readonly string[], limitMs = 300_000): Promise<Finished> {
  const env = {
    ...process.env,
    HOME: '/nonexistent',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_AUTHOR_DATE: '2020-01-01T00:00:00Z',
    GIT_COMMITTER_DATE: '2020-01-01T00:00:00Z',
    GIT_AUTHOR_NAME: 'a',
    GIT_AUTHOR_EMAIL: 'a@example.org',
    GIT_COMMITTER_NAME: 'a',
    GIT_COMMITTER_EMAIL: 'a@example.org',
  };
  return run('sh', ['-c', 'cd "$1" && shift && exec "$@"', 'sh', dir, command, ...args], { limitMs, env, cwd: '/' });
}

function test_(name: string, body: (t: TestContext) => Promise<void>): void {
  test(name, { skip }, async (t) => {
    try {
      await body(t);
    } catch (e) {
      if (!(e instanceof Unavailable)) throw e;
      t.skip(e.message);
    }
  });
}

interface Comparison {
  readonly on: 'tmpfs' | 'disk';
  readonly prepare?: (world: World) => Promise<void>;
  /** Done on both; what it returns must be equal. */
  readonly load: (root: string, kind: SubjectKind) => Promise<unknown>;
  readonly compare: CompareOptions;
  /** Asked of the subject after a remount. */
  readonly after?: (root: string) => Promise<void>;
}

/** The load on a plain directory and on each subject, then both trees, then both again after a remount. */
async function compareWithPlain(t: TestContext, comparison: Comparison): Promise<void> {
  const world = makeWorld(t, { on: comparison.on });
  await comparison.prepare?.(world);
  await world.mount('plain');
  const wantedResult = await comparison.load(world.root, 'plain');
  const wanted = await readTree(world.caller, world.root);
  await world.unmount();
  const [kind] = subjects();
  await world.mount(kind!);
  assert.deepEqual(await comparison.load(world.root, kind!), wantedResult);
  assertSameTree(wanted, await readTree(world.caller, world.root), 'after the load', comparison.compare);
  await world.remount();
  assertSameTree(wanted, await readTree(world.caller, world.root), 'after a remount', comparison.compare);
  await comparison.after?.(world.root);
}

test_('git: init, clone, checkout, gc, fsck', async (t) => {
  await need('git');
  const script = `
    set -e
    git init -q -b main fresh
    (cd fresh && cp -r ../given/. . && git add . && git commit -q -m one && git rm -q -r sub && git commit -q -m two)
    git -c safe.directory='*' clone -q --no-hardlinks "$1" clone
    cd clone
    git config pack.threads 1
    git checkout -q HEAD~1
    git checkout -q -
    git branch other && git checkout -q other
    echo change >> README.md; git commit -q -a -m change || true
    git checkout -q -
    git gc -q --prune=now
    git fsck --full --strict
    git status --porcelain
    git cat-file --batch-all-objects --batch-check
    git -C ../fresh fsck
    git -C ../fresh log --format=%H`;
  await compareWithPlain(t, {
    on: 'disk',
    prepare: async ({ lower }) => {
      fs.mkdirSync(path.join(lower, 'given/sub'), { recursive: true });
      for (let i = 0; i < 200; i++) fs.writeFileSync(path.join(lower, `given/sub/${i}`), `${i}\n`.repeat(i));
    },
    load: async (root) => {
      const { status, stdout, stderr } = await runIn(root, 'sh', ['-c', script, 'sh', REPOSITORY]);
      assert.equal(status, 0, stderr);
      return stdout;
    },
    // The index holds inode numbers and times; logs hold the clock. How gc packs the clone's objects
    // hangs on the seconds in which its packs were copied and on the order readdir gives them: what
    // is in them is in the output.
    compare: {
      contents: (p) => !/\.git\/(index|logs\/|FETCH_HEAD)/.test(p),
      ignore: (p) => /^clone\/\.git\/objects\/(pack\/|info\/packs)/.test(p),
    },
    after: async (root) => {
      for (const dir of ['clone', 'fresh']) {
        const { status, stdout, stderr } = await runIn(`${root}/${dir}`, 'git', ['status', '--porcelain']);
        assert.deepEqual([status, stdout], [0, ''], stderr);
      }
    },
  });
});

test_('npm ci of a project of 400 packages', async (t) => {
  await need('npm');
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
  const cache = ['--cache', path.join(CACHE, 'npm')];
  fs.mkdirSync(CACHE, { recursive: true });
  await compareWithPlain(t, {
    on: 'disk',
    prepare: async ({ lower }) => fs.cpSync(path.join(HERE, 'fixtures/npm-project'), lower, { recursive: true }),
    load: async (root, kind) => {
      const { status, stderr } = await runIn(root, 'npm', ['ci', ...options, ...cache]);
      if (kind === 'plain' && status !== 0) throw new Unavailable(`npm ci fails here: ${stderr.slice(0, 300)}`);
      assert.equal(status, 0, stderr);
      const packages = JSON.parse((await runIn(root, 'npm', ['ls', '--all', '--json'])).stdout) as object;
      return packages;
    },
    compare: {},
    after: async (root) => {
      const { status, stdout } = await runIn(root, 'npx', ['--no-install', 'mocha', '--version']);
      assert.deepEqual([status, /^\d+\./.test(stdout)], [0, true]);
    },
  });
});

test_('make -j4 of a C source package, in place', async (t) => {
  await need('make', 'cc');
  const source = await debianSource('zlib');
  await compareWithPlain(t, {
    on: 'disk',
    prepare: async ({ lower }) => void (await runOk('cp', ['-a', `${source}/source/.`, lower])),
    load: async (root) => {
      const configured = await runIn(root, 'sh', ['./configure']);
      assert.equal(configured.status, 0, configured.stdout + configured.stderr);
      const made = await runIn(root, 'make', ['-j4']);
      assert.equal(made.status, 0, made.stderr);
      const tested = await runIn(root, 'make', ['test']);
      assert.equal(tested.status, 0, tested.stderr);
      // Nothing is out of date: the times of files are in order.
      const again = await runIn(root, 'make', ['-q', 'all']);
      return [tested.stdout.includes('*** zlib test OK ***'), again.status];
    },
    // The log of configure names the time and temporary files.
    compare: { contents: (p) => p !== 'configure.log', ignore: (p) => p === 'configure.log' },
    after: async (root) => {
      assert.equal((await runIn(root, 'make', ['-q', 'all'])).status, 0, 'make wants to build again after a remount');
    },
  });
});

const PACKAGES = ['less', 'file', 'nano', 'python3.11-minimal', 'bc', 'dc', 'hello', 'wget', 'cpio', 'ed', 'time', 'rsync', 'xxd', 'tree', 'zip', 'unzip', 'm4', 'patch', 'dos2unix', 'jq', 'pv', 'bison'];

test_('dpkg -i of 30 packages in a chroot over a read-only Debian', async (t) => {
  const base = await debianBase(PACKAGES);
  const debs = fs.readdirSync(path.join(base, 'debs')).sort();
  assert.ok(debs.length >= 30, `${debs.length} packages`);
  const world = makeWorld(t, { on: 'disk' });
  const before = await readTree(world.caller, path.join(base, 'root'));
  fs.rmdirSync(world.lower);
  fs.symlinkSync(path.join(base, 'root'), world.lower);
  const load = async (root: string): Promise<unknown> => {
    await runOk('sh', ['-c', 'mkdir "$2/debs" && cp "$1"/*.deb "$2/debs"', 'sh', path.join(base, 'debs'), root]);
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
    const options = { env, limitMs: 400_000 };
    const installed = await run('chroot', [root, 'sh', '-c', 'dpkg -i /debs/*.deb'], options);
    assert.equal(installed.status, 0, installed.stderr.slice(-2000));
    const audit = await run('chroot', [root, 'sh', '-c', 'dpkg --audit && dpkg -V && hello && python3.11 -c "print(6*7)"'], options);
    return [audit.status, audit.stdout];
  };
  const plain = scratch('disk');
  t.after(() => plain.dispose());
  await runOk('cp', ['-a', path.join(base, 'root'), `${plain.dir}/root`]);
  const wantedResult = await load(`${plain.dir}/root`);
  const wanted = await readTree(world.caller, `${plain.dir}/root`);
  await world.mount(subjects()[0]!);
  assert.deepEqual(await load(world.root), wantedResult);
  // Logs hold the clock; the loader's cache and compiled Python hold inode numbers and times.
  const own = /^var\/log\/|^var\/cache\/ldconfig\/|__pycache__|^etc\/.*-$|^var\/cache\/debconf\//;
  const compare: CompareOptions = { contents: (p) => !own.test(p), ignore: (p) => p === 'debs' || p.startsWith('debs/') };
  assertSameTree(wanted, await readTree(world.caller, world.root), 'after dpkg -i', compare);
  await world.remount();
  assertSameTree(wanted, await readTree(world.caller, world.root), 'after a remount', compare);
  const after = await readTree(world.caller, path.join(base, 'root'));
  assertSameTree(before, after, 'the read-only base', { mtimes: true, directoryNlink: true });
});

/** Starts a client that says a number per commit, and kills it when it has said `count` of them. */
function killAfter(command: string, args: readonly string[], count: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
    const registration = registerProcess(child.pid!);
    let said = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
      if (said.split('\n').length > count) killPid(child.pid!, 'SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('latin1')));
    child.on('error', reject);
    child.on('close', (status, signal) => {
      registration.release();
      if (signal !== 'SIGKILL') reject(new Error(`the client ended by itself: ${status} ${stderr}`));
      else resolve(Number(said.trimEnd().split('\n').at(-1)) + 1);
    });
  });
}

interface Database {
  readonly write: (root: string, from: number) => [string, string[]];
  readonly check: (root: string, count: number) => [string, string[]];
}

async function killClients(t: TestContext, database: Database, prepare: (world: World) => Promise<void>): Promise<void> {
  const world = makeWorld(t, { on: 'disk' });
  const random = new Random(7);
  await prepare(world);
  await world.mount(subjects()[0]!);
  let count = 0;
  const check = async (): Promise<void> => {
    count = Number((await runOk(...database.check(world.root, count))).stdout);
  };
  for (let round = 0; round < 6; round++) {
    count = await killAfter(...database.write(world.root, count), 10 + random.below(60));
    await check();
    if (round === 2) {
      await world.remount();
      await check();
    }
  }
  await world.remount();
  await check();
  t.diagnostic(`${count} records survived`);
}

test_('SQLite in WAL mode, its client killed', async (t) => {
  const client = path.join(HERE, 'support/sqlite-client.ts');
  await killClients(
    t,
    {
      write: (root, from) => [process.execPath, [client, 'write', `${root}/db`, String(from)]],
      check: (root, count) => [process.execPath, [client, 'check', `${root}/db`, String(count)]],
    },
    // The database comes from the lower branch: its first write is a copy-up.
    async ({ lower }) => void (await killAfter(process.execPath, [client, 'write', `${lower}/db`, '0'], 20).then(
      () => runOk('rm', [`${lower}/db`, `${lower}/db-wal`, `${lower}/db-shm`]),
    )),
  );
});

test_('LMDB with a writable map, its client killed', async (t) => {
  await need('cc');
  const bin = scratch('disk');
  t.after(() => bin.dispose());
  const client = path.join(bin.dir, 'lmdb-client');
  const build = () => run('cc', ['-O1', '-o', client, path.join(HERE, 'support/lmdb-client.c'), '-llmdb']);
  let built = await build();
  if (built.status !== 0) {
    // What this needs of Debian it fetches itself; if it cannot, the reason is in the compiler's words.
    const install = 'apt-get -qq update; apt-get install -y -qq --no-install-recommends liblmdb-dev';
    await run('sh', ['-c', install], { limitMs: 180_000 });
    built = await build();
  }
  if (built.status !== 0) throw new Unavailable(`cannot build with liblmdb: ${built.stderr.slice(0, 200)}`);
  await killClients(
    t,
    {
      write: (root, from) => [client, ['write', `${root}/db`, String(from)]],
      check: (root, count) => [client, ['check', `${root}/db`, String(count)]],
    },
    async ({ lower }) => fs.mkdirSync(`${lower}/db`),
  );
});

/** An ordinary user with a home of their own; a tree of theirs; `palimpsest run` in it. */
test_('an ordinary user: git and make through `palimpsest run`', async (t) => {
  if (!subjects().includes('palimpsest')) throw new Unavailable('palimpsest is not among the subjects');
  await need('git', 'make', 'cc', 'setpriv');
  const { dir, dispose } = scratch('disk');
  t.after(() => dispose());
  const [uid, gid] = [54_321, 54_321];
  const home = path.join(dir, 'home');
  const script = `
    set -e
    export HOME="$1" GIT_CONFIG_GLOBAL=/dev/null GIT_COMMITTER_DATE=2020-01-01T00:00:00Z GIT_AUTHOR_DATE=2020-01-01T00:00:00Z
    git init -q -b main .
    git add . && git -c user.name=a -c user.email=a@example.org commit -q -m one
    git mv sub moved && git -c user.name=a -c user.email=a@example.org commit -q -m two
    git gc -q && git fsck --full
    make -s -j4 && ./program
    rm -r gone; mkdir gone; ln program linked; chmod 700 moved
    git log --format=%H
    find . -path ./.git -prune -o -printf '%p %y %m %n %s %l %u\\n' | grep -v ' d ' | sort
    find . -path ./.git -prune -o -type f -print | sort | xargs sha1sum
    exit 7`;
  const fill = (to: string): void => {
    fs.mkdirSync(path.join(to, 'sub'), { recursive: true });
    fs.mkdirSync(path.join(to, 'gone/deep'), { recursive: true });
    fs.writeFileSync(path.join(to, 'gone/deep/file'), 'gone');
    fs.writeFileSync(path.join(to, 'main.c'), '#include <stdio.h>\nint main(void) { puts("it runs"); return 0; }\n');
    fs.writeFileSync(path.join(to, 'Makefile'), 'program: main.c\n\tcc -O0 -o $@ $<\n');
    for (let i = 0; i < 50; i++) fs.writeFileSync(path.join(to, `sub/${i}`), `${i}\n`);
  };
  for (const name of ['home', 'plain', 'tree']) fs.mkdirSync(path.join(dir, name));
  fill(path.join(dir, 'plain'));
  fill(path.join(dir, 'tree'));
  await runOk('chown', ['-R', `${uid}:${gid}`, dir]);
  // A device that the user may open, as on an ordinary machine, in a namespace of the test's own.
  await runOk('sh', ['-c', 'mknod -m 666 "$1/fuse" c 10 229 && chown root: "$1/fuse"', 'sh', dir]);
  const become = ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
  const inside = 'mount --bind "$1/fuse" /dev/fuse && shift && exec "$@"';
  const asUser = (args: string[]): Promise<Finished> =>
    run('unshare', ['--mount', 'sh', '-c', inside, 'sh', dir, ...become, ...args], {
      cwd: '/',
      env: { PATH: process.env['PATH'], HOME: home, XDG_RUNTIME_DIR: home },
      limitMs: 120_000,
    });
  const plain = await asUser(['sh', '-c', 'cd "$1" && shift && exec "$@"', 'sh', path.join(dir, 'plain'), 'sh', '-c', script, 'sh', home]);
  assert.equal(plain.status, 7, plain.stderr);
  const cli = [process.execPath, path.join(REPOSITORY, 'bin/palimpsest.cjs')];
  const ran = await asUser([...cli, 'run', '--workspace', 'w', '--on-exit', 'keep', '-C', path.join(dir, 'tree'), '--', 'sh', '-c', script, 'sh', home]);
  assert.equal(ran.status, 7, ran.stderr);
  assert.equal(ran.stdout, plain.stdout);
  assert.deepEqual(fs.readdirSync(path.join(dir, 'tree')).sort(), ['Makefile', 'gone', 'main.c', 'sub']);
  const listed = await asUser([...cli, 'run', '--workspace', 'w', '--on-exit', 'keep', '-C', path.join(dir, 'tree'), '--', 'sh', '-c', 'git status --porcelain --ignored; ls']);
  assert.deepEqual([listed.status, listed.stdout], [0, ' D gone/deep/file\n?? linked\n?? program\nMakefile\ngone\nlinked\nmain.c\nmoved\nprogram\n'], listed.stderr);
  const discarded = await asUser([...cli, 'discard', 'w']);
  assert.equal(discarded.status, 0, discarded.stderr);
});
