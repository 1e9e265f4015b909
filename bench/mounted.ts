/**
 * The mounted benchmark: every subject over the same lower tree, all mounted at once, and each row run
 * round after round over the subjects in turn (A B C, B C A, ...), so that a noisy minute hits all of
 * them alike. Only ratios between the subjects of one run mean anything.
 *
 * M1. A row that a subject cannot do is recorded with its reason; it never ends the run.
 * M2. Whatever ends the run, every mount is taken down and every directory of ours removed.
 *
 * Not here: what the figures are held to (rows.ts), the arithmetic (results.ts).
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { measureGrowth } from './growth.ts';
import { CommandFailed, machineFacts, residentBytes, run } from './host.ts';
import { plotTable } from './plot.ts';
import { markdown } from './report.ts';
import type {
  GrowthResult,
  MemoryResult,
  Results,
  RowResult,
  StartResult,
  TableResult,
} from './results.ts';
import { COMMAND_ROWS, MICRO_ROWS, ROWS } from './rows.ts';
import type { CommandRow, MicroRow, Row, Table } from './rows.ts';
import { cacheDirectory, commandSources, compiledLoad, lowerTree, manyFiles } from './sources.ts';
import { absenceOf, isPalimpsest, Namespace, Subject } from './subjects.ts';
import type { Place, SubjectId } from './subjects.ts';

export interface MountedOptions {
  quick: boolean;
  rounds: number;
  tables: Table[];
  subjects: SubjectId[];
  /** Row ids; "start", "memory" and "growth" name the measurements that are no row of a table. */
  rows: string[];
  /** Tables that get the whole-command rows. */
  commandTables: readonly Table[];
  /** Files of the memory measurement. */
  files: number;
  save: boolean;
}

export const ROW_NAMES: readonly string[] = [
  ...ROWS.map((row) => row.id),
  'start',
  'memory',
  'growth',
];

/** A whole command takes seconds, and its figures vary less: this many rounds at most. */
const COMMAND_ROUNDS = 3;
const QUICK_COMMAND_ROUNDS = 1;
const GROWTH_ROUNDS = 5;

/** What must be undone however the run ends, last first. */
const cleanups: (() => void)[] = [];

function cleanUp(): void {
  for (let undo = cleanups.pop(); undo !== undefined; undo = cleanups.pop()) {
    try {
      undo();
    } catch (error) {
      console.error(`cleaning up: ${String(error)}`); // The other mounts still want taking down.
    }
  }
}

export function benchMounted(options: MountedOptions): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      cleanUp();
      process.exit(1);
    });
  }
  try {
    const results = measure(options, (soFar) => {
      if (options.save) save(soFar);
    });
    console.log(markdown(results));
  } finally {
    cleanUp();
  }
}

/** `note` is told after each row, so that a run that ends early keeps what it has. */
function measure(options: MountedOptions, note: (soFar: Results) => void): Results {
  const load = compiledLoad();
  const lower = lowerTree(load);
  commandSources(lower, options.rows);
  const results: Results = {
    date: new Date().toISOString().slice(0, 10),
    quick: options.quick,
    rounds: options.rounds,
    machine: machineFacts(),
    tables: [],
  };
  if (options.rows.includes('start')) results.start = measureStart(options, lower);
  if (options.rows.includes('memory')) results.memory = measureMemory(options, load);
  const rows = ROWS.filter((row) => options.rows.includes(row.id));
  if (rows.length > 0) {
    for (const table of options.tables) {
      const wanted = rows.filter(
        (row) => row.kind === 'micro' || options.commandTables.includes(table),
      );
      measureTable(table, wanted, { options, load, lower }, (soFar) => {
        if (!results.tables.includes(soFar)) results.tables.push(soFar);
        note(results);
      });
    }
  }
  if (options.rows.includes('growth')) results.growth = growthOf(options, load);
  note(results);
  return results;
}

function growthOf(options: MountedOptions, load: string): GrowthResult[] {
  const mark = cleanups.length;
  return measureGrowth({
    ...options,
    load,
    rounds: Math.min(options.rounds, GROWTH_ROUNDS),
    makePlace: (lowers) => ({ ...makePlace('ext4', ''), lowers }),
    track: (subject) => void cleanups.push(() => subject.unmount()),
    release: () => {
      while (cleanups.length > mark) cleanups.pop()?.();
    },
  });
}

interface Context {
  options: MountedOptions;
  load: string;
  lower: string;
}

/** Room for every upper, the whole-command trees, and a copy of the lower tree. */
const IMAGE_BYTES = '16G';

/** A filesystem of the run's own, with the lower tree on it as everything else. */
function makePlace(table: Table, lower: string): Place {
  const base = mkdtempSync(join(cacheDirectory(), `${table}-`));
  cleanups.push(() => rmSync(base, { recursive: true, force: true }));
  if (table === 'tmpfs') run(['mount', '-t', 'tmpfs', 'bench', base]);
  else mountImage(base);
  cleanups.push(() => void run(['umount', base]));
  const lowers = [join(base, 'lower')];
  if (lower === '') lowers.length = 0;
  else run(['cp', '-a', '--sparse=auto', lower, join(base, 'lower')]);
  if (table !== 'user') return { base, lowers };
  const namespace = new Namespace();
  cleanups.push(() => namespace.close());
  return { base, lowers, namespace };
}

/**
 * A new ext4 with a journal. The machine's own may have none: then it skips inodes freed in the last
 * minutes, one by one, when it looks for a free one, and after some rounds of making and removing names
 * that is most of a create, for everybody.
 */
function mountImage(at: string): void {
  const image = `${at}.img`;
  cleanups.push(() => rmSync(image, { force: true }));
  run(['truncate', '-s', IMAGE_BYTES, image]);
  run(['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image]);
  run(['mount', '-o', 'loop', image, at]);
  run(['sh', '-c', 'losetup --direct-io=on "$(findmnt -n -o SOURCE "$1")"', 'sh', at]);
}

function mountSubjects(table: Table, ids: readonly SubjectId[], place: Place): Subject[] {
  const subjects: Subject[] = [];
  for (const id of ids) {
    const absence = absenceOf(id, table);
    if (absence !== undefined) {
      console.error(`${table}: ${id} left out: ${absence}`);
      continue;
    }
    const subject = new Subject(id, place);
    cleanups.push(() => subject.unmount());
    try {
      subject.mount();
      subjects.push(subject);
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      console.error(`${table}: ${id} left out: ${error.message}`);
    }
  }
  return subjects;
}

function measureTable(
  table: Table,
  rows: readonly Row[],
  context: Context,
  note: (soFar: TableResult) => void,
): void {
  const mark = cleanups.length;
  const subjects = mountSubjects(table, context.options.subjects, makePlace(table, context.lower));
  const result: TableResult = { table, subjects: subjects.map(({ id }) => id), rows: [] };
  for (const row of rows) {
    const measured = measureRow(row, subjects, context);
    result.rows.push(measured);
    console.error(progress(table, measured));
    note(result);
  }
  while (cleanups.length > mark) cleanups.pop()?.();
}

function progress(table: Table, row: RowResult): string {
  const figures = Object.entries(row.samples).map(([id, samples]) => {
    const sorted = samples.toSorted((a, b) => a - b);
    return `${id} ${(sorted[sorted.length >> 1] ?? Number.NaN).toFixed(0)}`;
  });
  const failures = Object.entries(row.failures).map(([id, why]) => `${id}: ${why}`);
  return `${table} ${row.id} [ns] ${[...figures, ...failures].join(', ')}`;
}

function measureRow(row: Row, subjects: readonly Subject[], context: Context): RowResult {
  const result: RowResult = {
    id: row.id,
    title: row.title,
    unit: row.unit,
    samples: {},
    failures: {},
  };
  const { rounds, quick } = context.options;
  const most = row.kind === 'command' ? (quick ? QUICK_COMMAND_ROUNDS : COMMAND_ROUNDS) : rounds;
  for (let round = 0; round < Math.min(rounds, most); round++) {
    for (let i = 0; i < subjects.length; i++) {
      const subject = subjects[(i + round) % subjects.length];
      if (subject === undefined || result.failures[subject.id] !== undefined) continue;
      if (row.mount === 'fresh' && !subject.copiesUp) continue;
      try {
        (result.samples[subject.id] ??= []).push(
          measureOnce(row, subject, context, `${row.id}-${round}`),
        );
        if (row.rowClass === 'copy-up') noteUpperBytes(row, subject, result);
      } catch (error) {
        if (!(error instanceof CommandFailed)) throw error;
        giveUp(subject, result, error);
      }
    }
  }
  return result;
}

/** A subject that failed a row has no figure for it, and a new mount for the next. */
function giveUp(subject: Subject, result: RowResult, error: CommandFailed): void {
  result.failures[subject.id] = error.message
    .replaceAll(subject.mountPoint, '…')
    .replaceAll(cacheDirectory(), '…');
  delete result.samples[subject.id];
  if (error.timedOut) subject.abort();
  try {
    subject.remount('fresh');
  } catch (again) {
    if (!(again instanceof CommandFailed)) throw again;
    console.error(`${subject.id} does not mount any more: ${again.message}`);
  }
}

function noteUpperBytes(row: Row, subject: Subject, result: RowResult): void {
  const file = join(subject.upper, row.id === 'copy-up-sparse' ? 'sparse' : 'dense');
  if (!existsSync(file)) return;
  (result.upperBytes ??= {})[subject.id] = statSync(file).blocks * 512;
}

/** One figure, in nanoseconds. */
function measureOnce(row: Row, subject: Subject, context: Context, tag: string): number {
  if (row.mount === 'as-is') subject.ensureMounted();
  else subject.remount(row.mount);
  if (row.id === 'seq-read' || row.id === 'seq-reread' || row.id === 'mmap-read')
    warmHost(context.lower);
  if (row.settle === true) run(['sync']);
  return row.kind === 'micro'
    ? runMicro(row, subject, context, tag)
    : runCommand(row, subject, tag);
}

/** The big lower file is in the host's cache, so that the mount is measured and not the disk. */
function warmHost(lower: string): void {
  run(['sh', '-c', 'cat "$1" > /dev/null', 'sh', join(lower, 'dense')]);
}

function runMicro(row: MicroRow, subject: Subject, context: Context, tag: string): number {
  const { quick } = context.options;
  const argv = [
    context.load,
    row.id,
    subject.mountPoint,
    '--ms',
    quick ? '60' : '300',
    '--tag',
    tag,
  ];
  if (row.counts !== undefined) argv.push('--n', String(row.counts[quick ? 1 : 0]));
  const figure = Number(subject.run(argv).stdout.split(' ')[0]);
  if (!(figure > 0)) throw new CommandFailed(`load ${row.id}: no figure`, false);
  return figure;
}

function runCommand(row: CommandRow, subject: Subject, tag: string): number {
  const options = { env: { SOURCES: cacheDirectory(), TAG: tag } };
  // The shell changes directory itself: from outside a namespace the mount cannot be entered.
  const shell = (line: string) =>
    subject.run(['sh', '-c', `cd "$1" && ${line}`, 'sh', subject.mountPoint], options);
  if (row.setup !== undefined) {
    shell(row.setup);
    run(['sync']);
  }
  const { ms } = shell(row.run);
  if (row.cleanup !== undefined) shell(row.cleanup);
  return ms * 1e6;
}

/** From the mount command's start to its end: each comes back when the mount is ready. */
function measureStart(options: MountedOptions, lower: string): StartResult {
  const mark = cleanups.length;
  const place = makePlace('ext4', lower);
  const ids = options.subjects.filter(
    (id) => id !== 'plain' && absenceOf(id, 'ext4') === undefined,
  );
  const subjects = ids.map((id) => new Subject(id, place));
  for (const subject of subjects) cleanups.push(() => subject.unmount());
  const result: StartResult = { bareNodeMs: [], mountMs: {} };
  for (let round = 0; round < options.rounds; round++) {
    result.bareNodeMs.push(run([process.execPath, '-e', '0']).ms);
    for (const subject of subjects) {
      try {
        (result.mountMs[subject.id] ??= []).push(subject.mount());
        subject.unmount();
      } catch (error) {
        if (!(error instanceof CommandFailed)) throw error;
        console.error(`start: ${subject.id}: ${error.message}`);
      }
    }
  }
  while (cleanups.length > mark) cleanups.pop()?.();
  return result;
}

function measureMemory(options: MountedOptions, load: string): MemoryResult[] {
  const lower = manyFiles(load, options.files);
  const results: MemoryResult[] = [];
  for (const id of options.subjects) {
    if (id === 'plain' || id === 'overlayfs' || absenceOf(id, 'ext4') !== undefined) continue;
    const mark = cleanups.length;
    const subject = new Subject(id, { ...makePlace('ext4', ''), lowers: [lower] });
    cleanups.push(() => subject.unmount());
    try {
      subject.mount();
      results.push(memoryOf(subject, options.files));
      console.error(JSON.stringify(results.at(-1)));
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      console.error(`memory: ${id}: ${error.message}`);
    }
    while (cleanups.length > mark) cleanups.pop()?.();
  }
  return results;
}

function memoryOf(subject: Subject, files: number): MemoryResult {
  const resident = () => subject.daemons.reduce((sum, pid) => sum + (residentBytes(pid) ?? 0), 0);
  const before = resident();
  // -newer asks for the attributes of every name; nothing is printed.
  subject.run(['find', subject.mountPoint, '-newermt', '2100-01-01'], { timeoutMs: 900_000 });
  const known = resident();
  run(['sh', '-c', 'echo 2 > /proc/sys/vm/drop_caches']);
  subject.run(['stat', subject.mountPoint]); // Queued behind the FORGETs.
  run(['sleep', isPalimpsest(subject.id) ? '3' : '1']); // A collector gives back when it is idle.
  return { subject: subject.id, files, before, known, forgotten: resident() };
}

function save(results: Results): void {
  const dir = join(import.meta.dirname, 'results');
  mkdirSync(dir, { recursive: true });
  const json = `${JSON.stringify(results, (_key, value: unknown) => rounded(value), 1)}\n`;
  writeFileSync(join(dir, `mounted-${results.date}.json`), json);
  writeFileSync(join(dir, 'mounted-latest.json'), json);
  writeFileSync(join(dir, 'mounted.md'), markdown(results));
  for (const table of results.tables) {
    for (const [name, rows] of [
      ['micro', MICRO_ROWS],
      ['commands', COMMAND_ROWS],
    ] as const) {
      const chosen = table.rows.filter((row) => rows.some(({ id }) => id === row.id));
      const file = join(dir, `mounted-${table.table}-${name}.svg`);
      if (chosen.length > 0) writeFileSync(file, plotTable({ ...table, rows: chosen }, results));
    }
  }
}

function rounded(value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value * 100) / 100 : value;
}
