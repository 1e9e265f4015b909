/** The harness works: its load compiles and two rows give a figure, on a plain directory. No timing is judged. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CommandFailed, run } from './host.ts';
import { plotTable } from './plot.ts';
import { markdown } from './report.ts';
import type { Results, TableResult } from './results.ts';
import { compiledLoad, makeLowerTree } from './sources.ts';
import { Subject } from './subjects.ts';

const gcc = ((): string | false => {
  try {
    run(['gcc', '--version']);
    return false;
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    return 'no gcc';
  }
})();

test('two rows on a plain directory', { skip: gcc }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-bench-smoke-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const load = compiledLoad();
  makeLowerTree(load, dir, false);
  for (const row of ['stat', 'create']) {
    const { stdout } = run([load, row, dir, '--ms', '50', '--n', '50', '--tag', row]);
    assert.match(stdout, /^[0-9.]+ [0-9]+\n$/);
    assert.ok(Number(stdout.split(' ')[0]) > 0);
  }
});

test('a row that the load does not know is refused', { skip: gcc }, () => {
  assert.throws(() => run([compiledLoad(), 'no-such-row', tmpdir()]), CommandFailed);
});

const TABLE: TableResult = {
  table: 'ext4',
  subjects: ['plain', 'overlayfs', 'mergerfs', 'palimpsest'],
  rows: [
    {
      id: 'statfs',
      title: 'round trip: statfs',
      unit: 'µs',
      failures: {},
      samples: { palimpsest: [10_000] },
    },
    {
      id: 'stat',
      title: 'stat',
      unit: 'µs',
      failures: {},
      samples: { overlayfs: [100], mergerfs: [600], palimpsest: [90, 300, 100] },
    },
    {
      id: 'chmod',
      title: 'chmod',
      unit: 'µs',
      failures: {},
      samples: { plain: [2000], mergerfs: [15_000], palimpsest: [18_000] },
    },
    {
      id: 'rename',
      title: 'rename',
      unit: 'µs',
      failures: { mergerfs: 'EXDEV' },
      samples: { plain: [3000], palimpsest: [13_000] },
    },
  ],
};

const RESULTS: Results = {
  date: '2000-01-01',
  quick: true,
  rounds: 3,
  tables: [TABLE],
  machine: { kernel: '6.0', cpus: 2, cpuModel: 'model', memoryGiB: 8, node: 'v26', versions: {} },
};

test('the report says which target is met and which is missed, and by how much', () => {
  const lines = markdown(RESULTS).split('\n');
  const line = (title: string) => lines.find((text) => text.startsWith(`| ${title} |`)) ?? '';
  assert.match(line('stat'), /\| met \|$/);
  // One round trip of 10 plus the host's 2 is 12: 18 is 1.5 of it, and 1.2 of mergerfs's time.
  assert.match(line('chmod'), /\*\*missed\*\* \(round trip 1\.50\/1\.3, mergerfs 1\.20\/0\.67\)/);
  assert.match(line('rename'), /\| – \|.*\| met \|$/);
  assert.match(lines.join('\n'), /rename, mergerfs: EXDEV/);
});

test('the plot has a bar for each figure', () => {
  const svg = plotTable(TABLE, RESULTS);
  const bars = svg.match(/height="10" fill/g) ?? [];
  assert.equal(bars.length, 9);
});

test('a subject whose mount fails gives its reason, not the figures of the bare mount point', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'palimpsest-bench-smoke-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const subject = new Subject('overlayfs', { base: dir, lowers: [join(dir, 'missing')] });
  for (const _attempt of [1, 2]) assert.throws(() => subject.ensureMounted(), CommandFailed);
});
