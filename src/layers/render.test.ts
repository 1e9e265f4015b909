import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeUtf8,
  quotePath,
  renderDocker,
  renderJson,
  renderNameOnly,
  renderNameStatus,
  renderSummary,
} from './render.ts';
import type { Change } from './types.ts';

const change = (op: Change['op'], path: string, more: Partial<Change> = {}): Change => ({
  op,
  path,
  type: 'file',
  mode: 0o644,
  size: 3,
  uid: 0,
  gid: 0,
  ...more,
});

const CHANGES: Change[] = [
  change('M', 'a/b', { oldMode: 0o600, oldSize: 2, oldUid: 0, oldGid: 0, contentChanged: true }),
  change('A', 'new', { type: 'dir', mode: 0o755, size: 0 }),
  change('R', 'x/y', { from: 'x/z', oldMode: 0o644, oldSize: 3, oldUid: 0, oldGid: 0 }),
  change('D', 'caf\xe9'),
];

test('names with and without NUL', () => {
  assert.equal(renderNameStatus(CHANGES), 'M\ta/b\nA\tnew/\nR\tx/z\tx/y\nD\t"caf\\351"\n');
  assert.equal(
    renderNameStatus(CHANGES, { nul: true }),
    'M\0a/b\0A\0new\0R\0x/z\0x/y\0D\0caf\xe9\0',
  );
  assert.equal(renderNameOnly(CHANGES), 'a/b\nnew/\nx/y\n"caf\\351"\n');
});

test('as docker says it, with parents', () => {
  assert.equal(
    renderDocker(CHANGES),
    'C /a\nC /a/b\nD /"caf\\351"\nA /new\nC /x\nA /x/y\nD /x/z\n',
  );
});

test('JSON lines, base64 where a path is not UTF-8', () => {
  const records = renderJson(CHANGES)
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(records[0], {
    path: 'a/b',
    op: 'M',
    type: 'file',
    mode: '0644',
    size: 3,
    uid: 0,
    gid: 0,
    oldMode: '0600',
    oldSize: 2,
    oldUid: 0,
    oldGid: 0,
    contentChanged: true,
  });
  assert.equal(records[2].from, 'x/z');
  assert.equal(Buffer.from(records[3].pathBase64, 'base64').toString('latin1'), 'caf\xe9');
  assert.equal('path' in records[3], false);
  const green = Buffer.from('grün').toString('latin1');
  assert.equal(
    JSON.parse(Buffer.from(renderJson([change('A', green)]), 'latin1').toString()).path,
    'grün',
  );
});

test('the summary', () => {
  assert.equal(renderSummary(CHANGES), '1 added, 1 modified, 1 deleted, 1 renamed\n');
  assert.equal(renderSummary([]), 'no changes\n');
});

test("quoting is git's", () => {
  assert.equal(quotePath('plain name'), 'plain name');
  assert.equal(quotePath('a"b\\c\n\x01'), '"a\\"b\\\\c\\n\\001"');
  assert.equal(decodeUtf8('\xff'), undefined);
});
