import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { describe, test, type TestContext } from 'node:test';
import { CLOSING_MAX, Closer } from './closer.ts';
import { eventfd } from './poll.ts';
import { tryClose } from './open.ts';

const isOpen = (fd: number): boolean => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).includes('eventfd');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return false;
  }
};

const make = (count: number): number[] => Array.from({ length: count }, () => eventfd());

function closer(t: TestContext): Closer {
  const made = new Closer();
  t.after(() => made.stop());
  return made;
}

/** Polled for, within a bound: the thread takes its time to start. */
async function until(condition: () => boolean): Promise<void> {
  for (let polls = 0; polls < 2000 && !condition(); polls++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.ok(condition());
}

describe('Closer', () => {
  test('what is submitted stays open until the thread is woken or it is settled', (t) => {
    const closing = closer(t);
    const fds = make(3);
    for (const fd of fds) assert.equal(closing.submit(fd), true);
    assert.equal(closing.pending, 3);
    assert.deepEqual(fds.map(isOpen), [true, true, true]);
    assert.equal(closing.settle(), true);
    assert.deepEqual(fds.map(isOpen), [false, false, false]);
    assert.equal(closing.settle(), false, 'nothing was left');
  });

  test('the thread closes them', async (t) => {
    const closing = closer(t);
    const fds = make(5);
    for (const fd of fds) closing.submit(fd);
    closing.wake();
    await until(() => closing.pending === 0);
    assert.ok(!fds.some(isOpen));
  });

  test('a full ring refuses, and what it refused is still open', (t) => {
    const closing = closer(t);
    // A thread that could take some away would make this a matter of luck.
    const stuck = Object.assign(closing, { wake: () => undefined });
    const fds = make(CLOSING_MAX);
    for (const fd of fds) assert.equal(stuck.submit(fd), true);
    const [more] = make(1);
    assert.equal(stuck.submit(more!), false);
    assert.equal(isOpen(more!), true);
    tryClose(more!);
    closing.settle();
    assert.ok(!fds.some(isOpen));
  });

  test('thousands with both threads closing: each once, none left', async (t) => {
    const closing = closer(t);
    for (let round = 0; round < 400; round++) {
      for (const fd of make(20)) {
        if (!closing.submit(fd)) assert.equal(tryClose(fd), 0, 'nobody else had closed it');
      }
      if (round % 7 === 0) closing.settle();
      if (round % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    closing.settle();
    assert.equal(closing.pending, 0);
    // A descriptor closed twice would have closed one that was made meanwhile.
    const probe = make(50);
    assert.ok(probe.every(isOpen));
    for (const fd of probe) assert.equal(tryClose(fd), 0);
  });
});
