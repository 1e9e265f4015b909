import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { SimulatedScheduler, preempt } from '../../sim/scheduler.ts';
import { runAsync, runSync } from '../task.ts';
import type { Task } from '../task.ts';
import { LockOrderError, setLockdep } from './lockdep.ts';
import { Mutex } from './mutex.ts';
import { RwLock } from './rwlock.ts';

const A = { name: 'a', nestable: false };
const B = { name: 'b', nestable: false };

beforeEach(() => setLockdep(true));
afterEach(() => setLockdep(false));

test('a mutex lets one task in at a time, whatever the interleaving', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const mutex = new Mutex(A);
    let inside = 0;
    let turns = 0;
    const scheduler = new SimulatedScheduler(seed);
    const worker = function* (): Task<void> {
      const me = {};
      for (let i = 0; i < 3; i++) {
        using _ = yield* mutex.lock(me);
        inside++;
        yield preempt;
        assert.equal(inside, 1, `SEED=${seed}`);
        inside--;
        turns++;
      }
    };
    for (const name of ['x', 'y', 'z']) scheduler.add(name, worker());
    scheduler.settle();
    assert.equal(turns, 9);
    assert.equal(mutex.held, false);
  }
});

test('readers share, a writer is alone, and nobody starves', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const lock = new RwLock(A);
    let readers = 0;
    let writers = 0;
    const scheduler = new SimulatedScheduler(seed);
    const read = function* (): Task<void> {
      using _ = yield* lock.read({});
      readers++;
      yield preempt;
      assert.equal(writers, 0, `SEED=${seed}`);
      readers--;
    };
    const write = function* (): Task<void> {
      using _ = yield* lock.write({});
      writers++;
      yield preempt;
      assert.deepEqual([readers, writers], [0, 1], `SEED=${seed}`);
      writers--;
    };
    for (let i = 0; i < 4; i++) scheduler.add(`read${i}`, read());
    for (let i = 0; i < 3; i++) scheduler.add(`write${i}`, write());
    scheduler.settle();
  }
});

test('a second release of a token throws (seed row 15)', () => {
  const mutex = new Mutex(A);
  const guard = runSync(mutex.lock({}));
  guard[Symbol.dispose]();
  assert.throws(() => guard[Symbol.dispose](), /used once/);
});

test('lockdep throws on an order that could deadlock though this run does not', () => {
  const a = new Mutex(A);
  const b = new Mutex(B);
  const both = function* (first: Mutex, second: Mutex): Task<void> {
    const me = {};
    using _one = yield* first.lock(me);
    using _two = yield* second.lock(me);
  };
  runSync(both(a, b));
  assert.throws(() => runSync(both(b, a)), LockOrderError);
});

test('the sync driver says what cannot be waited for on the spot, and unwinds', () => {
  const mutex = new Mutex(A);
  const guard = runSync(mutex.lock({}));
  let unwound = false;
  const task = (function* (): Task<void> {
    try {
      using _ = yield* mutex.lock({});
    } finally {
      unwound = true;
    }
  })();
  assert.throws(() => runSync(task), /EDEADLK: mutex a needs the async API/);
  assert.equal(unwound, true);
  guard[Symbol.dispose]();
});

test('the async driver parks and resumes', async () => {
  const mutex = new Mutex(A);
  const guard = runSync(mutex.lock({}));
  let got = false;
  const waiting = runAsync(
    (function* (): Task<void> {
      using _ = yield* mutex.lock({});
      got = true;
    })(),
  );
  assert.equal(got, false);
  guard[Symbol.dispose]();
  await waiting;
  assert.equal(got, true);
});
