import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProcessorLoad, runningThreads } from './load.ts';

const running = (line: string): number => runningThreads(Buffer.from(line));

test('running threads are the number before the slash', () => {
  assert.equal(running('0.20 0.18 0.12 1/80 11206\n'), 1);
  assert.equal(running('12.00 10.11 9.01 37/1804 991\n'), 37);
});

test('what is no such line has none', () => {
  for (const line of ['', '0.20 0.18', '0.20 0.18 0.12', '0.20 0.18 0.12 x/80 1']) {
    assert.equal(running(line), 0, line);
  }
});

test('the machine can be asked', () => {
  const load = new ProcessorLoad();
  assert.equal(typeof load.crowded, 'boolean');
  assert.equal(load.crowded, load.crowded);
});
