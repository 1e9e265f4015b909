/**
 * What a run of the mounted benchmark leaves: the record, and the arithmetic on it. Times are kept in
 * nanoseconds per operation (commands: per run) and turned into a row's unit only when shown.
 */
import type { Machine } from './host.ts';
import { targetsOf } from './rows.ts';
import type { Row, Table, Target, Unit } from './rows.ts';
import { FUSE_PEERS, isPalimpsest } from './subjects.ts';
import type { SubjectId } from './subjects.ts';

export interface RowResult {
  id: string;
  title: string;
  unit: Unit;
  /** Nanoseconds, one figure a round, in the order of the rounds. */
  samples: Partial<Record<SubjectId, number[]>>;
  /** Why a subject has no figure. */
  failures: Partial<Record<SubjectId, string>>;
  /** Bytes the upper took for a copy-up row. */
  upperBytes?: Partial<Record<SubjectId, number>>;
}

export interface TableResult {
  table: Table;
  subjects: SubjectId[];
  rows: RowResult[];
}

export interface MemoryResult {
  subject: SubjectId;
  files: number;
  /** Resident bytes of the daemon: before the walk, after it, after the kernel forgot the inodes. */
  before: number;
  known: number;
  forgotten: number;
}

export interface GrowthResult {
  axis: 'files' | 'branches';
  title: string;
  /** Parallel to `samples`: nanoseconds per operation at each size. */
  sizes: number[];
  samples: Partial<Record<SubjectId, number[]>>[];
}

export interface StartResult {
  bareNodeMs: number[];
  mountMs: Partial<Record<SubjectId, number[]>>;
}

export interface Results {
  date: string;
  quick: boolean;
  rounds: number;
  machine: Machine;
  tables: TableResult[];
  start?: StartResult;
  memory?: MemoryResult[];
  growth?: GrowthResult[];
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  const high = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

export function medianOf(row: RowResult, subject: SubjectId): number | undefined {
  const samples = row.samples[subject];
  return samples === undefined || samples.length === 0 ? undefined : median(samples);
}

/** Half the distance between the quartiles, over the median: how far to trust the figure. */
export function spreadOf(row: RowResult, subject: SubjectId): number | undefined {
  const samples = row.samples[subject]?.toSorted((a, b) => a - b);
  if (samples === undefined || samples.length < 4) return undefined;
  const low = samples[Math.floor((samples.length - 1) / 4)] ?? 0;
  const high = samples[Math.ceil(((samples.length - 1) * 3) / 4)] ?? 0;
  return (high - low) / 2 / median(samples);
}

export function bestPeer(row: RowResult): number | undefined {
  const figures = FUSE_PEERS.map((peer) => medianOf(row, peer)).filter((x) => x !== undefined);
  return figures.length === 0 ? undefined : Math.min(...figures);
}

/** The cheapest request `subject` answers, plus the plain directory's own time for the row. */
function roundTrip(table: TableResult, row: RowResult, subject: SubjectId): number | undefined {
  const trips = table.rows
    .filter(({ id }) => id === 'statfs' || id === 'getxattr')
    .map((trip) => medianOf(trip, subject))
    .filter((x) => x !== undefined);
  const plain = medianOf(row, 'plain');
  return trips.length === 0 || plain === undefined ? undefined : Math.min(...trips) + plain;
}

export interface Verdict {
  target: Target;
  /** Our time over theirs. */
  ratio: number;
  /** Close: missed by no more than the noise of a shared machine. */
  outcome: 'met' | 'close' | 'missed';
}

const NOISE = 1.05;

export function verdictsOf(
  table: TableResult,
  result: RowResult,
  row: Row,
  subject: SubjectId,
): Verdict[] {
  const own = medianOf(result, subject);
  if (!isPalimpsest(subject) || own === undefined) return [];
  const verdicts: Verdict[] = [];
  for (const target of targetsOf(row, table.table, subject)) {
    const reference = referenceOf(target, table, result, subject);
    if (reference === undefined) continue;
    const ratio = own / reference;
    const outcome =
      ratio <= target.atMost ? 'met' : ratio <= target.atMost * NOISE ? 'close' : 'missed';
    verdicts.push({ target, ratio, outcome });
  }
  return verdicts;
}

function referenceOf(
  target: Target,
  table: TableResult,
  row: RowResult,
  subject: SubjectId,
): number | undefined {
  switch (target.against) {
    case 'best FUSE peer':
      return bestPeer(row);
    case 'round trip':
      return roundTrip(table, row, subject);
    default:
      return medianOf(row, target.against);
  }
}

const NS_PER_UNIT: Record<Unit, number> = { ns: 1, µs: 1e3, ms: 1e6 };

export function shown(ns: number | undefined, unit: Unit): string {
  if (ns === undefined) return '–';
  const value = ns / NS_PER_UNIT[unit];
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
