/**
 * For the tests of this room: scratch trees on the host, unions of them by the kernel's overlayfs as
 * the maker of uppers, and whole trees as text to compare.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { S_IFLNK, S_IFMT, S_IFREG, isDir } from '../abi/mode.ts';
import { openHostFs } from '../fs/host/host-fs.ts';
import { runSync } from '../kernel/task.ts';
import type { Task } from '../kernel/task.ts';
import type { FileSystem, Inode } from '../vfs/inode-operations.ts';
import { readWhole, xattrsOf } from './compare.ts';
import { diffLayer } from './diff.ts';
import { renderNameStatus } from './render.ts';
import type { DiffOptions } from './types.ts';
import { STAGING_PREFIX } from './whiteout-format.ts';

/** Of 100 ms each. */
const BUSY_TRIES = 200;

export function sh(script: string, cwd: string): string {
  return execFileSync('bash', ['-euc', script], {
    cwd,
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** Why no union can be mounted by the kernel here, or false. */
export function noOverlay(): string | false {
  if (process.getuid!() !== 0) return 'needs root';
  const scratch = new Scratch();
  try {
    scratch.mount();
    return false;
  } catch (error) {
    return `the kernel cannot mount an overlay here: ${(error as Error).message}`;
  } finally {
    scratch.remove();
  }
}

/** base/, upper/, work/, merged/ under a directory of its own. */
export class Scratch {
  readonly dir: string;
  mounted = false;
  readonly #opened: FileSystem[] = [];

  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), 'palimpsest-layers-'));
    for (const name of ['base', 'upper', 'work', 'merged']) mkdirSync(join(this.dir, name));
  }

  base(script: string): void {
    sh(script, join(this.dir, 'base'));
  }

  /** As the kernel does it. */
  mount(options = 'redirect_dir=on,index=on,metacopy=on', lower = 'base'): void {
    const dirs = `lowerdir=${lower},upperdir=upper,workdir=work`;
    const command = `mount -t overlay overlay -o ${dirs},${options} merged`;
    // A mount namespace that was made meanwhile keeps the last mount busy until it ends.
    sh(
      `for i in $(seq ${BUSY_TRIES}); do ${command} 2> /dev/null && exit; sleep 0.1; done; ${command} 2>&1`,
      this.dir,
    );
    this.mounted = true;
  }

  umount(): void {
    if (this.mounted) sh('umount merged', this.dir);
    this.mounted = false;
  }

  /** Runs the script in the mounted union; gives what the union then showed. */
  change(script: string, options?: string): string {
    this.mount(options);
    try {
      sh(script, join(this.dir, 'merged'));
      return this.tree('merged');
    } finally {
      this.umount();
    }
  }

  open(name: string, readOnly = false): Inode {
    const fs = openHostFs({ path: join(this.dir, name), readOnly, isolate: false });
    this.#opened.push(fs);
    return fs.root;
  }

  /** Leaves nothing open, and copies nothing up, as opening for writing would. */
  tree(name: string): string {
    const { root } = openHostFs({ path: join(this.dir, name), readOnly: true, isolate: false });
    try {
      return treeOf(root);
    } finally {
      runSync(root.fs.unmount());
    }
  }

  set(): { upper: Inode; lowers: Inode[]; work: Inode } {
    const fs = openHostFs({ path: join(this.dir, 'upper'), readOnly: false });
    this.#opened.push(fs);
    const work = fs.openRoot(join(this.dir, 'work'));
    return { upper: fs.root, lowers: [this.open('base')], work };
  }

  diff(options: Partial<DiffOptions> = {}): string {
    return renderNameStatus(runSync(diffLayer({ ...this.set(), ...options })));
  }

  remove(): void {
    for (const fs of this.#opened.splice(0)) runSync(fs.unmount());
    this.umount();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** One line an object: everything that can be seen of it but numbers, ctime and atime. */
export function treeOf(root: Inode): string {
  const lines: string[] = [];
  const namesOf = new Map<number, string[]>();
  runSync(describe(root, '', lines, namesOf));
  // Names that are one inode, by what is seen: the kernel's union may count names that are gone.
  for (const names of namesOf.values())
    if (names.length > 1) lines.push(`links ${names.join(' ')}`);
  return lines.sort().join('\n');
}

function* describe(
  dir: Inode,
  path: string,
  lines: string[],
  links: Map<number, string[]>,
): Task<void> {
  const entries = (yield* dir.readdir()).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name } of entries) {
    if (path === '' && name.startsWith(STAGING_PREFIX)) continue;
    const inode = (yield* dir.lookup(name))!;
    const child = path === '' ? name : `${path}/${name}`;
    lines.push(`${child} ${yield* describeOne(inode, child, links)}`);
    if (isDir(inode.type)) yield* describe(inode, child, lines, links);
  }
}

function* describeOne(inode: Inode, path: string, links: Map<number, string[]>): Task<string> {
  const stat = yield* inode.getattr();
  const parts = [
    stat.mode.toString(8),
    `${stat.uid}:${stat.gid}`,
    `${stat.mtimeSec}.${stat.mtimeNsec}`,
  ];
  const type = stat.mode & S_IFMT;
  if (type === S_IFREG) {
    const bytes = yield* readWhole(inode, stat.size);
    parts.push(String(stat.size), createHash('sha256').update(bytes).digest('hex').slice(0, 12));
  } else if (type === S_IFLNK) parts.push(`-> ${yield* inode.readlink()}`);
  else if (!isDir(type)) parts.push(`${stat.rdevMajor},${stat.rdevMinor}`);
  if (!isDir(type) && stat.nlink > 1) {
    links.set(stat.ino, [...(links.get(stat.ino) ?? []), path]);
  }
  for (const [name, value] of yield* xattrsOf(inode))
    parts.push(`${name}=${Buffer.from(value).toString('hex')}`);
  return parts.join(' ');
}
