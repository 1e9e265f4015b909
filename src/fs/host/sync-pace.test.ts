import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { runSync } from '../../kernel/task.ts';
import type { Name } from '../../vfs/inode-operations.ts';
import { openHostFs } from './host-fs.ts';
import { SYNC_ON_THE_SPOT_BYTES, SYNC_ON_THE_SPOT_NSEC } from './limits.ts';
import { SyncPace } from './sync-pace.ts';

test('the first sync goes to a thread, those after a short one are made on the spot', () => {
  const pace = new SyncPace();
  assert.equal(pace.isShort, false);
  pace.begin();
  pace.took(SYNC_ON_THE_SPOT_NSEC);
  assert.equal(pace.isShort, true);
});

test('one long sync sends the next to a thread, until a short one', () => {
  const pace = new SyncPace();
  pace.took(1000);
  pace.took(SYNC_ON_THE_SPOT_NSEC + 1);
  assert.equal(pace.isShort, false);
  pace.took(1000);
  assert.equal(pace.isShort, true);
});

test('much written since the last sync sends it to a thread', () => {
  const pace = new SyncPace();
  pace.took(1000);
  pace.wrote(SYNC_ON_THE_SPOT_BYTES);
  assert.equal(pace.isShort, true);
  pace.wrote(1);
  assert.equal(pace.isShort, false);
  pace.begin();
  pace.took(1000);
  assert.equal(pace.isShort, true);
});

test('fsync of a file waits for a thread after a long sync, and not after a short one', (t) => {
  const path = mkdtempSync(join(tmpdir(), 'sync-pace-'));
  t.after(() => rmSync(path, { recursive: true }));
  writeFileSync(join(path, 'file'), 'data');
  const fs = openHostFs({ path, readOnly: false });
  t.after(() => runSync(fs.unmount()));
  const file = runSync(fs.root.lookup('file' as Name))!;
  for (const dataOnly of [false, true]) {
    fs.syncs.took(SYNC_ON_THE_SPOT_NSEC + 1);
    const waiting = file.fsync(dataOnly);
    assert.equal(waiting.next().done, false);
    waiting.return();
    fs.syncs.took(1000);
    assert.equal(file.fsync(dataOnly).next().done, true);
  }
});
