/**
 * `npm test`: everything that must hold, in one command, on a fresh Debian 12.
 *
 * Order: what the machine lacks (installed by apt-get when root, else named), types, lint, then every
 * `*.test.ts` under node:test, tidy's among them. Stops at the first step that fails, except that
 * lint does not hide the tests. The last lines are node:test's own, unless something else failed.
 *
 * Arguments are patterns of test files to run instead of all: `npm test -- src/cli`.
 */
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { accessSync, constants, existsSync, globSync, readFileSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const BIN = join(ROOT, 'node_modules/.bin');

/** Programs that tests run, and the Debian package each comes from. */
const PROGRAMS: readonly (readonly [program: string, debian: string])[] = [
  ['unshare', 'util-linux'],
  ['findmnt', 'util-linux'],
  ['mount', 'mount'],
  ['gcc', 'gcc'],
  ['make', 'make'],
  ['git', 'git'],
  ['getfattr', 'attr'],
  ['setfacl', 'acl'],
  ['setpriv', 'util-linux'],
  ['patch', 'patch'],
  ['debootstrap', 'debootstrap'],
  ['dpkg-source', 'dpkg-dev'],
];
/** Headers without which gcc builds no test program. */
const HEADERS: readonly (readonly [header: string, debian: string])[] = [
  ['/usr/include/stdlib.h', 'libc6-dev'],
];

/** Two files at once: two cores is what the smallest machine has, and mounts wait for each other's I/O. */
const TEST_FILES_AT_ONCE = 2;
/** No single test file may hold the run longer than this. */
const TEST_FILE_MS = 12 * 60_000;

function onPath(program: string): boolean {
  const directories = (process.env.PATH ?? '').split(delimiter).concat('/usr/sbin', '/sbin');
  return directories.some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
      return false;
    }
  });
}

function missingPackages(): string[] {
  const missing = new Set<string>();
  for (const [program, debian] of PROGRAMS) if (!onPath(program)) missing.add(debian);
  for (const [header, debian] of HEADERS) if (!existsSync(header)) missing.add(debian);
  return [...missing].toSorted();
}

/** What is still missing after trying. */
function installMissing(): string[] {
  const missing = missingPackages();
  if (missing.length === 0 || process.geteuid?.() !== 0 || !onPath('apt-get')) return missing;
  console.log(`installing from Debian: ${missing.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const apt = ['-y', '-qq', '--no-install-recommends', 'install', ...missing];
  if (spawnSync('apt-get', apt, { stdio: 'inherit', env }).status !== 0) {
    spawnSync('apt-get', ['-qq', 'update'], { stdio: 'inherit', env });
    spawnSync('apt-get', apt, { stdio: 'inherit', env });
  }
  return missingPackages();
}

/** In the environment of everything that this run starts. */
const RUN_VARIABLE = 'PALIMPSEST_TEST_RUN';

/** Processes of this run that are still there, daemons above all: a test left them behind. */
function leftovers(run: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`${RUN_VARIABLE}=${run}`))
        continue;
      found.push(`${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')}`);
    } catch (error) {
      // Gone meanwhile, or not ours to look at.
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    }
  }
  return found;
}

function step(name: string, program: string, args: string[]): boolean {
  const started = performance.now();
  const result = spawnSync(program, args, { cwd: ROOT, stdio: 'inherit' });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const ok = result.status === 0;
  console.log(`${ok ? 'ok' : 'FAILED'}: ${name} (${seconds} s)`);
  return ok;
}

function testFiles(patterns: readonly string[]): string[] {
  const globs = ['src/**/*.test.ts', 'test/**/*.test.ts', 'tools/**/*.test.ts'];
  const all = globs.flatMap((glob) => globSync(glob, { cwd: ROOT })).toSorted();
  if (patterns.length === 0) return all;
  return all.filter((file) => patterns.some((pattern) => file.includes(pattern)));
}

function runTests(files: readonly string[]): boolean {
  const run = randomUUID();
  const args = ['--test', `--test-concurrency=${TEST_FILES_AT_ONCE}`];
  args.push(`--test-timeout=${TEST_FILE_MS}`, '--test-reporter=spec', ...files);
  const env = { ...process.env, [RUN_VARIABLE]: run };
  const result = spawnSync(process.execPath, args, { cwd: ROOT, stdio: 'inherit', env });
  const left = leftovers(run);
  for (const line of left) console.log(`FAILED: left running: ${line}`);
  return result.status === 0 && left.length === 0;
}

function main(patterns: readonly string[]): number {
  const missing = installMissing();
  if (missing.length > 0) {
    console.error(`The tests need these Debian packages: ${missing.join(' ')}`);
    console.error(`Install them: sudo apt-get install ${missing.join(' ')}`);
    return 1;
  }
  if (!step('types', join(BIN, 'tsc'), ['-p', '.'])) return 1;
  const clean = step('lint', join(BIN, 'oxlint'), ['--deny-warnings']);
  const files = testFiles(patterns);
  if (files.length === 0) {
    console.error(`no test file matches ${patterns.join(' ')}`);
    return 1;
  }
  const passed = runTests(files);
  if (!clean) console.log('FAILED: lint (see above)');
  return clean && passed ? 0 : 1;
}

process.exitCode = main(process.argv.slice(2));
