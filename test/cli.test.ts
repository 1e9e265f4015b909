/** The command line from end to end: real mounts, real processes, real signals. */
import { strict as assert } from 'node:assert';
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { mountFuse } from '../src/fuse/mount.ts';

const PROGRAM = path.join(import.meta.dirname, '../bin/palimpsest.cjs');
/** Long enough for a machine that does other things too; nothing here waits for it when all is well. */
const COMMAND_MS = 60_000;
const POLL_MS = 20;

const isRoot = process.geteuid?.() === 0;
const skip = !isRoot
  ? 'needs root: mounts, and another user'
  : fs.existsSync('/dev/fuse')
    ? false
    : 'no /dev/fuse';

class Bench {
  readonly dir: string;
  readonly env: NodeJS.ProcessEnv;

  constructor(t: TestContext) {
    this.dir = fs.realpathSync(fs.mkdtempSync('/var/tmp/palimpsest-cli-'));
    this.env = {
      ...process.env,
      HOME: this.dir,
      XDG_STATE_HOME: this.at('state'),
      XDG_CACHE_HOME:
        process.env['XDG_CACHE_HOME'] ?? path.join(process.env['HOME'] ?? '/root', '.cache'),
      PALIMPSEST_RUNTIME_DIR: this.at('runtime'),
      NO_COLOR: '1',
    };
    for (const name of ['upper', 'lower', 'view', 'tree']) fs.mkdirSync(this.at(name));
    t.after(() => this.#clean());
  }

  at(...parts: string[]): string {
    return path.join(this.dir, ...parts);
  }

  write(name: string, text: string): void {
    fs.mkdirSync(path.dirname(this.at(name)), { recursive: true });
    fs.writeFileSync(this.at(name), text);
  }

  read(name: string): string {
    return fs.readFileSync(this.at(name), 'utf8');
  }

  run(...args: string[]): SpawnSyncReturns<string> {
    return this.runIn(this.at('tree'), ...args);
  }

  runIn(cwd: string, ...args: string[]): SpawnSyncReturns<string> {
    const options = { cwd, env: this.env, encoding: 'utf8', timeout: COMMAND_MS } as const;
    return spawnSync(process.execPath, [PROGRAM, ...args], {
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Status 0, or the test fails with what was said. */
  ok(...args: string[]): string {
    const result = this.run(...args);
    assert.equal(result.status, 0, `palimpsest ${args.join(' ')}: ${result.stderr}`);
    return result.stdout;
  }

  fails(status: number, message: RegExp, ...args: string[]): void {
    const result = this.run(...args);
    assert.match(result.stderr, message);
    assert.equal(result.status, status, result.stderr);
  }

  mount(): void {
    const branches = ['--branch', `${this.at('upper')}=rw`, '--branch', this.at('lower')];
    this.ok('mount', ...branches, this.at('view'));
  }

  isMounted(name = 'view'): boolean {
    return fs.readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${this.at(name)} `);
  }

  record(): { pid: number; plan: { target: string } } {
    const directory = this.at('runtime');
    const name = fs.readdirSync(directory).find((file) => /^\d+\.json$/.test(file));
    assert.ok(name !== undefined, 'a daemon has its record');
    return JSON.parse(fs.readFileSync(path.join(directory, name), 'utf8')) as ReturnType<
      Bench['record']
    >;
  }

  workspaces(): string[] {
    const directory = this.at('state/palimpsest/workspaces');
    return fs.existsSync(directory) ? fs.readdirSync(directory) : [];
  }

  #clean(): void {
    const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    for (const line of mounts.toReversed()) {
      const target = line.split(' ')[4];
      if (target !== undefined && target.startsWith(`${this.dir}/`))
        spawnSync('umount', ['-l', target]);
    }
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    if (
      (error as NodeJS.ErrnoException).code !== 'ENOENT' &&
      (error as NodeJS.ErrnoException).code !== 'ESRCH'
    )
      throw error;
    return false;
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let waited = 0; waited < COMMAND_MS; waited += POLL_MS) {
    if (condition()) return;
    await sleep(POLL_MS);
  }
  assert.fail(`waited too long for: ${what}`);
}

// -- mount and umount --

test('mount, write, umount: flushed, and the daemon has gone', { skip }, (t) => {
  const b = new Bench(t);
  b.write('lower/f', 'old\n');
  b.mount();
  const { pid } = b.record();
  b.write('view/new', 'new\n');
  fs.appendFileSync(b.at('view/f'), 'more\n');
  b.ok('umount', b.at('view'));
  assert.equal(isAlive(pid), false);
  assert.equal(b.isMounted(), false);
  assert.equal(b.read('upper/new'), 'new\n');
  assert.equal(b.read('upper/f'), 'old\nmore\n');
  assert.equal(b.read('lower/f'), 'old\n');
  assert.deepEqual(
    fs.readdirSync(b.at('runtime')).filter((name) => !name.endsWith('.log')),
    [],
  );
});

test('dirty pages of many files are on the branch when umount returns', { skip }, (t) => {
  const b = new Bench(t);
  b.mount();
  const block = Buffer.alloc(1 << 20, 7);
  for (let i = 0; i < 32; i++) fs.writeFileSync(b.at('view', `big${i}`), block);
  b.ok('umount', b.at('view'));
  for (let i = 0; i < 32; i++) {
    assert.ok(fs.readFileSync(b.at('upper', `big${i}`)).equals(block), `big${i} is whole`);
  }
});

test("the kernel overlayfs's words, and findmnt's columns", { skip }, (t) => {
  const b = new Bench(t);
  fs.mkdirSync(b.at('l2'));
  fs.mkdirSync(b.at('work'));
  b.write('lower/a', '1');
  b.write('l2/a', '2');
  b.write('l2/b', '2');
  const lowers = `${b.at('lower')}:${b.at('l2')}`;
  b.ok(
    'mount',
    '-o',
    `lowerdir=${lowers},upperdir=${b.at('upper')},workdir=${b.at('work')}`,
    b.at('view'),
  );
  assert.equal(b.read('view/a') + b.read('view/b'), '12');
  const found = spawnSync('findmnt', ['-n', '-o', 'FSTYPE,SOURCE', b.at('view')], {
    encoding: 'utf8',
  });
  assert.match(found.stdout, /^fuse\.palimpsest .*upper=rw:.*lower=ro:.*l2=ro/);
  b.ok('umount', b.at('view'));
});

test('read-only: by option, and without a writable branch', { skip }, (t) => {
  const b = new Bench(t);
  b.write('lower/a', '1');
  for (const args of [
    ['--lower', b.at('lower')],
    ['-r', '--branch', `${b.at('lower')}=rw`],
  ]) {
    b.ok('mount', ...args, b.at('view'));
    assert.throws(() => b.write('view/new', ''), { code: 'EROFS' });
    b.ok('umount', b.at('view'));
  }
});

test('mount without arguments, ls and status show it', { skip }, (t) => {
  const b = new Bench(t);
  b.mount();
  const { pid } = b.record();
  assert.ok(b.ok('mount').includes(b.at('view')));
  const lines = b.ok('ls', '--json').trim().split('\n');
  const listed = lines.map(
    (line) => JSON.parse(line) as { target: string; pid: number; state: string },
  );
  const ours = listed.find((mount) => mount.target === b.at('view'));
  assert.equal(ours?.state, 'mounted');
  assert.equal(ours?.pid, pid);
  const status = JSON.parse(b.ok('status', '--json', b.at('view'))) as {
    daemon: { knownNodes: number };
  };
  assert.ok(status.daemon.knownNodes >= 1);
  b.ok('umount', b.at('view'));
});

test(
  'a branch that is a mount of its own keeps its work directory inside, out of sight',
  { skip },
  (t) => {
    const b = new Bench(t);
    if (spawnSync('mount', ['-t', 'tmpfs', 'none', b.at('upper')]).status !== 0) {
      t.skip('no tmpfs here');
      return;
    }
    b.write('lower/a', '1');
    b.mount();
    fs.appendFileSync(b.at('view/a'), '2');
    assert.deepEqual(fs.readdirSync(b.at('view')), ['a']);
    assert.throws(() => fs.statSync(b.at('view/.palimpsest-work')), { code: 'ENOENT' });
    assert.equal(b.ok('diff', b.at('view')), 'M\ta\n');
    b.ok('discard', b.at('view'));
    assert.equal(b.read('view/a'), '1');
    fs.appendFileSync(b.at('view/a'), '3');
    b.ok('commit', b.at('view'));
    assert.equal(b.read('lower/a'), '13');
    fs.appendFileSync(b.at('view/a'), '4');
    b.ok('umount', b.at('view'));
    assert.equal(b.read('upper/a'), '134');
  },
);

test('a mount in use is not unmounted, and the message names who uses it', { skip }, async (t) => {
  const b = new Bench(t);
  b.mount();
  const user = spawn('sleep', ['1000'], { cwd: b.at('view') });
  t.after(() => user.kill('SIGKILL'));
  await until('the user is there', () => fs.readlinkSync(`/proc/${user.pid}/cwd`) === b.at('view'));
  b.fails(32, new RegExp(`is in use by sleep \\(${user.pid}\\)`), 'umount', b.at('view'));
  assert.equal(b.isMounted(), true);
  const { pid } = b.record();
  b.ok('umount', '--lazy', b.at('view'));
  assert.equal(b.isMounted(), false);
  user.kill('SIGKILL');
  await until('the daemon goes with its last user', () => !isAlive(pid));
});

test('SIGTERM to the daemon unmounts and flushes', { skip }, async (t) => {
  const b = new Bench(t);
  b.mount();
  b.write('view/f', 'kept');
  const { pid } = b.record();
  process.kill(pid, 'SIGTERM');
  await until('the daemon has gone', () => !isAlive(pid));
  assert.equal(b.isMounted(), false);
  assert.equal(b.read('upper/f'), 'kept');
});

test('in the foreground, Ctrl-C unmounts', { skip }, async (t) => {
  const b = new Bench(t);
  const args = [PROGRAM, 'mount', '-f', '--branch', `${b.at('upper')}=rw`, b.at('view')];
  const daemon = spawn(process.execPath, args, { env: b.env, stdio: 'ignore' });
  await until('mounted', () => b.isMounted());
  b.write('view/f', 'x');
  const ended = new Promise((resolve) => daemon.once('exit', (code) => resolve(code)));
  daemon.kill('SIGINT');
  assert.equal(await ended, 0);
  assert.equal(b.read('upper/f'), 'x');
});

// -- a daemon that was killed --

for (const clean of ['umount', 'doctor'] as const) {
  test(`a dead mount is found and cleaned by ${clean}`, { skip }, async (t) => {
    const b = new Bench(t);
    b.mount();
    b.write('view/f', 'x');
    const { pid } = b.record();
    process.kill(pid, 'SIGKILL');
    await until('it is dead', () => !isAlive(pid));
    assert.throws(() => fs.statSync(b.at('view')), /ENOTCONN|ECONNABORTED/);
    assert.match(b.ok('ls'), /dead/);
    b.run(...(clean === 'umount' ? ['umount', b.at('view')] : ['doctor']));
    assert.equal(b.isMounted(), false);
    b.mount();
    b.write('view/g', 'y');
    b.ok('umount', b.at('view'));
    assert.equal(b.read('upper/g'), 'y');
  });
}

// -- refusals: each says which directory, and why --

test('refused mounts', { skip }, (t) => {
  const b = new Bench(t);
  b.write('file', '');
  fs.mkdirSync(b.at('lower/inner'));
  fs.mkdirSync(b.at('upper/mnt'));
  const rw = (name: string): string[] => ['--branch', `${b.at(name)}=rw`];
  const ro = (name: string): string[] => ['--branch', `${b.at(name)}=ro`];
  const view = b.at('view');
  const refused: [RegExp, ...string[]][] = [
    [/branch .*nowhere does not exist/, ...ro('nowhere'), view],
    [/branch .*file is not a directory/, ...ro('file'), view],
    [/mount point .*nowhere does not exist/, ...ro('lower'), b.at('nowhere')],
    [/lower is given twice/, ...rw('lower'), ...ro('lower'), view],
    [
      /branches overlap: .*lower\/inner lies inside .*lower/,
      ...rw('lower/inner'),
      ...ro('lower'),
      view,
    ],
    [/upper\/mnt lies inside the branch .*upper/, ...rw('upper'), b.at('upper/mnt')],
    [/branch .*view lies on the mount point/, ...rw('upper'), ...ro('view'), view],
    [
      /work directory .*overlap/,
      '-o',
      `lowerdir=${b.at('lower')},upperdir=${b.at('upper')},workdir=${b.at('upper/mnt')}`,
      view,
    ],
  ];
  for (const [message, ...args] of refused) b.fails(32, message, 'mount', ...args);
  b.fails(2, /unknown mount option "lowerdri"/, 'mount', '-o', 'lowerdri=/a', view);
  b.fails(2, /unknown option '--nothing'/, 'mount', '--nothing', view);
  b.fails(2, /no branches/, 'mount', view);
  b.fails(32, /nothing of palimpsest is mounted/, 'umount', view);
  assert.equal(b.isMounted(), false);
});

test('an upper in use by another mount is refused, with who has it', { skip }, (t) => {
  const b = new Bench(t);
  fs.mkdirSync(b.at('other'));
  b.mount();
  const message = new RegExp(`upper is in use by the mount at ${b.at('view')}`);
  b.fails(32, message, 'mount', '--branch', `${b.at('upper')}=rw`, b.at('other'));
  b.ok('umount', b.at('view'));
});

test('an upper in use by a kernel overlay is refused', { skip }, (t) => {
  const b = new Bench(t);
  fs.mkdirSync(b.at('work'));
  fs.mkdirSync(b.at('other'));
  const options = `lowerdir=${b.at('lower')},upperdir=${b.at('upper')},workdir=${b.at('work')}`;
  const overlay = spawnSync('mount', ['-t', 'overlay', 'overlay', '-o', options, b.at('other')]);
  if (overlay.status !== 0) {
    t.skip('no kernel overlayfs here');
    return;
  }
  const message = new RegExp(
    `upper is in use: it is the upperdir of the overlay mounted at ${b.at('other')}`,
  );
  b.fails(32, message, 'mount', '--branch', `${b.at('upper')}=rw`, b.at('view'));
});

// -- the mount helper --

test('the mount helper: SPEC, -o, and the words of fstab', { skip }, (t) => {
  const b = new Bench(t);
  b.write('lower/a', '1');
  const spec = `${b.at('upper')}=rw:${b.at('lower')}`;
  b.ok('mount-helper', spec, b.at('view'), '-o', 'rw,noatime,nofail,_netdev,user,dev,suid');
  assert.equal(b.read('view/a'), '1');
  b.ok('umount', b.at('view'));
  b.ok(spec, b.at('view'), '-o', 'rw,dev,suid');
  b.ok('umount', b.at('view'));
  b.ok('mount-helper', 'none', b.at('view'), '-v', '-n', '-o', `lowerdir=${b.at('lower')},ro`);
  b.ok('umount', b.at('view'));
  b.fails(32, /unknown mount option "bad"/, 'mount-helper', spec, b.at('view'), '-o', 'bad');
});

test('a mount that hangs is shown as such, and stops no command', { skip }, (t) => {
  const b = new Bench(t);
  const target = b.at('view');
  const fd = mountFuse({ target, source: 'silent', subtype: 'palimpsest', options: {} });
  try {
    const listed = b.ok('ls', '--json').trim().split('\n').map((line) => JSON.parse(line) as object);
    const ours = listed.find((mount) => 'target' in mount && mount.target === target);
    assert.equal((ours as { state: string } | undefined)?.state, 'hung');
    assert.match(b.run('doctor').stdout, /hung mount.*umount --force/);
    b.ok('umount', '--force', target);
  } finally {
    fs.closeSync(fd);
  }
});

test('mount -t fuse.palimpsest by mount(8), with the helper of doctor', { skip }, (t) => {
  const b = new Bench(t);
  const helper = '/sbin/mount.fuse.palimpsest';
  if (fs.existsSync(helper)) {
    t.skip(`${helper} is there already: it is not this test's to replace`);
    return;
  }
  t.after(() => fs.rmSync(helper, { force: true }));
  b.write('lower/a', '1');
  b.ok('doctor', '--install-mount-helper');
  const spec = `${b.at('upper')}=rw:${b.at('lower')}`;
  const args = [
    '-t',
    'fuse.palimpsest',
    spec,
    b.at('view'),
    '-o',
    'noatime,nofail,x-systemd.automount',
  ];
  const mounted = spawnSync('mount', args, { env: b.env, encoding: 'utf8' });
  assert.equal(mounted.status, 0, mounted.stderr);
  assert.equal(b.read('view/a'), '1');
  b.ok('umount', b.at('view'));
});

// -- run --

test(
  "run: the command sees its changes, the tree does not; status and diff are the command's",
  { skip },
  (t) => {
    const b = new Bench(t);
    b.write('tree/a', 'old\n');
    b.write('tree/d/x', '1');
    const script =
      'echo new > b; echo more >> a; rm -r d; cat a; pwd; echo $PALIMPSEST $PALIMPSEST_WORKSPACE; exit 7';
    const result = b.run('run', '--workspace', 'w', '--', 'sh', '-c', script);
    assert.equal(result.status, 7, result.stderr);
    assert.equal(result.stdout, `old\nmore\n${b.at('tree')}\n1 w\n`);
    assert.match(result.stderr, /1 added, 1 modified, 1 deleted/);
    assert.deepEqual(fs.readdirSync(b.at('tree')).toSorted(), ['a', 'd']);
    assert.equal(b.ok('diff', 'w'), 'M\ta\nA\tb\nD\td/\n');
    assert.equal(b.run('diff', '--exit-code', 'w').status, 1);
    assert.equal(b.ok('run', '-s', 'w', '--', 'cat', 'b'), 'new\n');
  },
);

test('run: what the shell would say: 126, 127, 128+N', { skip }, (t) => {
  const b = new Bench(t);
  b.write('tree/plain', 'x');
  b.fails(127, /nosuch: not found/, 'run', 'nosuch');
  b.fails(126, /plain: not executable/, 'run', './plain');
  assert.equal(b.run('run', 'sh', '-c', 'kill -TERM $$').status, 128 + 15);
  assert.equal(b.run('run', 'sh', '-c', 'kill -KILL $$').status, 128 + 9);
  b.fails(2, /missing required argument/, 'run');
  b.fails(125, /does not exist/, 'run', '-C', b.at('nowhere'), 'true');
  assert.deepEqual(b.workspaces(), [], 'runs that changed nothing leave nothing');
});

test('run: a signal goes to the command, whose end is ours', { skip }, async (t) => {
  const b = new Bench(t);
  const script =
    'trap "echo caught > caught; exit 3" TERM; echo > ready; while :; do sleep 0.05; done';
  const child = spawn(process.execPath, [PROGRAM, 'run', '--workspace', 'w', 'sh', '-c', script], {
    cwd: b.at('tree'),
    env: b.env,
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  const ready = b.at('state/palimpsest/workspaces/w/layers/0/upper/ready');
  await until('the command runs', () => fs.existsSync(ready));
  child.kill('SIGTERM');
  assert.equal(await ended, 3);
  assert.match(b.ok('diff', 'w'), /A\tcaught/);
});

test(
  'run: what the command leaves running is stopped, and cannot reach the real tree',
  { skip },
  (t) => {
    const b = new Bench(t);
    const script = `(while :; do echo late >> ${b.at('tree')}/late; sleep 0.02; done) & sleep 0.1`;
    const result = b.run('run', '--on-exit', 'discard', 'sh', '-c', script);
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stderr, /stopped what the command left running: .*sh/);
    assert.deepEqual(fs.readdirSync(b.at('tree')), []);
  },
);

test('run: killed itself, the view stays until its processes have ended', { skip }, async (t) => {
  const b = new Bench(t);
  const script = `echo > ready; sleep 0.5; echo late > ${b.at('tree')}/late`;
  const child = spawn(process.execPath, [PROGRAM, 'run', '--workspace', 'w', 'sh', '-c', script], {
    cwd: b.at('tree'),
    env: b.env,
    stdio: 'ignore',
  });
  const upper = b.at('state/palimpsest/workspaces/w/layers/0/upper');
  await until('the command runs', () => fs.existsSync(path.join(upper, 'ready')));
  const { pid } = b.record();
  const parent = /^PPid:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  child.kill('SIGKILL');
  process.kill(Number(parent), 'SIGKILL');
  await until('the daemon has gone', () => !isAlive(pid));
  assert.deepEqual(fs.readdirSync(b.at('tree')), []);
  assert.equal(fs.readFileSync(path.join(upper, 'late'), 'utf8'), 'late\n');
});

test('run --on-exit commit and discard', { skip }, (t) => {
  const b = new Bench(t);
  b.write('tree/a', 'old\n');
  b.ok('run', '--on-exit', 'commit', 'sh', '-c', 'echo new > a; mkdir d');
  assert.equal(b.read('tree/a'), 'new\n');
  assert.deepEqual(fs.readdirSync(b.at('tree')), ['a', 'd']);
  b.ok('run', '--on-exit', 'discard', 'sh', '-c', 'rm -r a d');
  assert.deepEqual(fs.readdirSync(b.at('tree')), ['a', 'd']);
  assert.deepEqual(b.workspaces(), []);
  const failed = b.run('run', '--on-exit', 'commit', 'sh', '-c', 'rm a; exit 1');
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /nothing is committed/);
  assert.equal(fs.existsSync(b.at('tree/a')), true);
});

test(
  'commit: a base that changed meanwhile is a conflict, status 3, and nothing is done',
  { skip },
  (t) => {
    const b = new Bench(t);
    b.write('tree/a', 'old\n');
    b.write('tree/b', 'old\n');
    b.ok('run', '-s', 'w', 'sh', '-c', 'echo ours > a; echo ours > b');
    b.write('tree/a', 'theirs\n');
    b.fails(3, /nothing was committed/, 'commit', 'w');
    assert.equal(b.read('tree/b'), 'old\n');
    b.ok('commit', '--conflict', 'ours', 'w');
    assert.equal(b.read('tree/a') + b.read('tree/b'), 'ours\nours\n');
    assert.deepEqual(b.workspaces(), []);
  },
);

test('commit and discard of paths', { skip }, (t) => {
  const b = new Bench(t);
  b.ok('run', '-s', 'w', 'sh', '-c', 'echo 1 > a; echo 2 > b; echo 3 > c');
  b.ok('commit', 'w', 'a');
  assert.deepEqual(fs.readdirSync(b.at('tree')), ['a']);
  b.ok('discard', 'w', b.at('tree/b'));
  assert.equal(b.ok('diff', 'w'), 'A\tc\n');
  b.ok('discard', 'w');
  assert.deepEqual(b.workspaces(), []);
});

test('diff, commit and discard of a mount, which is there again afterwards', { skip }, (t) => {
  const b = new Bench(t);
  b.write('lower/a', 'old\n');
  b.mount();
  b.write('view/a', 'new\n');
  b.write('view/n', '1');
  assert.equal(b.ok('diff', b.at('view')), 'M\ta\nA\tn\n');
  b.ok('commit', b.at('view'));
  assert.equal(b.read('lower/a'), 'new\n');
  assert.equal(b.read('view/a'), 'new\n');
  assert.equal(b.ok('diff', b.at('view')), '');
  b.write('view/a', 'newer\n');
  b.ok('discard', b.at('view'));
  assert.equal(b.read('view/a'), 'new\n');
  b.ok('umount', b.at('view'));
});

test('run --cow covers further trees; a workspace in use is refused', { skip }, async (t) => {
  const b = new Bench(t);
  fs.mkdirSync(b.at('second'));
  b.ok(
    'run',
    '-s',
    'w',
    '--cow',
    b.at('second'),
    'sh',
    '-c',
    `echo 1 > a; echo 2 > ${b.at('second')}/b`,
  );
  assert.deepEqual(fs.readdirSync(b.at('second')), []);
  assert.equal(b.ok('diff', 'w'), `A\t${b.at('tree')}/a\nA\t${b.at('second')}/b\n`);
  const child = spawn(
    process.execPath,
    [PROGRAM, 'run', '-s', 'w', 'sh', '-c', 'echo > ready; read x'],
    {
      cwd: b.at('tree'),
      env: b.env,
      stdio: ['pipe', 'ignore', 'ignore'],
    },
  );
  const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  await until('it runs', () =>
    fs.existsSync(b.at('state/palimpsest/workspaces/w/layers/0/upper/ready')),
  );
  b.fails(125, /in use by palimpsest run of the workspace w/, 'run', '-s', 'w', 'true');
  b.fails(32, /workspace w is in use by palimpsest run/, 'commit', 'w');
  assert.match(b.ok('diff', 'w'), /ready/);
  child.stdin!.end('\n');
  await ended;
  b.ok('commit', 'w');
  assert.equal(b.read('second/b'), '2\n');
});

test('run refuses /, and a workspace that covers another tree', { skip }, (t) => {
  const b = new Bench(t);
  b.fails(125, /cannot cover \//, 'run', '-C', '/', 'true');
  b.ok('run', '-s', 'w', 'touch', 'a');
  const result = b.runIn(b.at('lower'), 'run', '-s', 'w', 'true');
  assert.equal(result.status, 125);
  assert.match(result.stderr, /the workspace w covers .*tree, and .*lower is not there/);
});

test(
  'run where the state directory lies in the covered tree; discard when that has gone',
  { skip },
  (t) => {
    const b = new Bench(t);
    const name = `cli-test-${process.pid}`;
    const result = b.runIn(b.dir, 'run', '-s', name, 'sh', '-c', 'echo 1 > new');
    try {
      assert.equal(result.status, 0, result.stderr);
      assert.equal(fs.existsSync(b.at('new')), false);
      assert.equal(b.ok('diff', name), 'A\tnew\n');
    } finally {
      fs.rmSync(b.dir, { recursive: true });
      const options = { cwd: '/', env: b.env, encoding: 'utf8' } as const;
      const discarded = spawnSync(process.execPath, [PROGRAM, 'discard', name], options);
      assert.equal(discarded.status, 0, discarded.stderr);
    }
    assert.equal(fs.existsSync(`/var/tmp/palimpsest-0/workspaces/${name}`), false);
  },
);

// -- an ordinary user --

const NOBODY = 65534;

/** /dev/fuse as Debian's udev makes it, in a mount namespace of the test's own. */
function asNobody(b: Bench, cwd: string, args: string[]): SpawnSyncReturns<string> {
  fs.mkdirSync(b.at('dev'), { recursive: true });
  const device = b.at('dev/fuse');
  if (!fs.existsSync(device)) spawnSync('mknod', [device, 'c', '10', '229']);
  fs.chmodSync(device, 0o666);
  const command = [
    'setpriv',
    `--reuid=${NOBODY}`,
    `--regid=${NOBODY}`,
    '--clear-groups',
    process.execPath,
    PROGRAM,
    ...args,
  ];
  const script = 'mount --bind "$0" /dev/fuse && exec "$@"';
  const env = {
    ...b.env,
    HOME: b.at('home'),
    XDG_STATE_HOME: b.at('home/state'),
    XDG_CACHE_HOME: b.at('home/cache'),
  };
  delete (env as NodeJS.ProcessEnv)['PALIMPSEST_RUNTIME_DIR'];
  return spawnSync('unshare', ['--mount', 'sh', '-c', script, device, ...command], {
    cwd,
    env,
    encoding: 'utf8',
    timeout: COMMAND_MS,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

test('an ordinary user: run, diff, commit, discard, without any privilege', { skip }, (t) => {
  const b = new Bench(t);
  fs.chmodSync(b.dir, 0o755);
  fs.mkdirSync(b.at('home'));
  b.write('tree/a', 'old\n');
  b.write('tree/d/x', '1');
  for (const name of ['home', 'tree', 'tree/a', 'tree/d', 'tree/d/x'])
    fs.chownSync(b.at(name), NOBODY, NOBODY);
  const probe = asNobody(b, '/', ['version']);
  if (probe.status !== 0) {
    t.skip(`user ${NOBODY} cannot read this checkout: ${probe.stderr.split('\n')[0]}`);
    return;
  }
  const tree = b.at('tree');
  const script =
    'echo new > n; rm -r d; echo more >> a; mkdir -p p/q; chmod 0 p; grep CapEff /proc/self/status; exit 5';
  const ran = asNobody(b, tree, ['run', '-s', 'w', 'sh', '-c', script]);
  if (/user namespaces are not available/.test(ran.stderr)) {
    t.skip(ran.stderr.trim());
    return;
  }
  assert.equal(ran.status, 5, ran.stderr);
  assert.match(ran.stdout, /CapEff:\s+0{16}/, 'the command has no capabilities');
  assert.equal(b.read('tree/a'), 'old\n');
  const diff = asNobody(b, tree, ['diff', 'w']);
  assert.equal(diff.stdout, 'M\ta\nD\td/\nA\tn\nA\tp/\nA\tp/q/\n', diff.stderr);
  const committed = asNobody(b, tree, ['commit', 'w']);
  assert.equal(committed.status, 0, committed.stderr);
  assert.equal(b.read('tree/a'), 'old\nmore\n');
  assert.deepEqual(fs.readdirSync(tree).toSorted(), ['a', 'n', 'p']);
  const discarded = asNobody(b, tree, [
    'run',
    '--on-exit',
    'discard',
    'sh',
    '-c',
    'mkdir -p x/y; chmod 0 x',
  ]);
  assert.equal(discarded.status, 0, discarded.stderr);
  assert.deepEqual(fs.readdirSync(b.at('home/state/palimpsest/workspaces')), []);
});

test("run leaves the command's pipes as they are", { skip }, (t) => {
  const b = new Bench(t);
  // A pipe that became non-blocking loses output of a writer faster than its reader, or ends its input.
  const script = `(sleep 0.6; echo late) | "$0" "$1" run sh -c 'read line; echo $line; seq 300000' | (sleep 0.9; cat)`;
  const options = { cwd: b.at('tree'), env: b.env, encoding: 'utf8', timeout: COMMAND_MS } as const;
  const result = spawnSync('sh', ['-c', script, process.execPath, PROGRAM], {
    ...options,
    maxBuffer: 1 << 24,
  });
  const lines = result.stdout.trimEnd().split('\n');
  assert.deepEqual(
    [lines[0], lines.length, lines.at(-1)],
    ['late', 300_001, '300000'],
    result.stderr,
  );
});

// -- the rest --

test('help, version and completion', (t) => {
  const b = new Bench(t);
  assert.match(b.ok('help'), /run a command in a copy-on-write view/);
  assert.match(b.ok('help', 'mount'), /lowerdir=A:B/);
  assert.match(b.ok('--version'), /^palimpsest \d/);
  assert.equal((JSON.parse(b.ok('version', '--json')) as { version: number }).version, 1);
  b.fails(2, /Usage: palimpsest/);
  b.fails(2, /unknown command 'fly'/, 'fly');
  for (const shell of ['bash', 'zsh', 'fish']) assert.match(b.ok('completion', shell), /umount/);
  const script = b.ok('completion', 'bash');
  const checked = spawnSync('bash', ['-n'], { input: script, encoding: 'utf8' });
  assert.equal(checked.stderr, '');
});
