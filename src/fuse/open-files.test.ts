import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Errno } from '../abi/errno.ts';
import { FsError } from '../kernel/error.ts';
import { runSync, type Task } from '../kernel/task.ts';
import type { Inode, Name } from '../vfs/inode-operations.ts';
import { OpenFiles } from './open-files.ts';
import { MemoryFs } from './testing/memory-fs.ts';

/** A kernel that gives ids 1, 2, …, or an errno. */
class FakeDevice {
  answer = 0;
  readonly held = new Set<number>();
  #last = 0;

  open(_fd: number): number {
    if (this.answer < 0) return this.answer;
    this.held.add(++this.#last);
    return this.#last;
  }
  close(backingId: number): void {
    assert.ok(this.held.delete(backingId), 'a backing id is closed once');
  }
}

function setUp() {
  const fs = new MemoryFs();
  const device = new FakeDevice();
  const complaints: string[] = [];
  const files = new OpenFiles(device, (line) => complaints.push(line));
  const make = (name: string, mode = 0o644): Inode & { fd: number | undefined } => {
    const cred = { uid: 0, gid: 0, umask: 0, pid: 0 };
    const inode = runSync(fs.root.create(name as Name, mode, cred));
    return Object.assign(inode, {
      fd: 7 as number | undefined,
      // oxlint-disable-next-line require-yield
      *backing(this: { fd: number | undefined }): Task<number | undefined> {
        return this.fd;
      },
    });
  };
  const open = (inode: Inode): number => runSync(files.open(inode));
  return { device, complaints, files, make, open };
}

test('the first open decides for all until the last release', () => {
  const { device, files, make, open } = setUp();
  const file = make('f');
  file.fd = undefined;
  assert.equal(open(file), 0);
  file.fd = 7;
  assert.equal(open(file), 0);
  files.release(file);
  assert.equal(open(file), 0);
  files.release(file);
  files.release(file);
  assert.equal(files.wasPassed(file), false);
  assert.equal(open(file), 1);
  assert.equal(open(file), 1);
  files.release(file);
  assert.deepEqual([...device.held], [1]);
  files.release(file);
  assert.equal(device.held.size, 0);
  assert.equal(open(file), 2);
  files.drop(file);
  assert.equal(device.held.size, 0);
});

test('what was passed once is passed again or not opened', () => {
  const { device, files, make, open } = setUp();
  const file = make('f');
  open(file);
  files.release(file);
  device.answer = -Errno.ENOMEM;
  assert.throws(() => open(file), new FsError(Errno.ENOMEM));
  file.fd = undefined;
  assert.throws(() => open(file), new FsError(Errno.EIO));
  assert.equal(open(make('other')), 0);
});

test('a kernel that refuses is asked once, and told of once', () => {
  const { device, complaints, make, open } = setUp();
  device.answer = -Errno.ELOOP;
  assert.equal(open(make('a')), 0);
  assert.equal(open(make('b')), 0);
  assert.equal(complaints.length, 1);
  device.answer = -Errno.EPERM;
  assert.equal(open(make('c')), 0);
  device.answer = 0;
  assert.equal(open(make('d')), 0);
  assert.equal(complaints.length, 2);
});

test('a set-id file is not passed', () => {
  const { make, open } = setUp();
  for (const mode of [0o4755, 0o2755, 0o6711]) assert.equal(open(make(String(mode), mode)), 0);
  // Mandatory locking of old, not a right.
  assert.equal(open(make('locked', 0o2644)), 1);
});
