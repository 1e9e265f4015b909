import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { IdleWait } from './idle-wait.ts';

/** A machine where a look costs 1 µs, and the next request comes so many µs after the wait began. */
class Machine {
  us = 0;
  slept = 0;
  yields = 0;
  readonly load = { crowded: false };
  #due = 0;
  told = 0;
  readonly waiting = new IdleWait(
    { wait: (timeoutMs) => this.#poll(timeoutMs) },
    () => void this.told++,
    { now: () => this.us * 1000, yieldProcessor: () => void this.yields++, load: this.load },
  );

  next(afterUs: number): number {
    this.#due = this.us + afterUs;
    return this.waiting.wait();
  }

  #poll(timeoutMs: number): number {
    this.us++;
    if (this.us >= this.#due) return 1;
    if (timeoutMs === 0) return 0;
    this.slept++;
    this.us = this.#due;
    return 1;
  }
}

describe('IdleWait', () => {
  test('sleeps at once where requests are rare, and costs no more than one look', () => {
    const machine = new Machine();
    for (let i = 0; i < 10; i++) assert.equal(machine.next(5000), 1);
    assert.equal(machine.slept, 10);
    assert.equal(machine.told, 10, 'told before each sleep');
    assert.equal(machine.yields, 0);
    assert.equal(machine.waiting.lookUs, 0);
  });

  test('looks longer and longer until a busy caller is seen without sleep', () => {
    const machine = new Machine();
    for (let i = 0; i < 10; i++) assert.equal(machine.next(40), 1);
    // 16 and 32 µs were too short: three sleeps, the first of them without a look.
    assert.equal(machine.slept, 3);
    assert.equal(machine.waiting.lookUs, 64);
    assert.ok(machine.yields > 0, 'the processor is offered between looks');
  });

  test('never looks longer than 128 µs, and gives up again when the caller has gone', () => {
    const machine = new Machine();
    for (let i = 0; i < 20; i++) machine.next(127);
    assert.equal(machine.waiting.lookUs, 128);
    const before = machine.us;
    for (let i = 0; i < 10; i++) machine.next(10_000);
    assert.equal(machine.waiting.lookUs, 0);
    assert.ok(machine.us - before < 10 * 10_000 + 300);
  });

  test('does not look while others wait for a processor, and looks again after', () => {
    const machine = new Machine();
    for (let i = 0; i < 10; i++) machine.next(40);
    machine.load.crowded = true;
    const { slept, yields } = machine;
    for (let i = 0; i < 5; i++) assert.equal(machine.next(40), 1);
    assert.equal(machine.slept, slept + 5);
    assert.equal(machine.yields, yields);
    machine.load.crowded = false;
    assert.equal(machine.next(40), 1);
    assert.equal(machine.slept, slept + 5);
  });

  test('sleeps no longer than it may', () => {
    const slept: number[] = [];
    let us = 0;
    const silent = new IdleWait(
      { wait: (timeoutMs) => (timeoutMs === 0 ? 0 : slept.push(timeoutMs) - slept.length) },
      undefined,
      {
        now: () => (us += 10_000) * 1000,
        yieldProcessor: () => undefined,
        load: { crowded: false },
      },
    );
    assert.equal(silent.wait(1000), 0);
    assert.equal(silent.wait(), 0);
    assert.deepEqual(slept, [1000, -1]);
  });

  test('what a signal interrupts says that nothing is ready', () => {
    const interrupted = new IdleWait(
      { wait: () => 0 },
      undefined,
      { now: () => 0, yieldProcessor: () => undefined, load: { crowded: false } },
    );
    assert.equal(interrupted.wait(), 0);
  });
});
