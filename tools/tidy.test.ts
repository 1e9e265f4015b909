import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkLinks, checkSource, formatFinding, importsOf, tidy } from './tidy.ts';

const messages = (file: string, source: string): string[] =>
  checkSource(file, source).map((finding) => finding.message);

test('the project is tidy', () => {
  assert.deepEqual(tidy(join(import.meta.dirname, '..')).map(formatFinding), []);
});

test('imports point down', () => {
  assert.deepEqual(messages('src/fuse/a.ts', "import { x } from '../vfs/y.ts';"), []);
  assert.match(messages('src/vfs/a.ts', "import { x } from '../fuse/y.ts';")[0] ?? '', /must not/);
  const sideways = messages('src/fs/host/a.ts', "import { x } from '../union/y.ts';");
  assert.match(sideways[0] ?? '', /fs\/host must not import fs\/union/);
  assert.match(messages('src/fs/union/a.ts', "import '../../sys/y.ts';")[0] ?? '', /host calls/);
});

test('what Node cannot strip, and what this project does without', () => {
  assert.equal(messages('src/lib/a.ts', 'export enum Colour {').length, 1);
  assert.equal(messages('src/lib/a.ts', 'namespace A {').length, 1);
  assert.equal(messages('src/lib/a.ts', 'constructor(private readonly x: number) {').length, 1);
  assert.deepEqual(messages('src/lib/a.ts', 'constructor(xs: readonly X[]) {'), []);
  assert.equal(messages('src/lib/a.ts', 'try { x(); } catch {}').length, 1);
  assert.equal(messages('src/lib/a.ts', 'export default class X {').length, 1);
  assert.deepEqual(messages('src/lib/a.ts', '// enum Colour is gone\nconst s = "enum X {";'), []);
});

test("the host's clock, randomness, files and FFI stay in their rooms", () => {
  assert.equal(messages('src/vfs/a.ts', 'const t = Date.now();').length, 1);
  assert.equal(messages('src/fs/union/a.ts', 'const r = Math.random();').length, 1);
  assert.equal(messages('src/fuse/a.ts', "import { readSync } from 'node:fs';").length, 1);
  assert.equal(messages('src/cli/a.ts', "import koffi from 'koffi';").length, 1);
  assert.deepEqual(messages('src/cli/a.ts', "import { readSync } from 'node:fs';"), []);
});

test('every way to name a module is seen', () => {
  const source = [
    "import { a } from './a.ts';",
    "export { b } from './b.ts';",
    "await import('./c.ts');",
    "new URL('./d.ts', import.meta.url);",
  ].join('\n');
  const specifiers = importsOf(source).map((found) => found.specifier);
  assert.deepEqual(specifiers, ['./a.ts', './b.ts', './c.ts', './d.ts']);
});

test('dead links are found, live and foreign ones are not', () => {
  const text = '[a](ARCHITECTURE.md) [b](gone.md#x) [c](https://example.org) [d](#here)';
  const found = checkLinks('docs/A.md', text, (path) => path === 'docs/ARCHITECTURE.md');
  assert.deepEqual(
    found.map((finding) => finding.message),
    ['dead link gone.md'],
  );
});
