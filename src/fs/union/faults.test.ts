/**
 * Faults: each operation of the union with its Nth changing call to a branch failing, or being the
 * last thing that happens, for every N.
 *
 * After a failure the union shows the tree before, in memory and opened anew, and a second try works.
 * After a crash, who opens the branches next (we, or kernel overlayfs) sees the tree before or after.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { Errno, errnoName } from '../../abi/errno.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../abi/fcntl.ts';
import { S_IFIFO } from '../../abi/mode.ts';
import { bytesOf } from '../../lib/latin1.ts';
import { errnoOf } from '../../kernel/error.ts';
import { CrashError } from '../../sim/fault-fs.ts';
import type { Fault } from '../../sim/fault-fs.ts';
import { CRED, FaultWorld } from '../../../test/support/fault-world.ts';
import type { Stack } from '../../../test/support/fault-world.ts';
import { checkUnion, heldByUnion } from './check.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: trusted xattrs, device nodes and overlay mounts';

/** No operation takes more calls than this: a loop that does not end is a failure. */
const CALLS_MAX = 60;

interface Operation {
  readonly name: string;
  /** Through the union, without faults. */
  readonly prepare?: (world: FaultWorld) => void;
  /** It must not be opened anew between preparing and applying: something is held. */
  readonly live?: true;
  /** It makes a link of the file in work/ first. */
  readonly linksInWork?: true;
  /** A file's data is copied into place: a crash, or a failure to give its mtime back, moves that. */
  readonly fillsMetacopy?: true;
  readonly apply: (world: FaultWorld) => void;
}

function build(world: FaultWorld): void {
  const at = (where: string): string => world.base(where);
  for (const dir of ['d', 'd/sub', 'd/sub/deep', 'e', 'full', 'sg', 'sg/wd']) {
    fs.mkdirSync(at(dir));
    fs.chmodSync(at(dir), 0o755);
  }
  for (const file of ['f', 'g', 'h1', 'big', 'd/a', 'd/sub/deep/x', 'full/only', 'sg/w']) {
    fs.writeFileSync(at(file), `the ${file}`);
    fs.chmodSync(at(file), 0o644);
  }
  fs.chownSync(at('f'), 10, 20);
  fs.chmodSync(at('f'), 0o4751);
  fs.linkSync(at('h1'), at('h2'));
  fs.linkSync(at('h1'), at('d/h3'));
  fs.symlinkSync('f', at('sym'));
  fs.truncateSync(at('big'), 200_000);
  fs.appendFileSync(at('big'), 'tail');
  fs.chownSync(at('sg'), 0, 77);
  fs.chmodSync(at('sg'), 0o2775);
  world.setxattr('f', 'trusted.note', bytesOf('noted'));
  // user::rwx, user:8:r-x, group::r-x, mask::rwx, other::---
  const entries = [[1, 7, -1], [2, 5, 8], [4, 5, -1], [16, 7, -1], [32, 0, -1]];
  const acl = Buffer.alloc(4 + 8 * entries.length);
  acl.writeUInt32LE(2, 0);
  for (const [i, [tag, perm, id]] of entries.entries()) {
    acl.writeUInt16LE(tag!, 4 + 8 * i);
    acl.writeUInt16LE(perm!, 6 + 8 * i);
    acl.writeInt32LE(id!, 8 + 8 * i);
  }
  world.setxattr('sg', 'system.posix_acl_default', acl);
}

const fifo = (w: FaultWorld, where: string): void => {
  const [dir, name] = w.split(where);
  w.run(dir.mknod(name, S_IFIFO | 0o600, 0, 0, CRED));
};

const tmpfileAs = (w: FaultWorld, where: string): void => {
  const [dir, name] = w.split(where);
  const file = w.run(dir.tmpfile(0o600, CRED));
  try {
    w.run(file.write({ bytes: bytesOf('tmp'), offset: 0, length: 3 }, 0));
    w.run(dir.link(name, file));
  } finally {
    if (dir.children?.get(name) !== file) file.forget();
  }
};

/** Held through `live` operations. */
const held = new WeakMap<FaultWorld, ReturnType<FaultWorld['get']>>();
const hold = (w: FaultWorld, where: string): void => void held.set(w, w.get(where));

const OPERATIONS: readonly Operation[] = [
  { name: 'write to a lower file', apply: (w) => w.write('f', 'new') },
  { name: 'write to a big lower file', apply: (w) => w.write('big', 'new', 100_000) },
  { name: 'write to a lower file deep down', apply: (w) => w.write('d/sub/deep/x', 'new') },
  { name: 'chmod of a lower file', apply: (w) => w.run(w.get('f').setattr({ mode: 0o600 })) },
  { name: 'chmod of a lower directory', apply: (w) => w.run(w.get('d/sub').setattr({ mode: 0o700 })) },
  { name: 'chmod of a hard link', apply: (w) => w.run(w.get('h1').setattr({ mode: 0o600 })) },
  { name: 'chown of a lower file', apply: (w) => w.run(w.get('f').setattr({ uid: 1, gid: 2, killPriv: true })) },
  { name: 'chown of a lower symlink', apply: (w) => w.run(w.get('sym').setattr({ uid: 1, gid: 2 })) },
  { name: 'setxattr of a lower file', apply: (w) => w.run(w.get('f').setxattr('trusted.new', bytesOf('v'), 0)) },
  { name: 'removexattr of a lower file', apply: (w) => w.run(w.get('f').removexattr('trusted.note')) },
  { name: 'truncate of a lower file', apply: (w) => w.run(w.get('f').setattr({ size: 3 })) },
  { name: 'utimes of a lower file', apply: (w) => w.run(w.get('f').setattr({ mtime: { sec: 1234, nsec: 5 } })) },
  { name: 'write to a hard link', apply: (w) => w.write('h1', 'new') },
  { name: 'write to a hard link by its name deep down', apply: (w) => w.write('d/h3', 'new') },
  { name: 'write to a copied-up hard link', prepare: (w) => w.write('h1', 'NEW'), apply: (w) => w.write('h2', 'new') },
  { name: 'link of a lower file', apply: (w) => w.link('f', 'n') },
  { name: 'link of a lower file into a lower directory', apply: (w) => w.link('f', 'd/sub/n') },
  { name: 'link over a whiteout', linksInWork: true, prepare: (w) => w.unlink('g'), apply: (w) => w.link('f', 'g') },
  { name: 'link of a hard link', apply: (w) => w.link('h1', 'n') },
  { name: 'link of a copied-up hard link', prepare: (w) => w.write('h1', 'NEW'), apply: (w) => w.link('h2', 'n') },
  { name: 'unlink of a lower file', apply: (w) => w.unlink('f') },
  { name: 'unlink of a lower file deep down', apply: (w) => w.unlink('d/sub/deep/x') },
  { name: 'unlink of an upper file over a lower one', prepare: (w) => w.write('f', 'new'), apply: (w) => w.unlink('f') },
  { name: 'unlink of an upper file', prepare: (w) => void w.create('n'), apply: (w) => w.unlink('n') },
  { name: 'unlink of a hard link', apply: (w) => w.unlink('h1') },
  { name: 'unlink of a copied-up hard link', prepare: (w) => w.write('h1', 'new'), apply: (w) => w.unlink('h1') },
  { name: 'unlink of a name of a copied-up hard link', prepare: (w) => w.write('h1', 'new'), apply: (w) => w.unlink('d/h3') },
  {
    name: 'unlink of the last hard link',
    prepare: (w) => (w.unlink('h1'), w.unlink('h2')),
    apply: (w) => w.unlink('d/h3'),
  },
  { name: 'rmdir of a lower directory', apply: (w) => w.rmdir('e') },
  { name: 'rmdir of an emptied lower directory', prepare: (w) => w.unlink('full/only'), apply: (w) => w.rmdir('full') },
  { name: 'rmdir of an upper directory', prepare: (w) => w.mkdir('n'), apply: (w) => w.rmdir('n') },
  {
    name: 'rmdir of a merged directory',
    prepare: (w) => (w.create('e/n'), w.unlink('e/n')),
    apply: (w) => w.rmdir('e'),
  },
  { name: 'mkdir', apply: (w) => w.mkdir('n') },
  { name: 'mkdir deep down', apply: (w) => w.mkdir('d/sub/deep/n') },
  { name: 'mkdir over the whiteout of a file', prepare: (w) => w.unlink('f'), apply: (w) => w.mkdir('f') },
  {
    name: 'mkdir over the whiteout of a directory',
    prepare: (w) => (w.unlink('full/only'), w.rmdir('full')),
    apply: (w) => w.mkdir('full'),
  },
  { name: 'create', apply: (w) => void w.create('n') },
  { name: 'create in a lower directory', apply: (w) => void w.create('d/sub/n') },
  { name: 'create over a whiteout', prepare: (w) => w.unlink('f'), apply: (w) => void w.create('f') },
  { name: 'create in a setgid directory', apply: (w) => void w.create('sg/n') },
  { name: 'create over a whiteout in a setgid directory', prepare: (w) => w.unlink('sg/w'), apply: (w) => void w.create('sg/w') },
  { name: 'mkdir over a whiteout in a setgid directory', prepare: (w) => w.rmdir('sg/wd'), apply: (w) => w.mkdir('sg/wd') },
  { name: 'fifo over a whiteout', prepare: (w) => w.unlink('f'), apply: (w) => fifo(w, 'f') },
  { name: 'symlink', apply: (w) => w.symlink('n', 'target') },
  { name: 'symlink over a whiteout', prepare: (w) => w.unlink('f'), apply: (w) => w.symlink('f', 'target') },
  { name: 'rename of a lower file', apply: (w) => w.rename('f', 'n') },
  { name: 'rename of a lower file into another directory', apply: (w) => w.rename('f', 'd/sub/n') },
  { name: 'rename of a lower file over another', apply: (w) => w.rename('f', 'g') },
  { name: 'rename of a lower file over a whiteout', prepare: (w) => w.unlink('g'), apply: (w) => w.rename('f', 'g') },
  { name: 'rename of an upper file', prepare: (w) => void w.create('n'), apply: (w) => w.rename('n', 'm') },
  { name: 'rename of an upper file over a lower one', prepare: (w) => void w.create('n'), apply: (w) => w.rename('n', 'f') },
  { name: 'rename of a symlink', apply: (w) => w.rename('sym', 'd/n') },
  { name: 'rename of a hard link', apply: (w) => w.rename('h1', 'n') },
  { name: 'rename of a copied-up hard link', prepare: (w) => w.write('h1', 'new'), apply: (w) => w.rename('d/h3', 'n') },
  { name: 'rename of a file over a hard link', apply: (w) => w.rename('f', 'h1') },
  { name: 'rename of a file over a copied-up hard link', prepare: (w) => w.write('h1', 'new'), apply: (w) => w.rename('f', 'h1') },
  { name: 'rename of a hard link over a file', apply: (w) => w.rename('h1', 'f') },
  { name: 'rename of a lower directory', apply: (w) => w.rename('d', 'n') },
  { name: 'rename of a lower directory into another', apply: (w) => w.rename('d', 'e/n') },
  { name: 'rename of a lower directory deep down', apply: (w) => w.rename('d/sub', 'n') },
  { name: 'rename of a merged directory', prepare: (w) => void w.create('d/n'), apply: (w) => w.rename('d', 'n') },
  { name: 'rename of a merged directory into another', prepare: (w) => void w.create('d/n'), apply: (w) => w.rename('d', 'e/n') },
  { name: 'rename of a renamed directory', prepare: (w) => w.rename('d', 'n'), apply: (w) => w.rename('n', 'e/m') },
  { name: 'rename of a directory back', prepare: (w) => w.rename('d', 'n'), apply: (w) => w.rename('n', 'd') },
  { name: 'rename inside a renamed directory', prepare: (w) => w.rename('d', 'n'), apply: (w) => w.rename('n/sub', 'n/m') },
  { name: 'rename of a directory over a lower empty one', apply: (w) => w.rename('d', 'e') },
  {
    name: 'rename of a directory over an emptied one',
    prepare: (w) => w.unlink('full/only'),
    apply: (w) => w.rename('d', 'full'),
  },
  { name: 'rename of a directory over a whiteout', prepare: (w) => w.rmdir('e'), apply: (w) => w.rename('d', 'e') },
  {
    name: 'rename of an upper directory over a whiteout',
    prepare: (w) => (w.unlink('full/only'), w.rmdir('full'), w.mkdir('n')),
    apply: (w) => w.rename('n', 'full'),
  },
  { name: 'rename of an upper directory over a lower one', prepare: (w) => w.mkdir('n'), apply: (w) => w.rename('n', 'e') },
  {
    name: 'rename of an upper directory over an emptied one',
    prepare: (w) => (w.unlink('full/only'), w.mkdir('n'), w.create('n/in')),
    apply: (w) => w.rename('n', 'full'),
  },
  { name: 'rename with NOREPLACE', apply: (w) => w.rename('f', 'n', RENAME_NOREPLACE) },
  { name: 'rename with NOREPLACE to a whiteout', prepare: (w) => w.unlink('g'), apply: (w) => w.rename('f', 'g', RENAME_NOREPLACE) },
  { name: 'exchange of two files', apply: (w) => w.rename('f', 'g', RENAME_EXCHANGE) },
  { name: 'exchange of a file and a directory', apply: (w) => w.rename('f', 'd', RENAME_EXCHANGE) },
  { name: 'exchange of two directories', apply: (w) => w.rename('d', 'full', RENAME_EXCHANGE) },
  { name: 'exchange across directories', apply: (w) => w.rename('g', 'd/sub', RENAME_EXCHANGE) },
  { name: 'exchange of a hard link and a file', apply: (w) => w.rename('h1', 'd/a', RENAME_EXCHANGE) },
  { name: 'exchange with an upper directory', prepare: (w) => w.mkdir('n'), apply: (w) => w.rename('n', 'd', RENAME_EXCHANGE) },
  { name: 'tmpfile and link', apply: (w) => tmpfileAs(w, 'd/n') },
  { name: 'tmpfile and link over a whiteout', linksInWork: true, prepare: (w) => w.unlink('g'), apply: (w) => tmpfileAs(w, 'g') },
  { name: 'write to a metacopy', fillsMetacopy: true, prepare: (w) => w.run(w.get('big').setattr({ mode: 0o4711 })), apply: (w) => w.write('big', 'new', 9) },
  { name: 'truncate of a metacopy', fillsMetacopy: true, prepare: (w) => w.run(w.get('f').setattr({ mode: 0o600 })), apply: (w) => w.run(w.get('f').setattr({ size: 2 })) },
  { name: 'link of a metacopy', fillsMetacopy: true, prepare: (w) => w.run(w.get('f').setattr({ mode: 0o600 })), apply: (w) => w.link('f', 'n') },
  { name: 'rename of a metacopy', fillsMetacopy: true, prepare: (w) => w.run(w.get('f').setattr({ mode: 0o600 })), apply: (w) => w.rename('f', 'd/n') },
  { name: 'unlink of a metacopy', prepare: (w) => w.run(w.get('f').setattr({ mode: 0o600 })), apply: (w) => w.unlink('f') },
  { name: 'write to a metacopy of a hard link', fillsMetacopy: true, prepare: (w) => w.run(w.get('h1').setattr({ mode: 0o600 })), apply: (w) => w.write('h2', 'new') },
  {
    name: 'write to an orphan',
    prepare: (w) => (hold(w, 'f'), w.unlink('f')),
    live: true,
    apply: (w) => void w.run(held.get(w)!.write({ bytes: bytesOf('new'), offset: 0, length: 3 }, 0)),
  },
  {
    name: 'chmod of an orphan',
    prepare: (w) => (hold(w, 'f'), w.unlink('f')),
    live: true,
    apply: (w) => w.run(held.get(w)!.setattr({ mode: 0o600 })),
  },
];

const EIO_ONCE: Fault = { kind: 'error', errno: Errno.EIO, repeats: false };
const ENOSPC_ONCE: Fault = { kind: 'error', errno: Errno.ENOSPC, repeats: false };
const EDQUOT_FOR_EVER: Fault = { kind: 'error', errno: Errno.EDQUOT, repeats: true };
const CRASH: Fault = { kind: 'crash' };

const textOfFault = (fault: Fault): string =>
  fault.kind === 'crash' ? 'a crash' : `${errnoName(fault.errno)} ${fault.repeats ? 'for ever' : 'once'}`;

/** A world in which the operation can be applied; nothing is armed. */
function worldFor(stack: Stack, operation: Operation, live: boolean): FaultWorld {
  const world = new FaultWorld(stack);
  build(world);
  world.settle();
  if (operation.prepare !== undefined) {
    world.open();
    if (live) world.text();
    operation.prepare(world);
    if (live) return world;
    world.close();
    world.settle();
  }
  world.open();
  return world;
}

/** Nothing that the branches gave out is held without the union knowing of it. */
function checkLeaks(world: FaultWorld): void {
  const known = heldByUnion(world.union);
  for (const faulty of world.faulty) {
    const leaked = [...faulty.live].filter((inode) => !known.has(inode));
    assert.equal(leaked.length, 0, `${leaked.length} inodes of ${faulty.label} were not forgotten`);
  }
}

/**
 * What differs, line by line. Of what a fault left, modification times of directories are not compared:
 * copying up gives its directory's back after the commit, as best it can (so does the kernel), and the
 * fault may be just there. Of an unfinished write to a metacopy the file's own is not, either.
 */
function sameTree(found: string, wanted: string, what: string, mtimes: 'all' | 'files' | 'none' = 'files'): void {
  const strip = (text: string): string[] => {
    const kind = mtimes === 'files' ? / 4\d{4} / : / \d+ /;
    return text.split('\n').map((line) =>
      mtimes !== 'all' && kind.test(line) ? line.replace(/ mtime \S+/, '') : line);
  };
  const have = strip(found);
  const want = strip(wanted);
  const lines = [
    ...have.filter((line) => !want.includes(line)).map((line) => `found  ${line}`),
    ...want.filter((line) => !have.includes(line)).map((line) => `wanted ${line}`),
  ];
  if (lines.length > 0) throw new assert.AssertionError({ message: `${what}:\n${lines.join('\n')}` });
}

const isSameTree = (found: string, wanted: string): boolean => {
  try {
    sameTree(found, wanted, '');
    return true;
  } catch (error) {
    if (!(error instanceof assert.AssertionError)) throw error;
    return false;
  }
};

interface Expected {
  readonly before: string;
  readonly after: string;
  /** Kernel overlayfs shows what we show. */
  readonly kernelAgrees: boolean;
}

const withoutDirectoryLinks = (text: string): string => text.replaceAll(/^(\S+ 4\d{4} \S+ links )\d+/gm, '$1-');

function expectedOf(stack: Stack, operation: Operation, live: boolean): Expected {
  const world = worldFor(stack, operation, live);
  try {
    const before = world.text();
    world.run(checkUnion(world.union));
    operation.apply(world);
    const after = world.text();
    world.run(checkUnion(world.union));
    checkLeaks(world);
    world.close();
    world.open();
    const anew = world.text();
    sameTree(anew, after, 'opened anew', 'all');
    world.run(checkUnion(world.union));
    world.close();
    const kernel = world.kernelText();
    if (process.env.SHOW_KERNEL !== undefined) sameTree(kernel, withoutDirectoryLinks(after), 'as the kernel shows it', 'all');
    return { before, after, kernelAgrees: kernel === withoutDirectoryLinks(after) };
  } finally {
    world.remove();
  }
}

/** True: the fault was met. */
function attempt(world: FaultWorld, operation: Operation, at: number, fault: Fault): { hit: boolean; done: boolean } {
  world.plan.arm(at, fault);
  try {
    operation.apply(world);
    return { hit: world.plan.hit, done: true };
  } catch (error) {
    if (!(error instanceof CrashError) && errnoOf(error) === undefined) throw error;
    if (fault.kind === 'error') assert.ok(world.plan.hit, `an error that nobody injected: ${String(error)}`);
    if (fault.kind === 'error') assert.equal(errnoOf(error), fault.errno, 'the error that was injected');
    return { hit: true, done: false };
  } finally {
    world.plan.disarm();
  }
}

function afterError(world: FaultWorld, operation: Operation, expected: Expected, done: boolean): void {
  const mtimes = operation.fillsMetacopy === true ? 'none' : 'files';
  // A link that could not be taken out of work/ counts until the next mount.
  const links = (text: string): string =>
    operation.linksInWork === true && world.workNames().length > 0 ? text.replaceAll(/ links \d+/g, '') : text;
  const wanted = done ? expected.after : expected.before;
  sameTree(links(world.text()), links(wanted), done ? 'it succeeded' : 'it failed', mtimes);
  world.run(checkUnion(world.union));
  checkLeaks(world);
  if (!done) operation.apply(world);
  sameTree(links(world.text()), links(expected.after), 'after a second try', mtimes);
  world.run(checkUnion(world.union));
  checkLeaks(world);
  world.close();
  world.open();
  sameTree(world.text(), expected.after, 'opened anew', mtimes);
  world.run(checkUnion(world.union));
  assert.deepEqual(world.workNames(), []);
}

function afterCrash(world: FaultWorld, operation: Operation, expected: Expected): void {
  const mtimes = operation.fillsMetacopy === true ? 'none' : 'files';
  world.close();
  world.open();
  assert.deepEqual(world.workNames(), [], 'work/ after opening');
  const anew = world.text();
  if (!isSameTree(anew, expected.after)) sameTree(anew, expected.before, 'opened anew: neither after nor before', mtimes);
  world.run(checkUnion(world.union));
  world.close();
  // The kernel knows the index of its upper branch only, so of several its word is taken for `after` alone.
  const isJudge = expected.kernelAgrees && (anew === expected.after || world.branches().filter((b) => b.writable).length === 1);
  if (isJudge) sameTree(world.kernelText(), withoutDirectoryLinks(anew), 'as the kernel shows it', 'all');
}

function runFaults({ stack, faults, live: isLive }: Setting, operation: Operation): void {
  const live = isLive || operation.live === true;
  const expected = expectedOf(stack, operation, live);
  for (const fault of faults) {
    for (let at = 1; ; at++) {
      assert.ok(at < CALLS_MAX, 'too many calls');
      const world = worldFor(stack, operation, live);
      try {
        sameTree(world.text(), expected.before, 'before', 'all');
        const { hit, done } = attempt(world, operation, at, fault);
        if (!hit) break;
        if (fault.kind === 'crash') afterCrash(world, operation, expected);
        else afterError(world, operation, expected, done);
      } catch (error) {
        const calls = world.plan.history.map((call, i) => `${i + 1 === at ? '>' : ' '} ${i + 1} ${call}`);
        throw new Error(`${textOfFault(fault)} at call ${at} of\n${calls.join('\n')}\n${String((error as Error).message)}`);
      } finally {
        world.remove();
      }
    }
  }
}

/** Which faults where: each kind on some stack, for together they take minutes. */
interface Setting {
  readonly title: string;
  readonly stack: Stack;
  /** Applied in the mount in which it was prepared. */
  readonly live: boolean;
  readonly faults: readonly Fault[];
}

const SETTINGS: readonly Setting[] = [
  {
    title: 'one writable branch',
    stack: { branches: 'U=rw L=ro', base: 'L' },
    live: false,
    faults: [EIO_ONCE, CRASH],
  },
  {
    title: 'one writable branch, prepared in the same mount',
    stack: { branches: 'U=rw L=ro', base: 'L' },
    live: true,
    faults: [EDQUOT_FOR_EVER],
  },
  {
    title: 'two writable branches',
    stack: { branches: 'A=rw B=rw L=ro', base: 'L', options: { volatile: false } },
    live: false,
    faults: [ENOSPC_ONCE, CRASH],
  },
  {
    title: 'two writable branches, all on the second',
    stack: { branches: 'A=rw B=rw L=ro', base: 'B' },
    live: false,
    faults: [EIO_ONCE, CRASH],
  },
];

for (const setting of SETTINGS) {
  test(setting.title, { skip }, async (t) => {
    for (const operation of OPERATIONS) {
      if (setting.live && operation.prepare === undefined) continue;
      if (process.env.OPERATION !== undefined && !operation.name.includes(process.env.OPERATION)) continue;
      await t.test(operation.name, () => runFaults(setting, operation));
    }
  });
}
