/** The record of a run as Markdown: per table the medians, the ratios and the targets. */
import type {
  GrowthResult,
  MemoryResult,
  Results,
  RowResult,
  StartResult,
  TableResult,
  Verdict,
} from './results.ts';
import { bestPeer, median, medianOf, shown, spreadOf, verdictsOf } from './results.ts';
import { COMMAND_ROWS, ROWS } from './rows.ts';
import type { Table } from './rows.ts';
import { isPalimpsest, SUBJECTS } from './subjects.ts';
import type { SubjectId } from './subjects.ts';

const TABLE_TITLES: Record<Table, string> = {
  ext4: 'All branches on ext4, as root',
  tmpfs: 'All branches on tmpfs, as root',
  user: 'All branches on ext4, in a user namespace',
};

/** A figure whose quartiles lie further apart than this is marked. */
const SPREAD_NOTED = 0.15;

/** "5 rounds, of whole commands 3": as many as the samples really are. */
function roundsOf({ tables, rounds, quick }: Results): string {
  const counted = tables
    .flatMap((table) => table.rows)
    .filter((row) => COMMAND_ROWS.some(({ id }) => id === row.id))
    .flatMap((row) => Object.values(row.samples).map((samples) => samples.length));
  const commands = Math.min(...counted);
  const all = `${rounds} ${quick ? 'short ' : ''}rounds`;
  return counted.length === 0 || commands === rounds ? all : `${all}, of whole commands ${commands}`;
}

export function markdown(results: Results): string {
  const { machine } = results;
  const versions = Object.entries(machine.versions)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ');
  const lines = [
    '# Mounted: palimpsest and its peers',
    '',
    `Linux ${machine.kernel}, ${machine.cpus} x ${machine.cpuModel}, ${machine.memoryGiB} GiB, Node ${machine.node}, ` +
      `${versions}; ${results.date}, medians of ${roundsOf(results)}.`,
    '',
    'Only ratios count. `~` marks a figure whose quartiles lie more than 15 % from its median; `–` a row the subject',
    'cannot do. A target is given as the largest quotient of times: `overlayfs 1.04/1` reads "1.04 of overlayfs\'s',
    'time, allowed is 1"; close = missed by less than 5 %.',
    '',
  ];
  for (const table of results.tables) lines.push(...tableLines(table));
  if (results.start !== undefined) lines.push(...startLines(results.start));
  if (results.memory !== undefined) lines.push(...memoryLines(results.memory));
  if (results.growth !== undefined) lines.push(...growthLines(results.growth));
  return `${lines.join('\n')}\n`;
}

function tableLines(table: TableResult): string[] {
  const ours = table.subjects.filter(isPalimpsest);
  const heads = [
    'row',
    'unit',
    ...table.subjects,
    ...ours.flatMap(ratioHeads),
    ...ours.map((id) => `target: ${id}`),
  ];
  const lines = [
    `## ${TABLE_TITLES[table.table]}`,
    '',
    `| ${heads.join(' | ')} |`,
    `|${'---|'.repeat(heads.length)}`,
  ];
  const tally = new Map<string, number>();
  const failures: string[] = [];
  for (const result of table.rows) {
    const row = ROWS.find(({ id }) => id === result.id);
    if (row === undefined) continue;
    const verdicts = ours.map((id) => verdictsOf(table, result, row, id));
    for (const { outcome } of verdicts.flat()) tally.set(outcome, (tally.get(outcome) ?? 0) + 1);
    const cells = [
      result.title,
      result.unit,
      ...table.subjects.map((id) => figure(result, id)),
      ...ours.flatMap((id) => ratios(result, id)),
      ...verdicts.map(verdictCell),
    ];
    lines.push(`| ${cells.join(' | ')} |`);
    for (const [id, why] of Object.entries(result.failures))
      failures.push(`- ${result.title}, ${id}: ${why}`);
  }
  lines.push('');
  if (tally.size > 0) {
    lines.push(`Targets: ${[...tally].map(([outcome, n]) => `${n} ${outcome}`).join(', ')}.`, '');
  }
  lines.push(
    ...upperLines(table),
    ...(failures.length > 0 ? ['No figure:', '', ...failures, ''] : []),
  );
  return lines;
}

function ratioHeads(id: SubjectId): string[] {
  return [`${id} / overlayfs`, `${id} / best FUSE peer`];
}

function figure(row: RowResult, id: SubjectId): string {
  const spread = spreadOf(row, id);
  return `${spread !== undefined && spread > SPREAD_NOTED ? '~' : ''}${shown(medianOf(row, id), row.unit)}`;
}

function ratios(row: RowResult, id: SubjectId): string[] {
  const own = medianOf(row, id);
  return [medianOf(row, 'overlayfs'), bestPeer(row)].map((reference) =>
    own === undefined || reference === undefined ? '–' : (own / reference).toFixed(2),
  );
}

function verdictCell(verdicts: readonly Verdict[]): string {
  if (verdicts.length === 0) return '';
  const worst = (['missed', 'close', 'met'] as const).find((o) =>
    verdicts.some(({ outcome }) => outcome === o),
  );
  const open = verdicts
    .filter(({ outcome }) => outcome !== 'met')
    .map(
      ({ target, ratio }) =>
        `${target.against} ${ratio.toFixed(2)}/${target.atMost.toFixed(2).replace(/\.?0+$/, '')}`,
    );
  return worst === 'met' ? 'met' : `**${worst}** (${open.join(', ')})`;
}

function upperLines(table: TableResult): string[] {
  const lines: string[] = [];
  for (const row of table.rows) {
    if (row.upperBytes === undefined) continue;
    const sizes = Object.entries(row.upperBytes).map(
      ([id, bytes]) => `${id} ${(bytes / 2 ** 20).toFixed(2)} MiB`,
    );
    lines.push(`Upper after "${row.title}": ${sizes.join(', ')}.`, '');
  }
  return lines;
}

function startLines(start: StartResult): string[] {
  const bare = median(start.bareNodeMs);
  const lines = [
    '## Start: the mount command, until the mount is ready',
    '',
    `Bare node: ${bare.toFixed(0)} ms. Target: at most 150 ms over it.`,
    '',
    '| subject | ms | over bare node | |',
    '|---|---|---|---|',
  ];
  for (const [id, samples] of Object.entries(start.mountMs)) {
    const ms = median(samples);
    const ours = isPalimpsest(id as SubjectId);
    const over = ours ? `${(ms - bare).toFixed(0)} ms` : '';
    const outcome = ours ? (ms - bare <= 150 ? 'met' : '**missed**') : '';
    lines.push(`| ${id} | ${ms.toFixed(1)} | ${over} | ${outcome} |`);
  }
  return [...lines, ''];
}

function memoryLines(memory: readonly MemoryResult[]): string[] {
  const lines = [
    '## Memory of the daemon, after find over empty files',
    '',
    'Target: at most 400 bytes a known file, and given back after forget.',
    '',
    '| subject | files | before | known | bytes a file | after forget | |',
    '|---|---|---|---|---|---|---|',
  ];
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  for (const { subject, files, before, known, forgotten } of memory) {
    const each = (known - before) / files;
    const outcome = isPalimpsest(subject) ? (each <= 400 ? 'met' : '**missed**') : '';
    lines.push(
      `| ${subject} | ${files} | ${mib(before)} | ${mib(known)} | ${each.toFixed(0)} | ${mib(forgotten)} | ${outcome} |`,
    );
  }
  return [...lines, ''];
}

/** How often larger the last figure may be than the first: one size of noise on a flat line. */
const FLAT = 1.3;

function growthLines(growth: readonly GrowthResult[]): string[] {
  const lines = [
    '## Growth, µs per operation',
    '',
    'Target: flat over files; over branches at most logarithmic on a hit, linear on a miss.',
    '',
  ];
  for (const { axis, title, sizes, samples } of growth) {
    lines.push(
      `| ${title} | ${sizes.map((size) => `${size} ${axis}`).join(' | ')} | last / first | |`,
      `|${'---|'.repeat(sizes.length + 3)}`,
    );
    for (const id of SUBJECTS) {
      const figures = samples
        .map((at) => at[id])
        .map((at) => (at === undefined ? undefined : median(at)));
      const [first, last] = [figures[0], figures.at(-1)];
      if (first === undefined || last === undefined) continue;
      const outcome = isPalimpsest(id) ? growthOutcome(axis, title, last / first) : '';
      const cells = figures.map((ns) => shown(ns, 'µs')).join(' | ');
      lines.push(`| ${id} | ${cells} | ${(last / first).toFixed(2)} | ${outcome} |`);
    }
    lines.push('');
  }
  return lines;
}

/** From 1 to 64 branches: a logarithm doubles six times, a line has 65 branches to ask instead of 2. */
function growthOutcome(axis: GrowthResult['axis'], title: string, ratio: number): string {
  const allowed = axis === 'files' ? FLAT : title.includes('hit') ? 6 : 33;
  return ratio <= allowed ? 'met' : '**missed**';
}
