import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import { runSync } from '../kernel/task.ts';
import { discard } from './discard.ts';
import { renderNameStatus } from './render.ts';
import { Scratch, noOverlay } from './testing.ts';
import type { DiscardOptions } from './types.ts';

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

const drop = (s: Scratch, more: Partial<DiscardOptions> = {}): string =>
  renderNameStatus(runSync(discard({ ...s.set(), ...more })).changes);

const BASE = `
  mkdir -p dir/sub gone; echo one > a; echo two > b; echo c > dir/c; echo d > dir/sub/d
  echo 1 > gone/1; echo h > h1; ln h1 h2
`;
const CHANGE = `
  echo x >> a; rm b; echo n > new; mkdir nd; echo 1 > nd/1; echo 2 > nd/2
  mv dir moved; echo x >> moved/c; rm -r gone; mkdir gone; echo 3 > gone/3; echo x >> h1
`;

test('as a whole: the base shows again, and nothing is left', { skip }, () => {
  const s = scratch(BASE);
  const base = s.tree('base');
  s.change(CHANGE);
  const all = s.diff();
  assert.equal(drop(s, { dryRun: true }), all);
  assert.equal(s.diff(), all);
  assert.equal(drop(s), all);
  assert.deepEqual(readdirSync(`${s.dir}/upper`), []);
  assert.equal(s.change(':'), base);
});

test('by paths: only those', { skip }, () => {
  const s = scratch(BASE);
  s.change(CHANGE);
  drop(s, { paths: ['a', 'b', 'nd/1'] });
  assert.equal(
    s.diff(),
    'R\tdir/\tmoved/\nM\tmoved/c\nA\tgone/3\nD\tgone/1\nM\th1\nM\th2\nA\tnd/\nA\tnd/2\nA\tnew\n'
      .split('\n')
      .filter((line) => line !== '')
      .sort(byLastPath)
      .join('\n') + '\n',
  );
  drop(s, { paths: ['moved', 'h1', 'h2'] });
  assert.equal(s.diff(), 'D\tgone/1\nA\tgone/3\nA\tnd/\nA\tnd/2\nA\tnew\n');
  drop(s, { paths: ['gone', 'nd', 'new'] });
  assert.equal(s.diff(), '');
  assert.equal(withoutTimes(s.change(':')), withoutTimes(s.tree('base')));
});

const byLastPath = (a: string, b: string): number =>
  a.split('\t').at(-1)! < b.split('\t').at(-1)! ? -1 : 1;
const withoutTimes = (tree: string): string => tree.replaceAll(/ \d+\.\d+( |$)/gm, ' ');

test('metadata of a directory', { skip }, () => {
  const s = scratch(BASE);
  s.change('chmod 700 dir; setfattr -n user.n -v 1 dir; echo x > dir/new');
  drop(s, { include: ['dir'], exclude: ['new'] });
  assert.equal(s.diff(), 'A\tdir/new\n');
});

test('a renamed file comes back by either name', { skip }, () => {
  for (const path of ['a', 'z']) {
    const s = scratch(BASE);
    s.change('mv a z; echo x >> b');
    drop(s, { paths: [path] });
    assert.equal(s.diff(), 'M\tb\n');
  }
});

const REFUSED: [change: string, path: string, why: RegExp][] = [
  [CHANGE, 'gone/1', /gone.*replaced/],
  [CHANGE, 'h2', /h1.*one file/],
  [CHANGE, 'dir', /^$/],
  ['mv dir moved; echo n > moved/n', 'dir', /moved\/n/],
  ['mv dir moved; mkdir dir; echo n > dir/n', 'moved', /cannot be discarded without dir/],
  ['mv dir moved; mkdir dir; echo n > dir/n', 'dir/n', /^$/],
  ['mv dir/sub s; rm -r dir', 'dir', /^$/],
  ['mv dir/sub s; rm -r dir', 's', /without dir/],
  ['mv dir/c c; rm -r dir', 'c', /without dir/],
];

for (const [change, path, why] of REFUSED) {
  test(`discard ${path} of: ${change.trim().split('\n')[0]}`, { skip }, () => {
    const s = scratch(BASE);
    s.change(change);
    const [before, upper] = [s.diff(), s.tree('upper')];
    if (why.source === '^$') {
      const dropped = drop(s, { paths: [path] }).split('\n');
      assert.deepEqual(
        s.diff().split('\n'),
        before.split('\n').filter((line) => line === '' || !dropped.includes(line)),
      );
    } else {
      assert.throws(() => drop(s, { paths: [path] }), why);
      assert.equal(s.tree('upper'), upper);
    }
  });
}
