import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NumberTable } from './number-table.ts';
import { Prng } from './prng.ts';

const seed = Number(process.env.SEED ?? 4711);

interface Thing {
  readonly ino: number;
}

describe('NumberTable', () => {
  test('does what a Map does, over growth and shrinking', () => {
    const random = new Prng(seed);
    const table = new NumberTable<Thing>();
    const model = new Map<number, Thing>();
    // Few numbers, so that operations meet; of several ranges, neighbours and such beyond 32 bits.
    const number = (): number =>
      random.below(3) * 2 ** 48 + random.below(2) * 2 ** 31 + random.below(400);
    for (let step = 0; step < 20_000; step++) {
      const message = `SEED=${seed} step ${step}`;
      const ino = number();
      // It fills in one half of the run and empties in the other.
      const fills = step % 10_000 < 5000;
      if (random.below(10) < (fills ? 7 : 2)) {
        const thing = { ino };
        table.set(thing);
        model.set(ino, thing);
      } else {
        assert.equal(table.delete(ino), model.delete(ino), message);
      }
      const asked = number();
      assert.equal(table.get(asked), model.get(asked), message);
      assert.equal(table.has(asked), model.has(asked), message);
      assert.equal(table.size, model.size, message);
      if (step % 50 === 0) {
        table.check();
        for (const [key, thing] of model) assert.equal(table.get(key), thing, message);
        assert.deepEqual(new Set(table.values()), new Set(model.values()), message);
      }
    }
  });

  test('finds a hundred thousand neighbours, and is small again without them', () => {
    const table = new NumberTable<Thing>();
    for (let ino = 0; ino < 100_000; ino++) table.set({ ino });
    table.check();
    for (let ino = 0; ino < 100_000; ino++) assert.equal(table.get(ino)?.ino, ino);
    for (let ino = 0; ino < 100_000; ino++) assert.ok(table.delete(ino));
    table.check();
    assert.equal(table.size, 0);
  });
});
