/**
 * The rows of the mounted benchmark: what each one is called, how it is run, and what it is held to.
 *
 * - A micro row is a subcommand of load.c and is given in the row's unit, per operation.
 * - A command row is a shell line run inside the mount and is given in milliseconds of wall time.
 * - `mount` says what the row needs before each run: the mount as it stands, the same upper mounted
 *   again (so that this mount's caches are empty and the host's are warm), or a fresh upper.
 * - `round trip` in a target is the cheapest request the same subject answered in the same run plus
 *   the plain directory's own time for the row: what a row costs that asks the daemon exactly once.
 *
 * Targets come from PERFORMANCE.md, as times: "three times faster" is at most 1/3, "0.8x the
 * throughput" is at most 1.25. Targets that differ by table are in `targetsOf`.
 */
export type Unit = 'ns' | 'µs' | 'ms';

export interface Target {
  against:
    | 'overlayfs'
    | 'best FUSE peer'
    | 'fuse-overlayfs'
    | 'unionfs-fuse'
    | 'mergerfs'
    | 'round trip';
  /** The largest allowed quotient of our time by theirs. */
  atMost: number;
}

export type RowClass = 'warm' | 'create' | 'one-trip' | 'data' | 'copy-up' | 'command' | 'other';

interface RowBase {
  id: string;
  title: string;
  rowClass: RowClass;
  unit: Unit;
  mount: 'as-is' | 'again' | 'fresh';
  /** Whether dirty pages of the runs before must be on the disk first. */
  settle?: boolean;
}

export interface MicroRow extends RowBase {
  kind: 'micro';
  /** Operations of a counted row: full run, quick run. */
  counts?: readonly [number, number];
}

export interface CommandRow extends RowBase {
  kind: 'command';
  setup?: string;
  run: string;
  cleanup?: string;
}

export type Row = MicroRow | CommandRow;

const NAMES = [2000, 300] as const;

function micro(
  id: string,
  title: string,
  rowClass: RowClass,
  more: Partial<MicroRow> = {},
): MicroRow {
  return { kind: 'micro', id, title, rowClass, unit: 'µs', mount: 'as-is', ...more };
}

function command(
  id: string,
  title: string,
  lines: Pick<CommandRow, 'setup' | 'run' | 'cleanup'>,
): CommandRow {
  return {
    kind: 'command',
    id,
    title,
    rowClass: 'command',
    unit: 'ms',
    mount: 'as-is',
    settle: true,
    ...lines,
  };
}

export const MICRO_ROWS: readonly MicroRow[] = [
  micro('statfs', 'round trip: statfs', 'other'),
  micro('getxattr', 'round trip: getxattr, missing', 'other'),
  micro('stat', 'stat, warm', 'warm'),
  micro('stat-later', 'stat, names last seen 1.5 s ago', 'warm'),
  micro('missing', 'stat of a missing name', 'warm'),
  micro('open-read', 'open + read 4k + close', 'warm'),
  micro('readdir-1000', 'readdir per entry, 1,000', 'warm', { unit: 'ns' }),
  micro('readdir-20', 'readdir per entry, 20', 'warm', { unit: 'ns' }),
  micro('walk-again', 'find + stat per entry, warm', 'warm'),
  micro('walk', 'find + stat per entry, cold', 'other', { mount: 'again' }),
  micro('create', 'create + write 4k + close', 'create', { counts: NAMES, settle: true }),
  micro('unlink', 'unlink', 'one-trip', { counts: NAMES, settle: true }),
  micro('rename', 'rename', 'one-trip', { counts: NAMES, settle: true }),
  micro('chmod', 'chmod', 'one-trip', { counts: NAMES, settle: true }),
  micro('mkdir', 'mkdir', 'one-trip', { counts: NAMES, settle: true }),
  micro('rmdir', 'rmdir', 'one-trip', { counts: NAMES, settle: true }),
  micro('unlink-lower', 'unlink of a lower file', 'other', {
    counts: [500, 200],
    mount: 'fresh',
    settle: true,
  }),
  micro('chmod-lower', 'chmod of a lower file', 'other', {
    counts: [500, 200],
    mount: 'fresh',
    settle: true,
  }),
  micro('write-lower', 'open + write 1 byte of a lower file', 'other', {
    counts: [500, 200],
    mount: 'fresh',
    settle: true,
  }),
  micro('random-read', 'random read 4k, cached', 'warm'),
  micro('random-write', 'random write 4k, cached', 'warm', { settle: true }),
  micro('seq-reread', 'sequential read again, per MiB', 'warm'),
  micro('seq-read', 'sequential read, cold mount, per MiB', 'data', { mount: 'again' }),
  micro('seq-write', 'sequential write, per MiB', 'data', { counts: [256, 64], settle: true }),
  micro('seq-write-sync', 'sequential write + fsync, per MiB', 'data', {
    counts: [256, 64],
    settle: true,
  }),
  micro('mmap-read', 'mmap load per page, cold mount', 'data', { unit: 'ns', mount: 'again' }),
  micro('mmap-store', 'mmap store per page', 'data', { unit: 'ns', settle: true }),
  micro('msync', 'msync of one page', 'data', { settle: true }),
  micro('msync-mib', 'msync, per MiB dirty', 'data', { settle: true }),
  micro('copy-up-sparse', 'copy-up: 1 byte into 1 GiB sparse, durable', 'copy-up', {
    unit: 'ms',
    mount: 'fresh',
    settle: true,
  }),
  micro('copy-up-dense', 'copy-up: 1 byte into 256 MiB dense, durable', 'copy-up', {
    unit: 'ms',
    mount: 'fresh',
    settle: true,
  }),
];

/** Shell lines run with the mount as the working directory; $SOURCES, $TAG and $JOBS are set. */
export const COMMAND_ROWS: readonly CommandRow[] = [
  command('tar', 'tar x of C headers', {
    run: 'mkdir tar-$TAG && tar xf "$SOURCES/include-2.tar" -C tar-$TAG',
    cleanup: 'rm -rf tar-$TAG',
  }),
  command('git-clone', 'git clone + git status', {
    run: 'git clone -q --no-hardlinks "$SOURCES/include-2.git" git-$TAG && git -C git-$TAG status --short',
    cleanup: 'rm -rf git-$TAG',
  }),
  command('git-status', 'git status again', {
    setup:
      'git clone -q --no-hardlinks "$SOURCES/include-2.git" git-$TAG && git -C git-$TAG status --short',
    run: 'git -C git-$TAG status --short',
    cleanup: 'rm -rf git-$TAG',
  }),
  command('cp', 'cp -a of C headers', { run: 'cp -a include cp-$TAG', cleanup: 'rm -rf cp-$TAG' }),
  command('rm', 'rm -rf of C headers', { setup: 'cp -a include cp-$TAG', run: 'rm -rf cp-$TAG' }),
  command('make', 'make -j2 of 200 C files', {
    run: 'make -s -j2 -C project O=build-$TAG',
    cleanup: 'rm -rf project/build-$TAG',
  }),
  command('npm-ci', 'npm ci of 461 packages', {
    setup:
      'mkdir npm-$TAG && cp "$SOURCES/npm/package.json" "$SOURCES/npm/package-lock.json" npm-$TAG',
    run: 'cd npm-$TAG && npm ci --offline --ignore-scripts --no-audit --no-fund --cache "$SOURCES/npm-cache"',
    cleanup: 'rm -rf npm-$TAG',
  }),
];

export const ROWS: readonly Row[] = [...MICRO_ROWS, ...COMMAND_ROWS];

const THREE_TIMES: Target = { against: 'best FUSE peer', atMost: 1 / 3 };
const NO_SLOWER: Target = { against: 'overlayfs', atMost: 1 };

export type Table = 'ext4' | 'tmpfs' | 'user';

/** What `subject` is held to on `row` in `table`; empty where PERFORMANCE.md sets nothing. */
export function targetsOf(row: Row, table: Table, subject: string): readonly Target[] {
  const passthrough = subject === 'palimpsest-passthrough';
  if (passthrough && row.rowClass !== 'data') return [];
  switch (row.rowClass) {
    case 'warm':
    case 'create':
      return [NO_SLOWER, THREE_TIMES];
    case 'one-trip':
      return [
        { against: 'round trip', atMost: 1.3 },
        { against: 'fuse-overlayfs', atMost: 1 / 3 },
        { against: 'unionfs-fuse', atMost: 1 / 1.5 },
        { against: 'mergerfs', atMost: 1 / 1.5 },
      ];
    case 'data':
      if (table !== 'ext4') return [{ against: 'best FUSE peer', atMost: 1 / 1.2 }];
      return [{ against: 'overlayfs', atMost: passthrough ? 1 / 0.95 : 1.25 }];
    case 'copy-up':
      return [NO_SLOWER];
    case 'command':
      return [
        { against: 'overlayfs', atMost: 1.3 },
        { against: 'best FUSE peer', atMost: 1 },
      ];
    case 'other':
      return [];
    default:
      row.rowClass satisfies never;
      return [];
  }
}
