import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GiveBack } from './give-back.ts';
import { GIVE_BACK_IDLE_MS, GIVE_BACK_NODES_MIN, GIVE_BACK_RATIO } from './limits.ts';

/** A node table that only counts. */
class Counts {
  size = 1;
  forgottenCount = 0;
  steps: string[] = [];
  readonly giveBack = new GiveBack(this, () => this.steps.push('collect'));

  trim(): void {
    this.steps.push('trim');
  }
}

describe('GiveBack', () => {
  test('collects once after many were forgotten, and then waits without an end', () => {
    const counts = new Counts();
    counts.forgottenCount = GIVE_BACK_NODES_MIN;
    assert.equal(counts.giveBack.idleMs, GIVE_BACK_IDLE_MS);
    counts.giveBack.rest();
    assert.deepEqual(counts.steps, ['trim', 'collect']);
    assert.equal(counts.giveBack.idleMs, -1);
    counts.giveBack.rest();
    assert.equal(counts.steps.length, 2);
    counts.forgottenCount += GIVE_BACK_NODES_MIN;
    assert.equal(counts.giveBack.idleMs, GIVE_BACK_IDLE_MS);
  });

  test('does not collect for few', () => {
    const counts = new Counts();
    counts.forgottenCount = GIVE_BACK_NODES_MIN - 1;
    assert.equal(counts.giveBack.idleMs, -1);
    counts.giveBack.rest();
    assert.deepEqual(counts.steps, []);
  });

  test('does not collect while much more is alive than a collection would gain', () => {
    const counts = new Counts();
    counts.size = GIVE_BACK_NODES_MIN;
    counts.forgottenCount = GIVE_BACK_NODES_MIN * GIVE_BACK_RATIO - 1;
    assert.equal(counts.giveBack.idleMs, -1);
    counts.forgottenCount++;
    assert.equal(counts.giveBack.idleMs, GIVE_BACK_IDLE_MS);
  });
});
