/**
 * What the benchmark needs before it can start: the compiled load, the lower tree, and the sources of
 * the whole-command rows. Made once in a cache directory and used again by the next run; every part is
 * made under another name and renamed, so that a part that exists is whole.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './host.ts';

/** Headers that every Debian system with a compiler has: the kernel's, libc's and small libraries'. */
const HEADERS = '/usr/include';
/** Packages of tens of megabytes, which one machine has and another has not. */
const HEADERS_EXCLUDED = ['node', 'llvm-14', 'llvm-c-14', 'c++', 'unicode', 'valgrind'];

const DENSE_MIB = 256;
const POOL_FILES = 500;
const C_FILES = 200;

/** Pinned, so that two runs install one tree. */
const NPM_DEPENDENCIES = { webpack: '5.90.0', jest: '29.7.0', eslint: '8.56.0', express: '4.18.2' };

export function cacheDirectory(): string {
  const dir = join(tmpdir(), `palimpsest-bench-${process.getuid?.() ?? 0}`);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return dir;
}

/** Makes `name` in the cache unless it is there. */
function cached(name: string, make: (path: string) => void): string {
  const path = join(cacheDirectory(), name);
  if (existsSync(path)) return path;
  const fresh = `${path}.${process.pid}`;
  rmSync(fresh, { recursive: true, force: true });
  make(fresh);
  renameSync(fresh, path);
  return path;
}

export function compiledLoad(): string {
  const source = join(import.meta.dirname, 'load.c');
  const digest = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 12);
  return cached(`load-${digest}`, (path) => {
    run(['gcc', '-O2', '-Wall', '-Wextra', '-Werror', '-o', path, source]);
  });
}

/** The lower tree. Nobody writes to it: every subject has it as a read-only branch. */
export function lowerTree(load: string): string {
  return cached('lower-2', (path) => makeLowerTree(load, path, true));
}

export function makeLowerTree(load: string, path: string, big: boolean): void {
  for (const dir of ['d1000', 'd20', 'pool']) mkdirSync(join(path, dir), { recursive: true });
  run([load, 'mk-small', join(path, 'd1000'), '--tag', 'f', '--n', '1000']);
  run([load, 'mk-small', join(path, 'd20'), '--tag', 'f', '--n', '20']);
  if (!big) return;
  for (const tag of ['u', 'c', 'w']) {
    run([load, 'mk-small', join(path, 'pool'), '--tag', tag, '--n', String(POOL_FILES)]);
  }
  run([load, 'mk-dense', path, '--n', String(DENSE_MIB)]);
  run([load, 'mk-sparse', path]);
  const excludes = HEADERS_EXCLUDED.map((name) => `--exclude=./${name}`).join(' ');
  run([
    'sh',
    '-c',
    `mkdir "$1/include" && tar c -C ${HEADERS} ${excludes} . | tar x -C "$1/include"`,
    'sh',
    path,
  ]);
  makeCProject(join(path, 'project'));
}

function makeCProject(dir: string): void {
  mkdirSync(dir);
  const names = Array.from({ length: C_FILES }, (_, i) => `unit${i}`);
  for (const [i, name] of names.entries()) {
    writeFileSync(join(dir, `${name}.h`), `int ${name}(int x);\n`);
    const next = names[(i + 1) % names.length];
    const body =
      `#include <stdio.h>\n#include "${name}.h"\n#include "${next}.h"\n` +
      `int ${name}(int x) { if (x > 0) printf("%d\\n", x); return x > 9 ? ${next}(x - 1) : x; }\n`;
    writeFileSync(join(dir, `${name}.c`), body);
  }
  writeFileSync(join(dir, 'main.c'), '#include "unit0.h"\nint main(void) { return unit0(0); }\n');
  const objects = ['main', ...names].map((name) => `$(O)/${name}.o`).join(' ');
  writeFileSync(
    join(dir, 'Makefile'),
    `$(O)/program: ${objects}\n\tgcc -o $@ $^\n` +
      `$(O)/%.o: %.c | $(O)\n\tgcc -O1 -MMD -c -o $@ $<\n$(O):\n\tmkdir -p $@\n`,
  );
}

/** A tree of `files` empty files, a thousand to a directory. */
export function manyFiles(load: string, files: number): string {
  return cached(`many-${files}`, (path) => {
    mkdirSync(path);
    run([load, 'mk-many', path, '--n', String(files)], { timeoutMs: 900_000 });
  });
}

/** Sources of the whole-command rows, as the directory that $SOURCES names. */
export function commandSources(lower: string, rows: readonly string[]): string {
  if (rows.some((id) => id === 'tar')) {
    cached(
      'include-2.tar',
      (path) => void run(['tar', 'cf', path, '-C', join(lower, 'include'), '.']),
    );
  }
  if (rows.some((id) => id.startsWith('git')))
    cached('include-2.git', (path) => makeRepository(lower, path));
  if (rows.includes('npm-ci')) cached('npm', makeNpmProject);
  return cacheDirectory();
}

function makeRepository(lower: string, path: string): void {
  const git = `git --git-dir="$1" --work-tree="$2" -c user.name=bench -c user.email=bench@localhost`;
  run(
    [
      'sh',
      '-c',
      `git init -q --bare "$1" && ${git} add -A . && ${git} commit -q -m tree`,
      'sh',
      path,
      join(lower, 'include'),
    ],
    { cwd: join(lower, 'include') },
  );
}

function makeNpmProject(path: string): void {
  mkdirSync(path);
  const manifest = {
    name: 'tree',
    version: '1.0.0',
    private: true,
    dependencies: NPM_DEPENDENCIES,
  };
  writeFileSync(join(path, 'package.json'), JSON.stringify(manifest));
  const quiet = [
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--cache',
    join(cacheDirectory(), 'npm-cache'),
  ];
  const options = { cwd: path, timeoutMs: 600_000 };
  run(
    ['npm', 'install', '--package-lock-only', '--omit-lockfile-registry-resolved', ...quiet],
    options,
  );
  run(['npm', 'ci', ...quiet], options); // Fills the package cache.
  rmSync(join(path, 'node_modules'), { recursive: true });
}
