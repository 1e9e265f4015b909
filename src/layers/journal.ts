/**
 * The intent log of a commit: what will be done to the base, and how far it has come.
 *
 * A line is a record: 16 hex digits of the sha256 of the JSON, a blank, the JSON. First the header,
 * then steps and prunes, then the seal, which counts the lines; after it marks, one as each phase ends.
 *
 * J1. Nothing of the base has changed before the seal is on stable storage, and all that will be put
 *     there is staged by then: a sealed journal can be rolled forward, an unsealed one is dropped.
 * J2. A mark is written after what it speaks of is on stable storage. A torn last mark did not happen.
 * J3. Phases: detach, attach, attributes, committed (from here on there is no way back), pruned. Or,
 *     where one cannot be ended: undo, undone.
 */
import { createHash } from 'node:crypto';
import { Errno } from '../abi/errno.ts';
import type { Stat } from '../abi/stat.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode } from '../vfs/inode-operations.ts';
import { readWhole } from './compare.ts';
import { LayerError } from './types.ts';

export const JOURNAL_FORMAT = 'palimpsest-commit 1';

export interface Header {
  kind: 'header';
  format: typeof JOURNAL_FORMAT;
  id: string;
  owner: string;
  /** Which upper this commit is of. */
  upper: UpperIdentity;
}

export interface UpperIdentity {
  ino: number;
  btimeSec: number;
  btimeNsec: number;
}

/** Seconds and nanoseconds. */
export type Stamp = readonly [number, number];

export interface Attributes {
  /** Absent: not touched, only the times. */
  uid?: number;
  gid?: number;
  /** Absent for symlinks too. */
  mode?: number;
  /** Values in base64. */
  xattrs?: Record<string, string>;
  atime: Stamp;
  mtime: Stamp;
}

/** Paths in the base; `staged` and `parked` are paths in the staging directory. */
export type Step =
  /** Away from the base: to `old/` what is gone, to `keep/` what will be attached elsewhere. */
  | { kind: 'detach'; path: string; parked: string }
  | { kind: 'attach'; path: string; staged: string }
  /** Put in place of what is there, which then is under the staged name. `ino`: of the new one. */
  | { kind: 'exchange'; path: string; staged: string; ino: number }
  /**
   * `to` absent: only the undoing matters. `oldPath`: where it is when all is undone; absent, with
   * `from`, for what then does not exist.
   */
  | { kind: 'attributes'; path: string; oldPath?: string; to?: Attributes; from?: Attributes };

/** What to take out of the upper once the base has it. Paths in the upper. */
export type Prune =
  | { kind: 'prune-all' }
  | { kind: 'prune'; path: string }
  /** Where the directory goes on beneath; null: under its own name. */
  | { kind: 'prune-redirect'; path: string; redirect: string | null }
  /** The recorded state of the base is that of now. */
  | { kind: 'prune-baseline'; path: string }
  /** It is a copy of nothing any more: see origins.ts. */
  | { kind: 'prune-origin'; path: string }
  /** Entries of the index that are this inode. */
  | { kind: 'prune-index'; ino: number };

export type Phase =
  | 'detached'
  | 'attached'
  | 'committed'
  | 'pruned'
  | 'undo'
  | 'undo-attached'
  | 'undone';

type JournalRecord =
  | Header
  | Step
  | Prune
  | { kind: 'seal'; lines: number }
  | { kind: 'mark'; phase: Phase };

export interface Journal {
  header: Header;
  steps: Step[];
  prunes: Prune[];
  phases: Set<Phase>;
  /** Where the next mark goes. */
  end: number;
}

function lineOf(record: JournalRecord): string {
  const json = JSON.stringify(record);
  return `${digest(json)} ${json}\n`;
}

const digest = (json: string): string =>
  createHash('sha256').update(json).digest('hex').slice(0, 16);

/** Writes all and the seal, and has it on stable storage when it returns. */
export function* writeJournal(
  file: Inode,
  content: { header: Header; steps: readonly Step[]; prunes: readonly Prune[] },
): Task<Journal> {
  const records = [content.header, ...content.steps, ...content.prunes];
  const lines = records.map(lineOf);
  const body = Buffer.from(lines.join(''), 'utf8');
  yield* writeAll(file, body, 0);
  const seal = Buffer.from(lineOf({ kind: 'seal', lines: lines.length }), 'utf8');
  // The body first: a seal on storage without what it seals would be a lie.
  yield* file.fsync(true);
  yield* writeAll(file, seal, body.length);
  yield* file.fsync(false);
  return {
    header: content.header,
    steps: [...content.steps],
    prunes: [...content.prunes],
    phases: new Set(),
    end: body.length + seal.length,
  };
}

/** Undefined: it was never sealed. Errors: EIO where it was, and is damaged. */
export function* readJournal(file: Inode): Task<Journal | undefined> {
  const { size } = yield* file.getattr();
  const bytes = Buffer.from(yield* readWhole(file, size));
  const journal: Partial<Journal> & Pick<Journal, 'steps' | 'prunes' | 'phases'> = {
    steps: [],
    prunes: [],
    phases: new Set(),
  };
  let sealed = false;
  let count = 0;
  let at = 0;
  for (;;) {
    const newline = bytes.indexOf(0x0a, at);
    const record = newline < 0 ? undefined : parseLine(bytes.toString('utf8', at, newline));
    if (record === undefined) break;
    at = newline + 1;
    if (record.kind === 'seal') sealed = record.lines === count && journal.header !== undefined;
    else sortIn(journal, record);
    count++;
  }
  if (sealed) return { ...(journal as Journal), end: at };
  // Without a seal nothing was begun; but a seal beyond damage means that it may have been.
  const rest = bytes.toString('utf8', at).split('\n').map(parseLine);
  if (rest.some((record) => record?.kind === 'seal' || record?.kind === 'mark')) {
    throw new LayerError(Errno.EIO, 'the journal of an unfinished commit is damaged');
  }
  return undefined;
}

function parseLine(line: string): JournalRecord | undefined {
  const json = line.slice(17);
  if (line[16] !== ' ' || line.slice(0, 16) !== digest(json)) return undefined;
  return JSON.parse(json) as JournalRecord;
}

function sortIn(
  journal: Partial<Journal> & Pick<Journal, 'steps' | 'prunes' | 'phases'>,
  record: Exclude<JournalRecord, { kind: 'seal' }>,
): void {
  switch (record.kind) {
    case 'header':
      if (record.format !== JOURNAL_FORMAT) {
        throw new LayerError(
          Errno.EIO,
          `an unfinished commit is of another format: ${String(record.format)}`,
        );
      }
      journal.header = record;
      return;
    case 'mark':
      journal.phases.add(record.phase);
      return;
    case 'detach':
    case 'attach':
    case 'exchange':
    case 'attributes':
      journal.steps.push(record);
      return;
    default:
      journal.prunes.push(record);
  }
}

/** J2: all of the filesystem first, then the mark. */
export function* mark(journal: Journal, file: Inode, phase: Phase): Task<void> {
  yield* file.fs.syncfs();
  const line = Buffer.from(lineOf({ kind: 'mark', phase }), 'utf8');
  yield* writeAll(file, line, journal.end);
  yield* file.fsync(false);
  journal.end += line.length;
  journal.phases.add(phase);
}

export function* writeAll(file: Inode, bytes: Uint8Array, position: number): Task<void> {
  for (let done = 0; done < bytes.length;) {
    done += yield* file.write(
      { bytes, offset: done, length: bytes.length - done },
      position + done,
    );
  }
}

export const identityOf = (stat: Stat): UpperIdentity => ({
  ino: stat.ino,
  btimeSec: stat.btimeSec,
  btimeNsec: stat.btimeNsec,
});

export const isIdentity = (a: UpperIdentity, b: UpperIdentity): boolean =>
  a.ino === b.ino && a.btimeSec === b.btimeSec && a.btimeNsec === b.btimeNsec;
