import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import { runSync } from '../kernel/task.ts';
import type { Task } from '../kernel/task.ts';
import { applyCommit, planCommit } from './commit.ts';
import { Faults } from './faulty.ts';
import type { FaultKind } from './faulty.ts';
import { recoverCommit } from './recover.ts';
import { renderNameStatus } from './render.ts';
import { Scratch, noOverlay, sh } from './testing.ts';
import type { CommitOptions, CommitResult } from './types.ts';

const skip = noOverlay();
const made: Scratch[] = [];
function scratch(base: string): Scratch {
  const s = new Scratch();
  made.push(s);
  s.base(base);
  return s;
}
after(() => {
  for (const s of made) s.remove();
});

function optionsOf(s: Scratch, more: Partial<CommitOptions> = {}): CommitOptions {
  const set = s.set();
  return { ...set, base: set.lowers[0]!, id: 'test', ...more };
}

function* commitTask(options: CommitOptions): Task<CommitResult> {
  return yield* applyCommit(yield* planCommit(options));
}

const commit = (s: Scratch, more: Partial<CommitOptions> = {}): CommitResult =>
  runSync(commitTask(optionsOf(s, more)));

/** The base is as the union showed it, and nothing is left to commit. */
function assertCommitted(s: Scratch, shown: string): void {
  assert.equal(s.tree('base'), shown);
  assert.deepEqual(readdirSync(`${s.dir}/upper`), []);
  assert.deepEqual(
    readdirSync(`${s.dir}/base`).filter((name) => name.startsWith('.palimpsest')),
    [],
  );
  assert.equal(s.diff({ mtime: true }), '');
  assert.deepEqual(commit(s).changes, []);
}

const RICH_BASE = `
  mkdir -p dir/sub/deep empty gone/x p q
  echo one > a; echo two > b; echo three > dir/c; echo four > dir/sub/d; echo five > dir/sub/deep/e
  echo 1 > gone/1; echo 2 > gone/x/2; echo pf > p/f; echo qf > q/g
  ln -s a link; mkfifo pipe; mknod null c 1 3; echo h > h1; ln h1 h2; echo i > i1; cp -p i1 i2; ln i2 i3
  setfattr -n user.old -v 1 b; setfacl -m u:7:r b; cp /bin/true tool; setcap cap_net_raw+ep tool; chmod 4755 tool
  find . -exec touch -h -d @1000.25 {} +
`;

const SCENARIOS: [name: string, change: string][] = [
  [
    'every kind of change',
    `
    echo new > new; mkdir -p newdir/in; echo x > newdir/in/x; ln newdir/in/x newlink
    echo more >> a; chown 3:4 a; setfattr -n user.n -v v a
    setfattr -x user.old b; setfacl -b b; chmod 640 b
    rm link; echo f > link; ln -s nowhere dir/newlink; rm pipe; mkfifo -m 600 pipe2; mknod dir/dev b 7 3
    truncate -s 5M sparse; printf end >> sparse; chmod 2770 dir; chown :9 dir; touch -d @5.000000007 dir/c
    echo x >> tool; chmod 4755 tool; setcap cap_net_admin+ep tool
  `,
  ],
  ['deletions of files and whole directories', 'rm a link null; rm -r gone dir/sub'],
  [
    'renames',
    `
    mv a a2; mv dir moved; echo x >> moved/c; rm moved/sub/d; mv moved/sub/deep here; mv -T gone empty
    mv b moved/b; mkdir n; mv here n/deep; chmod 700 n/deep
  `,
  ],
  [
    'two directories change places and are changed',
    'mv p t; mv q p; mv t q; echo x >> p/g; rm q/f; echo n > q/n',
  ],
  [
    'a directory replaced by a new one',
    'rm -r dir; mkdir -p dir/sub; echo four > dir/sub/d; echo n > dir/n',
  ],
  [
    'a directory renamed away and a new one in its place',
    `
    mv dir x; mkdir dir; echo c > dir/c; mv x/sub dir/sub; rm x/c; mv gone dir/sub/gone
  `,
  ],
  [
    'types change',
    'rm -r dir; echo f > dir; rm a; mkdir a; echo g > a/g; mv gone/x a/x; rm -r gone; ln -s b gone',
  ],
  [
    'hard links',
    `
    echo more >> h1; ln b b2; rm i1; ln i2 i1; ln a dir/a2; ln a newa; mv i3 dir/i3; chmod 600 i2
  `,
  ],
  ['metadata of hard-linked files', 'chmod 600 h2; chown 5:5 i3; ln b bb; chmod 611 b'],
  ['hard links whose copied-up name is gone', 'echo more >> h1; rm h1; chmod 600 i3; mv i3 z'],
  ['metadata-only copies', 'chmod 700 tool; chown 3 a; mv dir e; chmod 600 e/c; mv e/c c; touch b'],
  ['nothing but times', 'touch -d @77.5 a dir/c; touch -h -d @78.5 link; touch -d @79 dir/sub'],
  ['names of bytes', `echo 1 > $'caf\\xe9'; mkdir $'d\\n'; echo 2 > $'d\\n/"'; mv a 'a b'`],
];

for (const [name, change] of SCENARIOS) {
  test(`commit: ${name}`, { skip }, () => {
    const s = scratch(RICH_BASE);
    const shown = s.change(change);
    const result = commit(s);
    assert.equal(result.applied, true);
    assertCommitted(s, shown);
  });
}

test('commit without index and redirect: names stay apart as they were shown', { skip }, () => {
  const s = scratch(RICH_BASE);
  const shown = s.change(
    'echo x >> h1; chmod 600 i2; rm -r gone',
    'index=off,redirect_dir=off,metacopy=off',
  );
  commit(s);
  assert.equal(s.tree('base'), shown);
});

test('several rounds over one base', { skip }, () => {
  const s = scratch(RICH_BASE);
  for (const [, change] of [
    SCENARIOS[0]!,
    ['', 'rm -r newdir; mv dir d2; echo y >> a'] as const,
    ['', 'mv d2 dir; rm new a'] as const,
  ]) {
    const shown = s.change(change);
    commit(s);
    assertCommitted(s, shown);
  }
});

test('holes stay holes', { skip }, () => {
  const s = scratch('truncate -s 50M big');
  s.change('truncate -s 80M new; printf x | dd of=big bs=1 seek=40000000 conv=notrunc status=none');
  commit(s);
  assert.ok(Number(sh('du -sk base | cut -f1', s.dir)) < 200);
});

test('a dry run plans and changes nothing', { skip }, () => {
  const s = scratch(RICH_BASE);
  s.change('echo x >> a; rm b');
  const [base, upper] = [s.tree('base'), s.tree('upper')];
  const plan = runSync(planCommit(optionsOf(s)));
  assert.equal(renderNameStatus(plan.changes), 'M\ta\nD\tb\n');
  assert.equal(plan.bytes > 0, true);
  assert.deepEqual([s.tree('base'), s.tree('upper')], [base, upper]);
});

// -- paths --

test('commit of paths leaves the rest, and the union shows the same', { skip }, () => {
  const s = scratch(RICH_BASE);
  const shown = s.change(`
    echo x >> a; echo x >> dir/c; echo n > dir/new; rm dir/sub/d; mkdir n; echo 1 > n/1; echo 2 > n/2
    rm -r gone; mkdir gone; echo 3 > gone/3; mv p moved; echo y >> moved/f; rm b
  `);
  commit(s, { paths: ['dir/c', 'n/1', 'gone/3', 'moved'] });
  assert.equal(s.diff(), 'M\ta\nD\tb\nA\tdir/new\nD\tdir/sub/d\nD\tgone/1\nD\tgone/x/\nA\tn/2\n');
  assert.equal(withoutTimes(s.change(':')), withoutTimes(shown));
  assert.equal(
    sh('cat base/dir/c base/n/1 base/gone/3 base/moved/f', s.dir),
    'three\nx\n1\n3\npf\ny\n',
  );
  commit(s, { paths: ['gone', 'n'] });
  assert.equal(s.diff(), 'M\ta\nD\tb\nA\tdir/new\nD\tdir/sub/d\n');
  assert.equal(withoutTimes(s.change(':')), withoutTimes(shown));
  commit(s);
  assertCommitted(s, s.tree('base'));
  assert.equal(withoutTimes(s.tree('base')), withoutTimes(shown));
});

/** Times of directories are only committed with the directory. */
const withoutTimes = (tree: string): string => tree.replaceAll(/ \d+\.\d+( |$)/gm, ' ');

test('a selection takes along what it cannot be without', { skip }, () => {
  const s = scratch(RICH_BASE);
  const shown = s.change(
    'mv dir x; mkdir dir; echo 1 > dir/1; mv x/sub s; rm -r x; mkdir -p k/l; echo 2 > k/l/m',
  );
  commit(s, { paths: ['dir/1'] });
  assert.equal(withoutTimes(s.change(':')), withoutTimes(shown));
  commit(s, { paths: ['k/l/m'] });
  assert.equal(withoutTimes(s.change(':')), withoutTimes(shown));
  commit(s);
  assert.equal(withoutTimes(s.tree('base')), withoutTimes(shown));
});

test(
  'a commit of paths takes along the names that only the index has, and the whiteout of a rename stays',
  { skip },
  () => {
    const s = scratch('echo 1 > a; ln a b; mkdir d; ln a d/c; mkdir e; echo 2 > f');
    const shown = s.change('echo x >> a; rm -r d; mv e e2; mv f f2');
    commit(s, { paths: ['d'] });
    assert.equal(s.diff(), 'R\te/\te2/\nR\tf\tf2\n');
    commit(s, { paths: ['nothing'] });
    assert.equal(withoutTimes(s.change(':')), withoutTimes(shown));
  },
);

test('data that is still beneath under another name is not committed away', { skip }, () => {
  const s = scratch('echo 1 > a; echo 2 > b');
  s.change('chmod 600 b; mv b a');
  assert.throws(() => commit(s, { paths: ['b'] }), /a was renamed .* name it too/);
});

// -- drift --

const CREATED = (): { createdSec: number; createdNsec: number } => {
  const now = BigInt(sh('sleep 0.02; date +%s%N; sleep 0.02', '/'));
  return { createdSec: Number(now / 1_000_000_000n), createdNsec: Number(now % 1_000_000_000n) };
};

function drifted(
  change: string,
  drift: string,
): [Scratch, { baseline: ReturnType<typeof CREATED> }] {
  const s = scratch(RICH_BASE);
  const baseline = CREATED();
  s.change(change);
  s.base(drift);
  return [s, { baseline }];
}

const DRIFTS: [change: string, drift: string, conflict: string][] = [
  ['echo x >> a', 'echo y >> a', 'changed a'],
  ['rm a', 'echo y >> a', 'changed a'],
  ['rm -r gone', 'echo y > gone/x/y', 'created gone/x/y'],
  ['rm -r gone', 'mkdir gone/y', 'created gone/y'],
  ['echo x > new', 'echo y > new', 'changed new'],
  ['rm -r dir; mkdir dir', 'echo y > dir/y', 'changed dir/y'],
  ['chmod 600 a', 'mv b a', 'changed a'],
];

for (const [change, drift, conflict] of DRIFTS) {
  test(`drift: ${change} against ${drift}`, { skip }, () => {
    const [s, more] = drifted(change, drift);
    const before = s.tree('base');
    const result = commit(s, more);
    assert.deepEqual(
      result.conflicts.map((c) => `${c.kind} ${c.path}`),
      [conflict],
    );
    assert.equal(result.applied, false);
    assert.equal(s.tree('base'), before);
    const shown = s.change(':');
    commit(s, { ...more, conflict: 'ours' });
    assertCommitted(s, shown);
  });
}

test('drift elsewhere is none, nor the same change on both sides', { skip }, () => {
  const [s, more] = drifted(
    'echo x >> a; echo n > dir/n; rm gone/1',
    'echo y >> b; echo m > dir/m; echo x >> a; touch -r a a; rm gone/1',
  );
  sh('touch -r upper/a base/a', s.dir);
  const result = commit(s, more);
  assert.deepEqual(result.conflicts, []);
  assert.equal(sh('cat base/a base/b base/dir/n base/dir/m', s.dir), 'one\nx\ntwo\ny\nn\nm\n');
});

test('theirs: the base wins where it changed, and the upper forgets', { skip }, () => {
  const [s, more] = drifted('echo x >> a; echo x >> b; rm -r gone', 'echo y >> a; echo z > gone/z');
  const result = commit(s, { ...more, conflict: 'theirs' });
  assert.deepEqual(
    result.changes.map((c) => c.path),
    ['b'],
  );
  assert.deepEqual(
    result.conflicts.map((c) => c.path),
    ['a', 'gone/z'],
  );
  assert.equal(sh('cat base/a base/b base/gone/z base/gone/1', s.dir), 'one\ny\ntwo\nx\nz\n1\n');
  assert.equal(s.diff(), '');
  assert.deepEqual(readdirSync(`${s.dir}/upper`), []);
});

test('the recorded state of the base decides where there is one', { skip }, () => {
  const s = scratch('echo 1 > a; echo 2 > b; echo 3 > c; mkdir d; echo 4 > d/x');
  s.change('echo x >> a; echo x >> b; mv c c2; chmod 700 d; echo x >> d/x');
  for (const path of ['a', 'b', 'd', 'd/x']) {
    sh(
      `setfattr -n trusted.overlay.palimpsest.base -v "$(
      stat -c '%i %Y.%y %Z.%z %s' base/${path} | sed -E 's/\\.[^.]*:[0-9]+\\.0*([0-9]+) [^ ]*/.\\1/g') $(
      [ -d base/${path} ] && echo 40000 || echo 100000)" upper/${path}`,
      s.dir,
    );
  }
  // Long ago: without the records all would be drift.
  const baseline = { createdSec: 1, createdNsec: 0 };
  s.base('echo y >> b; echo new > d/y; rm d/x');
  const plan = runSync(planCommit(optionsOf(s, { baseline })));
  assert.deepEqual(plan.conflicts.map((c) => `${c.kind} ${c.path}`).sort(), [
    'changed b',
    'changed c2',
    'deleted d/x',
  ]);
});

test('another filesystem in the base is refused before anything is done', { skip }, () => {
  const s = scratch('mkdir -p m/x d; echo 1 > d/f');
  s.change('echo 1 > m/n; rm d/f');
  sh('mount -t tmpfs none base/m', s.dir);
  try {
    const result = commit(s);
    assert.deepEqual(
      result.conflicts.map((c) => `${c.kind} ${c.path}`),
      ['mount m/n'],
    );
    assert.throws(() => commit(s, { conflict: 'ours' }), /another filesystem/);
    assert.equal(commit(s, { paths: ['d'] }).applied, true);
  } finally {
    sh('umount -l base/m', s.dir);
  }
});

// -- faults --

const FAULT_CHANGE = `
  echo more >> a; chmod 600 b; rm h1; mv dir moved; echo x >> moved/c; rm -r gone
  mkdir -p n/m; echo n > n/m/n; ln n/m/n n/l; rm pipe; mv p t; mv q p; mv t q; ln -sfn b link; mv moved/sub/deep n/deep
  rm empty -r; echo now > empty
`;
const FAULT_BASE = `
  mkdir -p dir/sub/deep empty gone/x p q
  echo one > a; echo two > b; echo three > dir/c; echo five > dir/sub/deep/e
  echo 1 > gone/1; echo 2 > gone/x/2; echo pf > p/f; echo qf > q/g; ln -s a link; mkfifo pipe; echo h > h1; ln h1 h2
  find . -exec touch -h -d @1000.25 {} +
`;

interface Outcome {
  commitWentThrough: boolean;
  recoveryWentThrough: boolean;
}

/** With the Nth change of the commit failing, and the Mth of the recovery after it. */
function commitWithFault(kind: FaultKind, at: number, recoveryAt?: number): Outcome {
  const s = scratch(FAULT_BASE);
  const shown = s.change(FAULT_CHANGE);
  const before = s.tree('base');
  const diffBefore = s.diff();
  const options = optionsOf(s);
  const faults = new Faults(kind, at);
  const base = faults.wrap(options.base);
  const task = commitTask({
    ...options,
    base,
    lowers: [base],
    upper: faults.wrap(options.upper),
    work: faults.wrap(options.work!),
  });
  let failed = false;
  try {
    runSync(task);
  } catch (error) {
    failed = true;
    assert.match(
      (error as Error).message,
      /injected|could not be rolled back/,
      String((error as Error).stack),
    );
  }
  const label = `${kind} ${at} ${recoveryAt}`;
  let recoveryWentThrough = true;
  if (recoveryAt !== undefined) recoveryWentThrough = recoverWithCrash(s, recoveryAt);
  const { upper, work } = s.set();
  const recoveries = runSync(recoverCommit({ base: s.open('base'), upper, work }));
  if (kind === 'error' && failed) assert.ok(recoveries.length <= 1, label);
  const now = s.tree('base');
  assert.ok(
    now === before || now === shown,
    `${label}: neither before nor after:\n${now}\n--- before\n${before}\n--- shown\n${shown}`,
  );
  assert.equal(s.diff(), now === before ? diffBefore : '', label);
  if (!failed) assert.equal(now, shown, label);
  assert.equal(s.change(':'), shown, label);
  assert.deepEqual(
    readdirSync(`${s.dir}/base`).filter((name) => name.startsWith('.palimpsest')),
    [],
    label,
  );
  commit(s);
  assertCommitted(s, shown);
  s.remove();
  return { commitWentThrough: !faults.hit, recoveryWentThrough };
}

/** True: it went through before the crash. */
function recoverWithCrash(s: Scratch, at: number): boolean {
  const { upper, work, lowers } = s.set();
  const faults = new Faults('crash', at);
  try {
    runSync(
      recoverCommit({
        base: faults.wrap(lowers[0]!),
        upper: faults.wrap(upper),
        work: faults.wrap(work),
      }),
    );
  } catch (error) {
    assert.match((error as Error).message, /injected/, String((error as Error).stack));
  }
  return !faults.hit;
}

const STEP = Number(process.env['PALIMPSEST_FAULT_STEP'] ?? 19);

for (const kind of ['crash', 'torn', 'error'] as const) {
  test(`${kind} at any moment: wholly before or wholly after`, { skip }, () => {
    const limit = 5000;
    // Every STEPth moment, from another one for each kind; all with PALIMPSEST_FAULT_STEP=1.
    const start = STEP === 1 ? 1 : { crash: 1, torn: 3, error: 5 }[kind];
    for (let at = start; at < limit; at += STEP)
      if (commitWithFault(kind, at).commitWentThrough) return;
    assert.fail('the commit never went through');
  });
}

test('a crash, and another while it is recovered', { skip }, () => {
  for (let at = 4 * STEP; ; at += 5 * STEP) {
    for (let recoveryAt = 1; ; recoveryAt += 2 * STEP) {
      const outcome = commitWithFault('crash', at, recoveryAt);
      if (outcome.commitWentThrough) return;
      if (outcome.recoveryWentThrough) break;
    }
  }
});
