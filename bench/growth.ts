/**
 * Growth: what an operation costs as the tree gets larger and as the branches get more. A line a
 * subject, a column a size; the figure to look at is the last column over the first.
 *
 * - files: a lower tree of N empty files, a thousand to a directory: a directory's names asked for in a
 *   new mount; then, with the tree wholly walked, asked for again, and a thousand files made;
 * - branches: one upper and N lower branches; a name that only the last has, and a name that none has.
 *
 * Judged: on files, flat; on branches, a hit at most logarithmic, a miss at most linear.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { CommandFailed, run } from './host.ts';
import type { GrowthResult } from './results.ts';
import { cacheDirectory, manyFiles } from './sources.ts';
import { absenceOf, Subject } from './subjects.ts';
import type { Place, SubjectId } from './subjects.ts';

const BRANCHES = [1, 4, 16, 64] as const;
const OPERATIONS = 1000;

export interface GrowthOptions {
  subjects: readonly SubjectId[];
  rounds: number;
  /** The largest tree. */
  files: number;
  load: string;
  /** Makes a directory for mounts, taken away by the caller's `release`. */
  makePlace: (lowers: readonly string[]) => Place;
  track: (subject: Subject) => void;
  release: () => void;
}

export function measureGrowth(options: GrowthOptions): GrowthResult[] {
  return [...filesGrowth(options), ...branchesGrowth(options)];
}

type Samples = Record<string, Partial<Record<SubjectId, number[]>>>;

function filesGrowth(options: GrowthOptions): GrowthResult[] {
  const sizes = [1000, 100_000, 1_000_000].filter((size) => size <= options.files);
  const results = new Map<string, GrowthResult>();
  for (const size of sizes) {
    const lower = manyFiles(options.load, size);
    const samples = overSubjects(options, [lower], (subject, round) => {
      subject.remount('fresh');
      const coldStat = micro(subject, options, 'cold-stat', [
        '--ms',
        String(size),
        '--tag',
        `s${round}`,
      ]);
      subject.run(['find', subject.mountPoint, '-newermt', '2100-01-01'], { timeoutMs: 900_000 });
      run(['sync']);
      const create = micro(subject, options, 'create', ['--tag', `c${round}`]);
      const stat = micro(subject, options, 'cold-stat', [
        '--ms',
        String(size),
        '--tag',
        `w${round}`,
      ]);
      return {
        'stat, cold': coldStat,
        'create + write 4k, all names known': create,
        'stat, all names known': stat,
      };
    });
    collect(results, { axis: 'files', size, samples });
  }
  return [...results.values()];
}

function branchesGrowth(options: GrowthOptions): GrowthResult[] {
  const results = new Map<string, GrowthResult>();
  const last = manyFiles(options.load, 1000);
  for (const size of BRANCHES) {
    const lowers = [...Array.from({ length: size - 1 }, (_, i) => emptyBranch(i)), last];
    const samples = overSubjects(options, lowers, (subject, round) => {
      subject.remount('fresh');
      const hit = micro(subject, options, 'cold-stat', []);
      const miss = micro(subject, options, 'cold-missing', ['--tag', `m${round}`]);
      return { 'stat, cold, hit in the last branch': hit, 'stat, cold, in no branch': miss };
    });
    collect(results, { axis: 'branches', size, samples });
  }
  return [...results.values()];
}

/** A branch that has the directory, so that it must be asked for the name. */
function emptyBranch(number: number): string {
  const path = join(cacheDirectory(), 'branches', `b${number}`);
  mkdirSync(join(path, 'n0'), { recursive: true });
  return path;
}

function micro(
  subject: Subject,
  options: GrowthOptions,
  row: string,
  args: readonly string[],
): number {
  const argv = [options.load, row, subject.mountPoint, '--n', String(OPERATIONS), ...args];
  return Number(subject.run(argv).stdout.split(' ')[0]);
}

function overSubjects(
  options: GrowthOptions,
  lowers: readonly string[],
  once: (subject: Subject, round: number) => Record<string, number>,
): Samples {
  const place = options.makePlace(lowers);
  const ids = options.subjects.filter(
    (id) => id !== 'plain' && absenceOf(id, 'ext4') === undefined,
  );
  const subjects = ids.map((id) => new Subject(id, place));
  const samples: Samples = {};
  const failed = new Set<SubjectId>();
  for (const subject of subjects) options.track(subject);
  for (let round = 0; round < options.rounds; round++) {
    for (const subject of subjects) {
      if (failed.has(subject.id)) continue;
      try {
        for (const [title, ns] of Object.entries(once(subject, round))) {
          const row = (samples[title] ??= {});
          (row[subject.id] ??= []).push(ns);
        }
        subject.unmount();
      } catch (error) {
        if (!(error instanceof CommandFailed)) throw error;
        failed.add(subject.id);
        console.error(`growth: ${subject.id} with ${lowers.length} branches: ${error.message}`);
      }
    }
  }
  options.release();
  return samples;
}

function collect(
  results: Map<string, GrowthResult>,
  part: { axis: GrowthResult['axis']; size: number; samples: Samples },
): void {
  for (const [title, samples] of Object.entries(part.samples)) {
    const result = results.get(title) ?? { axis: part.axis, title, sizes: [], samples: [] };
    results.set(title, result);
    result.sizes.push(part.size);
    result.samples.push(samples);
    console.error(`growth ${title} ${part.axis} ${part.size} ${JSON.stringify(samples)}`);
  }
}
