/**
 * One table of a run as an SVG bar plot, without a library: a group of bars a row, a bar a subject,
 * length = time over kernel overlayfs's on a log scale, so that rows of nanoseconds and of seconds
 * share one axis. Left of the line at 1 is faster than overlayfs. Each bar carries its own time.
 *
 * Where overlayfs has no figure for a row, the row is scaled by its fastest subject.
 */
import type { Results, RowResult, TableResult } from './results.ts';
import { medianOf, shown } from './results.ts';
import type { SubjectId } from './subjects.ts';

const COLOURS: Record<SubjectId, string> = {
  plain: '#9aa0a6',
  overlayfs: '#3b3f45',
  'fuse-overlayfs': '#e0a030',
  'unionfs-fuse': '#c0603a',
  mergerfs: '#8a5fb0',
  palimpsest: '#1769aa',
  'palimpsest-passthrough': '#5fb3d9',
};

const WIDTH = 1000;
const LEFT = 300;
const RIGHT = 90;
const TOP = 92;
const BAR = 11;
const GROUP_GAP = 9;
const TEXT = '#1b1e22';

const TITLES = {
  ext4: 'branches on ext4',
  tmpfs: 'branches on tmpfs',
  user: 'in a user namespace, branches on ext4',
} as const;

export function plotTable(table: TableResult, results: Results): string {
  const rows = table.rows.filter((row) =>
    table.subjects.some((id) => medianOf(row, id) !== undefined),
  );
  const axis = new LogAxis(rows.flatMap((row) => table.subjects.map((id) => relative(row, id))));
  const groupHeight = table.subjects.length * BAR + GROUP_GAP;
  const height = TOP + rows.length * groupHeight + 40;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ` +
      'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">',
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(14, 26, `Time over kernel overlayfs, ${TITLES[table.table]}: shorter is better`, {
      size: 17,
      weight: 'bold',
    }),
    text(
      14,
      46,
      `Linux ${results.machine.kernel}, ${results.machine.cpus} x ${results.machine.cpuModel}, ` +
        `Node ${results.machine.node}, medians of ${results.rounds} rounds, ${results.date}`,
      { size: 11, fill: '#5a6068' },
    ),
    ...legend(table.subjects),
    ...grid(axis, TOP - 6, height - 34),
  ];
  for (const [i, row] of rows.entries())
    parts.push(...group(row, table.subjects, axis, TOP + i * groupHeight));
  parts.push('</svg>');
  return `${parts.join('\n')}\n`;
}

function relative(row: RowResult, id: SubjectId): number | undefined {
  const own = medianOf(row, id);
  const reference = medianOf(row, 'overlayfs') ?? fastest(row);
  return own === undefined || reference === undefined ? undefined : own / reference;
}

function fastest(row: RowResult): number | undefined {
  const ids = Object.keys(row.samples) as SubjectId[];
  const figures = ids.map((id) => medianOf(row, id)).filter((x) => x !== undefined);
  return figures.length === 0 ? undefined : Math.min(...figures);
}

/** From a power of ten at or under the least value to one at or over the greatest. */
class LogAxis {
  readonly low: number;
  readonly high: number;

  constructor(values: readonly (number | undefined)[]) {
    const logs = values.filter((x) => x !== undefined).map((x) => Math.log10(x));
    this.low = Math.floor(Math.min(-0.3, ...logs) * 2) / 2;
    this.high = Math.ceil(Math.max(0.3, ...logs) * 2) / 2;
  }

  x(value: number): number {
    const share = (Math.log10(value) - this.low) / (this.high - this.low);
    return LEFT + Math.min(1, Math.max(0, share)) * (WIDTH - LEFT - RIGHT);
  }

  ticks(): number[] {
    const ticks: number[] = [];
    for (let power = Math.floor(this.low); power <= this.high; power++) {
      for (const digit of [1, 2, 5]) {
        const log = power + Math.log10(digit);
        if (log >= this.low - 1e-9 && log <= this.high + 1e-9)
          ticks.push(Number((digit * 10 ** power).toPrecision(1)));
      }
    }
    return ticks;
  }
}

function legend(subjects: readonly SubjectId[]): string[] {
  let x = 14;
  return subjects.flatMap((id) => {
    const at = x;
    x += 28 + id.length * 7.2;
    return [
      `<rect x="${at}" y="58" width="12" height="12" fill="${COLOURS[id]}"/>`,
      text(at + 17, 68, id, { size: 12 }),
    ];
  });
}

function grid(axis: LogAxis, top: number, bottom: number): string[] {
  return axis.ticks().flatMap((tick) => {
    const x = axis.x(tick).toFixed(1);
    const line = tick === 1 ? 'stroke="#3b3f45" stroke-width="1.5"' : 'stroke="#e3e6ea"';
    return [
      `<line x1="${x}" x2="${x}" y1="${top}" y2="${bottom}" ${line}/>`,
      text(Number(x), bottom + 16, `${tick}x`, { size: 11, anchor: 'middle', fill: '#5a6068' }),
    ];
  });
}

function group(
  row: RowResult,
  subjects: readonly SubjectId[],
  axis: LogAxis,
  top: number,
): string[] {
  const middle = top + (subjects.length * BAR) / 2;
  const parts = [text(LEFT - 10, middle + 4, row.title, { size: 12, anchor: 'end' })];
  for (const [i, id] of subjects.entries()) {
    const y = top + i * BAR;
    const value = relative(row, id);
    if (value === undefined) {
      parts.push(text(LEFT + 4, y + 9, '–', { size: 9, fill: COLOURS[id] }));
      continue;
    }
    const end = Math.max(axis.x(value), LEFT + 1);
    parts.push(
      `<rect x="${LEFT}" y="${y}" width="${(end - LEFT).toFixed(1)}" height="${BAR - 1}" fill="${COLOURS[id]}"/>`,
    );
    parts.push(
      text(end + 4, y + 9, `${shown(medianOf(row, id), row.unit)} ${row.unit}`, {
        size: 9,
        fill: '#3b3f45',
      }),
    );
  }
  return parts;
}

interface TextStyle {
  size: number;
  weight?: string;
  anchor?: string;
  fill?: string;
}

function text(x: number, y: number, content: string, style: TextStyle): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return (
    `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${style.size}" fill="${style.fill ?? TEXT}" ` +
    `paint-order="stroke" stroke="#ffffff" stroke-width="2" text-anchor="${style.anchor ?? 'start'}" font-weight="${style.weight ?? 'normal'}">${escaped}</text>`
  );
}
