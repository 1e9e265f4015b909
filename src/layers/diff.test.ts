import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Scratch, noOverlay, sh } from './testing.ts';

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

const BASE = `
  mkdir -p dir/sub empty
  echo one > a; echo two > b; echo three > dir/c; echo four > dir/sub/d
  ln -s a link; mkfifo pipe; mknod null c 1 3
  printf 'x' > tool; chmod 755 tool
`;

test('each kind of change has its letter', { skip }, () => {
  const s = scratch(BASE);
  s.change(`
    echo new > new; mkdir newdir; echo in > newdir/in
    echo more >> a
    rm b
    chmod 600 tool
    rm link; echo now a file > link
    ln -sfn b pipe.link; rm pipe; mkfifo -m 600 pipe
    rm null; mknod null c 1 5
    touch dir/c
  `);
  assert.equal(
    s.diff(),
    [
      'M\ta',
      'D\tb',
      'T\tlink',
      'A\tnew',
      'A\tnewdir/',
      'A\tnewdir/in',
      'M\tnull',
      'X\tpipe',
      'A\tpipe.link',
      'X\ttool',
      '',
    ].join('\n'),
  );
});

test('what was put back as it was is no change', { skip }, () => {
  const s = scratch(BASE);
  s.change(`
    echo x >> a; echo one > a
    chmod 600 tool; chmod 755 tool
    setfattr -n user.note -v 1 b; setfattr -x user.note b
    mv dir dir2; mv dir2 dir
    rm -r dir/sub; mkdir dir/sub; echo four > dir/sub/d
    mkdir t; rmdir t
  `);
  assert.equal(s.diff(), '');
});

test('a time of modification counts only if asked for', { skip }, () => {
  const s = scratch(BASE);
  s.change('touch -d @1000.5 b');
  assert.equal(s.diff(), '');
  assert.equal(s.diff({ mtime: true }), 'X\tb\n');
});

test('owner and xattrs are metadata', { skip }, () => {
  const s = scratch(BASE);
  s.change('chown 12:34 a; setfattr -n user.note -v 1 b; chmod 700 dir');
  assert.equal(s.diff(), 'X\ta\nX\tb\nX\tdir/\n');
});

test('a deleted directory is one line, or with expand all of it', { skip }, () => {
  const s = scratch(BASE);
  s.change('rm -r dir');
  assert.equal(s.diff(), 'D\tdir/\n');
  assert.equal(s.diff({ expand: true }), 'D\tdir/\nD\tdir/c\nD\tdir/sub/\nD\tdir/sub/d\n');
});

test(
  'a directory made again in place of a deleted one hides all beneath, at any depth',
  { skip },
  () => {
    const s = scratch(BASE);
    s.change('rm -r dir; mkdir -p dir/sub; echo other > dir/sub/e');
    assert.equal(s.diff(), 'D\tdir/c\nD\tdir/sub/d\nA\tdir/sub/e\n');
  },
);

test('renamed files and directories', { skip }, () => {
  const s = scratch(BASE);
  s.change('mv a a2; mv dir moved; echo x >> moved/c; rm moved/sub/d');
  assert.equal(s.diff(), 'R\ta\ta2\nD\tdir/sub/d\nR\tdir/\tmoved/\nM\tmoved/c\n');
  assert.equal(
    s.diff({ expand: true }),
    [
      'R\ta\ta2',
      'D\tdir/sub/d',
      'R\tdir/\tmoved/',
      'R\tdir/c\tmoved/c',
      'R\tdir/sub/\tmoved/sub/',
      '',
    ].join('\n'),
  );
});

test('a directory renamed out of a renamed one, which is then replaced', { skip }, () => {
  const s = scratch(BASE);
  s.change('mv dir x; mv x/sub s; mkdir dir; echo new > dir/c; mkdir n; mv s n/s');
  assert.equal(s.diff(), 'A\tdir/\nA\tdir/c\nA\tn/\nR\tdir/sub/\tn/s/\nR\tdir/\tx/\n');
});

test('two directories that change places', { skip }, () => {
  const s = scratch('mkdir p q; echo 1 > p/f; echo 2 > q/g');
  s.change('mv p t; mv q p; mv t q');
  assert.equal(s.diff(), 'R\tq/\tp/\nR\tp/\tq/\n');
});

test('a directory renamed over an empty one', { skip }, () => {
  const s = scratch(BASE);
  s.change('mv -T dir empty');
  assert.equal(s.diff(), 'D\tempty/\nR\tdir/\tempty/\n');
});

test('a file renamed out of a deleted directory, and one with changed content', { skip }, () => {
  const s = scratch(BASE);
  s.change('mv dir/c c; mv dir/sub/d d; echo x >> d; rm -r dir');
  assert.equal(s.diff(), 'R\tdir/c\tc\nR\tdir/sub/d\td\nD\tdir/\n');
});

test('types change from and to directories', { skip }, () => {
  const s = scratch(BASE);
  s.change('rm -r dir; echo f > dir; rm a; mkdir a; echo g > a/g');
  assert.equal(s.diff(), 'T\ta/\nA\ta/g\nT\tdir\n');
});

test('hard links: made, broken, and changed under a name that the upper has not', { skip }, () => {
  const s = scratch('echo 1 > a; ln a b; echo 2 > c; echo 3 > d; cp -p d e');
  s.change('echo more >> a; ln c c2; rm e; ln d e');
  assert.equal(s.diff(), 'M\ta\nM\tb\nA\tc2\nX\te\n');
});

test(
  'a hard-linked file whose copied-up name is gone is still changed under the other',
  { skip },
  () => {
    const s = scratch('echo 1 > a; ln a b');
    s.change('echo more >> a; rm a');
    assert.equal(s.diff(), 'D\ta\nM\tb\n');
  },
);

test('metadata-only copies: the data is still beneath', { skip }, () => {
  const s = scratch('mkdir d; head -c 100000 /dev/urandom > big; cp big d/big');
  s.change('chmod 600 big; mv d e; chown 5 e/big; mv e/big moved');
  assert.equal(s.diff(), 'X\tbig\nR\td/\te/\nR\td/big\tmoved\n');
});

test('names are bytes', { skip }, () => {
  const s = scratch(`touch $'caf\\xe9' $'t\\tb' 'sp ace'`);
  s.change(`echo 1 > $'caf\\xe9'; echo 1 > $'t\\tb'; echo 1 > 'sp ace'; echo 1 > 'grün'`);
  assert.equal(
    s.diff(),
    [
      'M\t"caf\\351"',
      `A\t${Buffer.from('grün').toString('latin1')}`,
      'M\tsp ace',
      'M\t"t\\tb"',
      '',
    ].join('\n'),
  );
});

test('.wh. files are whiteouts in an upper if one says so, and plain names in the base', () => {
  const s = scratch(
    'echo 1 > a; mkdir d; echo 2 > d/x; echo 3 > d/y; echo 4 > .wh.plain; echo 5 > plain',
  );
  sh('touch .wh.a; mkdir d; touch d/.wh..wh..opq; echo 3 > d/y; chmod 755 d', `${s.dir}/upper`);
  assert.equal(s.diff({ dotWhiteouts: true }), 'D\ta\nD\td/x\n');
  assert.equal(s.diff(), 'A\t.wh.a\nA\td/.wh..wh..opq\n');
});

test('xattr whiteouts, as an unprivileged union makes them', () => {
  const s = scratch('echo 1 > a; mkdir d; echo 2 > d/x; : > d/y');
  sh(
    `
    mkdir d; setfattr -n user.overlay.opaque -v x d
    : > d/x; setfattr -n user.overlay.whiteout -v y d/x; : > d/y
  `,
    `${s.dir}/upper`,
  );
  assert.equal(s.diff({ xattrPrefix: 'user.' }), 'D\td/x\n');
});

test('several lowers: what an upper one hides is not there to be deleted', () => {
  const s = scratch('echo 1 > a; echo 2 > b; mkdir d; echo 3 > d/x');
  sh(
    'mkdir mid; cd mid; mknod a c 0 0; mkdir d; echo 4 > d/y; setfattr -n trusted.overlay.opaque -v y d',
    s.dir,
  );
  sh('mknod a c 0 0; mkdir d; mknod d/x c 0 0; mknod d/y c 0 0', `${s.dir}/upper`);
  assert.equal(s.diff({ lowers: [s.open('mid'), s.open('base')] }), 'D\td/y\n');
});

test('paths and globs choose', { skip }, () => {
  const s = scratch(BASE);
  s.change('echo x >> a; echo x >> dir/c; echo x >> dir/sub/d; echo o > dir/new.o');
  assert.equal(s.diff({ paths: ['dir/'] }), 'M\tdir/c\nA\tdir/new.o\nM\tdir/sub/d\n');
  assert.equal(s.diff({ exclude: ['*.o'] }), 'M\ta\nM\tdir/c\nM\tdir/sub/d\n');
  assert.equal(s.diff({ include: ['dir/sub/**'] }), 'M\tdir/sub/d\n');
  assert.equal(s.diff({ include: ['sub'] }), 'M\tdir/sub/d\n');
});
