import assert from 'node:assert/strict';
import { test } from 'node:test';
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
