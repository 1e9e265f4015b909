/**
 * Big inputs of tests (a Debian base system, a source package, npm's packages), fetched once by the
 * ordinary clients and kept in PALIMPSEST_TEST_CACHE or /var/tmp/palimpsest-test-cache.
 *
 * An input is made under a name of its own and renamed when it is complete: a run that was stopped
 * half way leaves nothing that the next one would believe.
 */
import fs from 'node:fs';
import path from 'node:path';
import { run, runOk } from './world.ts';

export const CACHE = process.env['PALIMPSEST_TEST_CACHE'] ?? '/var/tmp/palimpsest-test-cache';

/** What cannot be had here (no network, no tool), and why: the test is to be skipped. */
export class Unavailable extends Error {}

export async function cached(name: string, make: (dir: string) => Promise<void>): Promise<string> {
  const target = path.join(CACHE, name);
  if (fs.existsSync(target)) return target;
  fs.mkdirSync(CACHE, { recursive: true });
  const temporary = fs.mkdtempSync(path.join(CACHE, `.${name}-`));
  try {
    await make(temporary);
    fs.chmodSync(temporary, 0o755);
    fs.renameSync(temporary, target);
  } catch (e) {
    fs.rmSync(temporary, { recursive: true, force: true });
    throw new Unavailable(`${name}: ${e instanceof Error ? e.message.slice(0, 500) : String(e)}`);
  }
  return target;
}

export async function has(program: string): Promise<boolean> {
  return (await run('sh', ['-c', 'command -v "$1"', 'sh', program])).status === 0;
}

export async function need(...programs: string[]): Promise<void> {
  for (const program of programs) {
    if (!(await has(program))) throw new Unavailable(`no ${program} on this machine`);
  }
}

/** `[mirror, release]` of the machine's own Debian main archive. */
async function debianArchive(): Promise<[string, string]> {
  await need('apt-get');
  const { stdout } = await runOk('apt-get', ['indextargets', '--format', '$(CREATED_BY)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)']);
  const lines = stdout.trim().split('\n').map((line) => line.split('|'));
  const main = lines.find(([by, , codename, component]) => by === 'Packages' && component === 'main' && !codename!.includes('-'));
  if (main === undefined) throw new Unavailable('no Debian main archive is configured');
  return [main[1]!, main[2]!];
}

/** An unpacked Debian source package. */
export function debianSource(name: string): Promise<string> {
  return cached(`source-${name}`, async (dir) => {
    await need('dpkg-source');
    const [mirror, release] = await debianArchive();
    const state = path.join(dir, 'apt');
    fs.mkdirSync(path.join(state, 'lists/partial'), { recursive: true });
    fs.writeFileSync(path.join(state, 'sources.list'), `deb-src ${mirror} ${release} main\n`);
    const options = [
      `Dir::Etc::sourcelist=${state}/sources.list`,
      'Dir::Etc::sourceparts=-',
      `Dir::State::lists=${state}/lists`,
      `Dir::Cache::srcpkgcache=`,
      `Dir::Cache::pkgcache=`,
      'APT::Sandbox::User=root',
    ].flatMap((o) => ['-o', o]);
    await runOk('apt-get', [...options, 'update'], { limitMs: 180_000 });
    const script = 'cd "$1" && shift && apt-get "$@"';
    await runOk('sh', ['-c', script, 'sh', dir, ...options, 'source', '--only-source', name], { limitMs: 180_000 });
    fs.rmSync(state, { recursive: true });
    const unpacked = fs.readdirSync(dir).find((n) => fs.statSync(path.join(dir, n)).isDirectory())!;
    fs.renameSync(path.join(dir, unpacked), path.join(dir, 'source'));
  });
}

/** A minimal Debian in `root`, and packages for it with all they depend on in `debs`. */
export function debianBase(packages: readonly string[]): Promise<string> {
  return cached('debian-base', async (dir) => {
    await need('debootstrap', 'dpkg');
    const [mirror, release] = await debianArchive();
    const root = path.join(dir, 'root');
    await runOk('debootstrap', ['--variant=minbase', release, root, mirror], { limitMs: 600_000 });
    const archives = path.join(root, 'var/cache/apt/archives');
    for (const deb of fs.readdirSync(archives).filter((n) => n.endsWith('.deb'))) {
      fs.rmSync(path.join(archives, deb));
    }
    fs.copyFileSync('/etc/resolv.conf', path.join(root, 'etc/resolv.conf'));
    const get = ['apt-get', '-y', '-o', 'APT::Sandbox::User=root', '--no-install-recommends', '--download-only', 'install'];
    await runOk('chroot', [root, ...get, ...packages], { limitMs: 300_000 });
    fs.mkdirSync(path.join(dir, 'debs'));
    for (const deb of fs.readdirSync(archives).filter((n) => n.endsWith('.deb'))) {
      fs.copyFileSync(path.join(archives, deb), path.join(dir, 'debs', deb));
      fs.rmSync(path.join(archives, deb));
    }
  });
}
