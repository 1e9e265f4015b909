/** What a removed file holds until its descriptor is closed on the other thread: had back when needed. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { Errno } from '../../abi/errno.ts';
import { runSync } from '../../kernel/task.ts';
import { Closer } from '../../sys/closer.ts';
import type { Cred, Name } from '../../vfs/inode-operations.ts';
import type { HostInode } from './host-inode.ts';
import { openHostFs, type HostFs } from './host-fs.ts';
import { HostProcess } from './host-process.ts';

const ROOT: Cred = { uid: 0, gid: 0, umask: 0o022, pid: 1 };
const skip = process.geteuid!() === 0 ? false : 'only root may mount a tmpfs';
const MIB = 1 << 20;
const n = (name: string): Name => name as Name;

/** A tmpfs of 4 MiB and 32 inodes. The closer's thread never begins: what waits, waits. */
function smallHost(t: TestContext): { host: HostFs; closer: Closer } {
  const dir = mkdtempSync(join(tmpdir(), 'last-close-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,nr_inodes=32', 'none', dir]);
  const closer = Object.assign(new Closer(), { wake: () => undefined });
  const host = openHostFs({ path: dir, readOnly: false, process: new HostProcess(1024, closer) });
  t.after(() => {
    runSync(host.unmount());
    execFileSync('umount', [dir]);
    rmdirSync(dir);
  });
  return { host, closer };
}

function make(host: HostFs, name: string, byteCount: number): HostInode {
  const inode = runSync(host.root.create(n(name), 0o644, ROOT));
  const buffer = { bytes: new Uint8Array(byteCount).fill(1), offset: 0, length: byteCount };
  assert.equal(runSync(inode.write(buffer, 0)), byteCount);
  return inode;
}

function remove(host: HostFs, name: string, inode: HostInode): void {
  runSync(host.root.unlink(n(name), inode));
  inode.forget();
}

describe('the last close of a removed file', { skip }, () => {
  test('is put off, and statfs shows its space all the same', (t) => {
    const { host, closer } = smallHost(t);
    const before = runSync(host.statfs()).bfree;
    remove(host, 'a', make(host, 'a', MIB));
    assert.equal(closer.pending, 1);
    assert.equal(runSync(host.statfs()).bfree, before);
    assert.equal(closer.pending, 0);
  });

  test('comes before a write or a file is refused for want of space', (t) => {
    const { host, closer } = smallHost(t);
    for (let round = 0; round < 5; round++) remove(host, 'a', make(host, 'a', 3 * MIB));
    assert.equal(closer.pending, 1, 'each but the last had to make room for the next');
    // Inodes: 32 with the root's.
    for (let i = 0; i < 100; i++) remove(host, `f${i}`, make(host, `f${i}`, 1));
    for (let i = 0; i < 100; i++) {
      const made = runSync(host.root.mkdir(n(`d${i}`), 0o755, ROOT));
      runSync(host.root.rmdir(n(`d${i}`), made));
      made.forget();
    }
  });

  test('does not turn a full disk into anything else', (t) => {
    const { host } = smallHost(t);
    const kept = make(host, 'kept', 3 * MIB);
    remove(host, 'a', make(host, 'a', MIB / 2));
    const made = runSync(host.root.create(n('b'), 0o644, ROOT));
    const buffer = { bytes: new Uint8Array(2 * MIB), offset: 0, length: 2 * MIB };
    assert.equal(runSync(made.write(buffer, 0)), MIB, 'what there was room for, with the removed half');
    assert.throws(() => runSync(made.write(buffer, MIB)), { errno: Errno.ENOSPC });
    kept.forget();
    made.forget();
  });

  test('waits for a file that is still in use', (t) => {
    const { host, closer } = smallHost(t);
    const inode = make(host, 'a', MIB);
    runSync(host.root.unlink(n('a'), inode));
    assert.equal(closer.pending, 0);
    const bytes = new Uint8Array(1);
    assert.equal(runSync(inode.read({ bytes, offset: 0, length: 1 }, MIB - 1)), 1);
    assert.equal(bytes[0], 1);
    inode.forget();
    assert.equal(closer.pending, 1);
  });
});
