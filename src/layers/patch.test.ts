import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { runSync } from '../kernel/task.ts';
import { diffLayer } from './diff.ts';
import { hunksOf, patchOf, renderStat } from './patch.ts';
import { Scratch, noOverlay, sh } from './testing.ts';
import type { Change } from './types.ts';

const skip = noOverlay();
const made: Scratch[] = [];
function scratch(base: string, change: string): Scratch {
  const s = new Scratch();
  made.push(s);
  s.base(base);
  s.change(change);
  return s;
}
after(() => {
  for (const s of made) s.remove();
});

const changesOf = (s: Scratch): Change[] => runSync(diffLayer({ ...s.set(), expand: true }));

function patchText(s: Scratch, binary: boolean): string {
  return changesOf(s)
    .map((change) => runSync(patchOf(change, { binary })))
    .join('');
}

/** Files, symlinks, contents and the executable bit: what a patch can say. */
const contents = (s: Scratch, dir: string): string =>
  sh(
    `cd ${dir} && find . -name .git -prune -o -type f -printf '%p %m ' -exec sha256sum {} \\; -o -type l -printf '%p -> %l\\n' | sed 's/  .*//' | sort`,
    s.dir,
  );

const BASE = `
  seq 1 40 > numbers; printf 'no newline' > bare; echo keep > keep
  mkdir -p dir/sub; seq 1 5 > dir/c; echo d > dir/sub/d; echo gone > dir/gone
  echo tool > tool; ln -s keep link; : > empty; printf 'a\\r\\nb\\r\\n' > dos
  echo 1 > 'sp ace'; echo 2 > $'t\\tab'; echo 3 > 'gr\u00fcn'; echo 4 > 'sp gone'; echo t > tolink
`;
const CHANGE = `
  sed -i 's/^7$/seven/; s/^33$/thirty-three/; 1d; $d' numbers; printf 'no newline yet' > bare
  echo new > new; mkdir newdir; echo in > newdir/in; : > newempty; printf 'end' > newbare
  rm dir/gone; mv dir moved; echo more >> moved/c
  chmod 755 tool; ln -sfn numbers link; rm empty; printf 'a\\r\\nB\\r\\n' > dos
  echo x >> 'sp ace'; echo x >> $'t\\tab'; echo x >> 'gr\u00fcn'; rm 'sp gone'; echo s > 'sp new'; rm tolink; ln -s keep tolink
  : > keep
`;

test('git apply and patch -p1 make of the base what the union showed', { skip }, () => {
  const s = scratch(BASE, `${CHANGE} cp -a . ../shown`);
  writeFileSync(`${s.dir}/p`, patchText(s, false), 'latin1');
  sh('cp -a base git; cp -a base gnu', s.dir);
  sh('cd git && git init -q . && git apply ../p && rm -rf .git', s.dir);
  sh('cd gnu && patch -p1 -s < ../p && find . -name "*.orig" -delete', s.dir);
  assert.equal(contents(s, 'git'), contents(s, 'shown'));
  assert.equal(contents(s, 'gnu'), contents(s, 'shown'));
});

test('binary patches apply with git', { skip }, () => {
  const s = scratch(
    'head -c 5000 /dev/urandom > bin; head -c 300 /dev/zero > gone; head -c 99 /dev/urandom > same; printf "\\0" > m',
    'head -c 7001 /dev/urandom > bin; rm gone; printf "\\0new" > new; mv same moved; chmod 755 m; cp -a . ../shown',
  );
  assert.match(patchText(s, false), /Binary files a\/bin and b\/bin differ\n/);
  writeFileSync(`${s.dir}/p`, patchText(s, true), 'latin1');
  sh('cp -a base git; cd git && git init -q . && git apply ../p && rm -rf .git', s.dir);
  assert.equal(contents(s, 'git'), contents(s, 'shown'));
});

test('the words of a patch', { skip }, () => {
  const s = scratch(
    'echo 1 > a; mkdir d; echo 2 > d/b; mknod dev c 1 3',
    'echo x > a; chmod 600 a; mv d e; rm dev; mkfifo p; mkdir n; chown 5:6 e/b',
  );
  assert.equal(
    patchText(s, false),
    [
      'diff --git a/a b/a',
      'old mode 100644',
      'new mode 100600',
      'index d00491f..587be6b',
      '--- a/a',
      '+++ b/a',
      '@@ -1 +1 @@',
      '-1',
      '+x',
      '# char dev: deleted',
      '# dir e: mode 755 to 755, renamed from d',
      '# e/b: owner 0:0 to 5:6',
      'diff --git a/d/b b/e/b',
      'similarity index 100%',
      'rename from d/b',
      'rename to e/b',
      '# dir n: new, mode 755',
      '# fifo p: new, mode 644',
      '',
    ].join('\n'),
  );
});

test('stat counts lines', { skip }, () => {
  const s = scratch(
    'seq 1 10 > a; echo 1 > b; printf "\\0" > bin',
    'seq 2 12 > a; rm b; printf "\\0\\0" > bin; echo c > c',
  );
  assert.equal(
    runSync(renderStat(changesOf(s))),
    [
      ' a   | 3 ++-',
      ' b   | 1 -',
      ' bin | Bin 1 -> 2 bytes',
      ' c   | 1 +',
      ' 4 files changed, 3 insertions(+), 2 deletions(-)',
      '',
    ].join('\n'),
  );
});

test('a text too different to compare is replaced as a whole', () => {
  const old = Array.from({ length: 6000 }, (_, i) => `old ${i}\n`).join('');
  const next = Array.from({ length: 6000 }, (_, i) => `new ${i}\n`).join('');
  const hunks = hunksOf(old, next);
  assert.equal(hunks.length, 1);
  assert.deepEqual([hunks[0]!.oldLines, hunks[0]!.newLines], [6000, 6000]);
});
