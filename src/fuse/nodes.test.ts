import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Inode } from '../vfs/inode-operations.ts';
import { MemoryFs, MemoryInode } from './testing/memory-fs.ts';
import { NodeTable } from './nodes.ts';

/** A small generator of numbers, for runs that can be repeated. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

test('node ids behave as a map with counts does', () => {
  const seed = Number(process.env.SEED ?? 4711);
  const random = seeded(seed);
  const fs = new MemoryFs();
  const dropped: Inode[] = [];
  const nodes = new NodeTable(fs.root, (inode) => dropped.push(inode));
  const model = new Map<number, { inode: MemoryInode; count: number }>();
  const used = new Set<number>([1]);
  const inodes = Array.from(
    { length: 50 },
    () => new MemoryInode(fs, 0o100644, { uid: 0, gid: 0 }),
  );
  for (let step = 0; step < 20_000; step++) {
    const message = `SEED=${seed} step ${step}`;
    const at = Math.floor(random() * inodes.length);
    const inode = inodes[at]!;
    const known = [...model].find(([, entry]) => entry.inode === inode);
    if (random() < 0.5) {
      const id = nodes.remember(inode);
      if (known === undefined) {
        assert.ok(!used.has(id), `${message}: an id is never used twice`);
        used.add(id);
        model.set(id, { inode, count: 1 });
      } else {
        assert.equal(id, known[0], message);
        known[1].count++;
      }
    } else if (known !== undefined) {
      const [id, entry] = known;
      const count = 1 + Math.floor(random() * entry.count);
      assert.equal(nodes.forget(id, count), true, message);
      entry.count -= count;
      if (entry.count === 0) {
        model.delete(id);
        assert.equal(inode.forgotten, 1, message);
        assert.equal(nodes.find(id), undefined, message);
        assert.equal(dropped.at(-1), inode, message);
        inodes[at] = new MemoryInode(fs, 0o100644, { uid: 0, gid: 0 });
      }
    }
    assert.equal(nodes.size, model.size + 1, message);
    if (step % 31 === 0) nodes.trim();
    if (step % 97 === 0) nodes.check();
  }
  for (const [id, { inode }] of model) {
    assert.equal(nodes.find(id), inode);
    assert.equal(nodes.idOf(inode), id);
  }
  nodes.clear();
  nodes.check();
  assert.equal(nodes.size, 1);
  assert.equal(nodes.find(1), fs.root);
});

test('trimming gives free slots back, and their old ids stay unknown', () => {
  const fs = new MemoryFs();
  const nodes = new NodeTable(fs.root, () => {});
  const make = (): MemoryInode => new MemoryInode(fs, 0o100644, { uid: 0, gid: 0 });
  const used = new Set<number>();
  for (let round = 0; round < 4; round++) {
    const kept = make();
    const keptId = nodes.remember(kept);
    const ids = Array.from({ length: 5000 }, () => nodes.remember(make()));
    for (const id of ids) {
      assert.ok(!used.has(id), 'an id is never used twice');
      used.add(id);
    }
    for (const id of ids) assert.equal(nodes.forget(id, 1), true);
    nodes.trim();
    nodes.check();
    assert.equal(nodes.find(keptId), kept);
    for (const id of ids) assert.equal(nodes.find(id), undefined);
    assert.equal(nodes.size, 2 + round);
  }
  assert.equal(nodes.forgottenCount, 20_000);
});

test('forgetting what is not known, or too often, is told', () => {
  const fs = new MemoryFs();
  const nodes = new NodeTable(fs.root, () => {});
  assert.equal(nodes.forget(99, 1), false);
  assert.equal(nodes.forget(0, 1), false);
  const inode = new MemoryInode(fs, 0o100644, { uid: 0, gid: 0 });
  const id = nodes.remember(inode);
  assert.equal(nodes.forget(id, 5), false);
  assert.equal(inode.forgotten, 1);
  assert.equal(nodes.forget(1, 1), true, 'the root stays');
  assert.equal(nodes.find(1), fs.root);
});
