/**
 * Benchmarks: node bench/main.ts mounted [--quick] [--rounds N] [--tables A,B] [--subjects A,B] [--rows A,B]
 *
 * Needs root, /dev/fuse and gcc; peers that are not installed are left out.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchMounted, ROW_NAMES } from './mounted.ts';
import { profile } from './profile.ts';
import { markdown } from './report.ts';
import type { Results } from './results.ts';
import { COMMAND_ROWS, MICRO_ROWS } from './rows.ts';
import type { Table } from './rows.ts';
import { SUBJECTS } from './subjects.ts';

const TABLES: readonly Table[] = ['ext4', 'tmpfs', 'user'];
const MICRO = [...MICRO_ROWS.map(({ id }) => id), 'start'];
const QUICK_ROUNDS = 3;
const FULL_ROUNDS = 5;
const QUICK_FILES = 100_000;
const FULL_FILES = 1_000_000;

const USAGE = `Usage: node bench/main.ts mounted [options]
       node bench/main.ts report        prints the latest results again
       node bench/main.ts profile ROW,ROW [--passthrough]
                                        requests and host calls of palimpsest

  --quick            short rounds, ${QUICK_ROUNDS} of them, a tree of ${QUICK_FILES} files for the memory row
  --rounds N         default ${FULL_ROUNDS}
  --tables A,B       of ${TABLES.join(', ')}
  --subjects A,B     of ${SUBJECTS.join(', ')}
  --rows A,B         of ${ROW_NAMES.join(', ')};
                     "micro" and "commands" stand for all of their kind
  --files N          files of the memory row
  --no-save          print only; a run over a part of tables, subjects or rows prints only anyway,
  --save             unless told to save`;

/** The members of a comma-separated list, each one known. */
function chosen<T extends string>(
  list: string | undefined,
  known: readonly T[],
  option: string,
): T[] {
  if (list === undefined) return [...known];
  const names = list.split(',');
  for (const name of names) {
    if (!known.includes(name as T)) usage(`--${option}: unknown "${name}"`);
  }
  return known.filter((name) => names.includes(name));
}

function usage(complaint?: string): never {
  if (complaint !== undefined) console.error(`bench: ${complaint}`);
  console.error(USAGE);
  process.exit(2);
}

function chosenRows(list: string | undefined): string[] {
  const expanded = list?.split(',').flatMap((name) => {
    if (name === 'micro') return MICRO;
    return name === 'commands' ? COMMAND_ROWS.map(({ id }) => id) : [name];
  });
  return chosen(expanded?.join(','), ROW_NAMES, 'rows');
}

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      tables: { type: 'string' },
      subjects: { type: 'string' },
      rows: { type: 'string' },
      files: { type: 'string' },
      save: { type: 'boolean' },
      passthrough: { type: 'boolean', default: false },
    },
    allowNegative: true,
  });
  if (positionals[0] === 'report') return report();
  if (positionals[0] === 'profile') {
    return profile((positionals[1] ?? usage('profile which rows?')).split(','), values.passthrough);
  }
  if (positionals[0] !== 'mounted' || positionals.length > 1) usage();
  const { quick } = values;
  const rounds = Number(values.rounds ?? (quick ? QUICK_ROUNDS : FULL_ROUNDS));
  const files = Number(values.files ?? (quick ? QUICK_FILES : FULL_FILES));
  if (!(rounds >= 1 && files >= 1)) usage('--rounds and --files take a number of at least 1');
  const part =
    values.tables !== undefined || values.subjects !== undefined || values.rows !== undefined;
  benchMounted({
    quick,
    rounds,
    files,
    tables: chosen(values.tables, TABLES, 'tables'),
    subjects: chosen(values.subjects, SUBJECTS, 'subjects'),
    rows: chosenRows(values.rows),
    // A whole command takes minutes over all subjects: on one table, unless asked for.
    commandTables: values.rows === undefined ? ['ext4'] : TABLES,
    save: values.save ?? !part,
  });
}

function report(): void {
  const file = join(import.meta.dirname, 'results', 'mounted-latest.json');
  if (!existsSync(file)) usage('no results yet');
  console.log(markdown(JSON.parse(readFileSync(file, 'utf8')) as Results));
}

main();
