import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { isInside, mountAt, mountOf, parseMountinfo } from './mountinfo.ts';
import {
  type BranchWords,
  MountError,
  escapePath,
  parseBranch,
  parseRequest,
  parseSpec,
  specOf,
} from './options.ts';

const NONE: BranchWords = { branches: [], lower: [], upper: undefined, work: [] };
const parse = (...options: string[]) => parseRequest(options, NONE);

test("the kernel overlayfs's words: upper first, lowers in their order", () => {
  assert.deepEqual(parse('lowerdir=/a:/b,upperdir=/u,workdir=/w').branches, [
    { path: '/u', mode: 'rw', work: '/w' },
    { path: '/a', mode: 'ro' },
    { path: '/b', mode: 'ro' },
  ]);
});

test('a backslash keeps `:` `,` and `=` in a path', () => {
  const { branches } = parse(String.raw`lowerdir=/a\:b\,c:/d\\e,upperdir=/u\,v`);
  assert.deepEqual(
    branches.map((branch) => branch.path),
    ['/u,v', '/a:b,c', String.raw`/d\e`],
  );
});

test('branches with modes', () => {
  assert.deepEqual(parseBranch('/x=rw', 'ro'), { path: '/x', mode: 'rw' });
  assert.deepEqual(parseBranch('/x=ro', 'rw'), { path: '/x', mode: 'ro' });
  assert.deepEqual(parseBranch('/x', 'ro'), { path: '/x', mode: 'ro' });
  assert.deepEqual(parseBranch('/x=ab', 'ro'), { path: '/x=ab', mode: 'ro' });
  assert.deepEqual(parseBranch(String.raw`/x\=rw`, 'ro'), { path: '/x=rw', mode: 'ro' });
  assert.deepEqual(parseSpec('/a=rw:/b'), [
    { path: '/a', mode: 'rw' },
    { path: '/b', mode: 'ro' },
  ]);
});

test('SPEC round trip for any path', () => {
  const path = fc.string({ minLength: 1 }).map((text) => `/${text.replaceAll('\0', '')}`);
  const mode = fc.constantFrom('rw' as const, 'ro' as const);
  const branches = fc.array(fc.record({ path, mode }, { noNullPrototype: true }), {
    minLength: 1,
    maxLength: 5,
  });
  fc.assert(
    fc.property(branches, (given) => {
      assert.deepEqual(parseSpec(specOf(given)), given);
    }),
  );
  assert.equal(escapePath('/a:b'), String.raw`/a\:b`);
});

test('the words of mount(8), fstab and systemd are let through', () => {
  const request = parse(
    'ro,noatime,nofail,_netdev,user,x-systemd.automount,dev,suid,lowerdir=/a,nodev',
  );
  assert.equal(request.readOnly, true);
  assert.deepEqual(request.flags, ['noatime', 'suid', 'nodev']);
});

test("the kernel overlayfs's switches that are always so here", () => {
  assert.equal(parse('lowerdir=/a,redirect_dir=on,index=on,xino=auto').branches.length, 1);
});

test('switches', () => {
  const request = parse('lowerdir=/a,volatile,metacopy=off,passthrough,allow_other');
  assert.equal(request.volatile, true);
  assert.equal(request.metacopy, false);
  assert.equal(request.passthrough, true);
  assert.equal(request.allowOther, true);
});

test('what is not understood is named', () => {
  const refuses = (pattern: RegExp, ...options: string[]) =>
    assert.throws(
      () => parse(...options),
      (error: unknown) => error instanceof MountError && pattern.test(error.message),
    );
  refuses(/unknown mount option "lowerdri"/, 'lowerdri=/a');
  refuses(/metacopy is on or off, not "maybe"/, 'lowerdir=/a,metacopy=maybe');
  refuses(/upperdir needs a value/, 'upperdir=');
  refuses(/no branches/, 'ro');
  refuses(/it is always index=on here/, 'lowerdir=/a,index=off');
  refuses(/an empty branch/, 'lowerdir=/a::/b');
  refuses(/work directories given, but no writable branch/, 'lowerdir=/a,workdir=/w');
  refuses(/volatile takes no value/, 'lowerdir=/a,volatile=1');
});

test('work directories belong to the rw branches in their order', () => {
  const request = parseRequest([], {
    branches: [parseBranch('/a=rw', 'ro'), parseBranch('/b=ro', 'ro'), parseBranch('/c=rw', 'ro')],
    lower: [],
    upper: undefined,
    work: ['/wa', '/wc'],
  });
  assert.deepEqual(
    request.branches.map((branch) => branch.work),
    ['/wa', undefined, '/wc'],
  );
});

test('the table of mounts', () => {
  const entries = parseMountinfo(
    [
      '22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
      String.raw`30 22 0:40 / /mnt/a\040b rw,nosuid - fuse.palimpsest /up\134:x=rw rw,user_id=0`,
      '31 30 0:41 /sub /mnt/a\\040b rw - tmpfs none rw',
    ].join('\n'),
  );
  assert.equal(entries[1]?.target, '/mnt/a b');
  assert.equal(entries[1]?.source, String.raw`/up\:x=rw`);
  assert.equal(mountAt(entries, '/mnt/a b')?.fsType, 'tmpfs');
  assert.equal(mountOf(entries, '/mnt/other')?.fsType, 'ext4');
  assert.equal(isInside('/a/b', '/a'), true);
  assert.equal(isInside('/ab', '/a'), false);
});
