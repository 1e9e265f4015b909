/**
 * Changes as a patch that `git apply` and `patch -p1` take, and as the table of `git diff --stat`.
 *
 * P1. Text is compared by lines; a file with a NUL byte in its first 8,000 bytes is binary, as in
 *     git, and so is one over PATCH_FILE_BYTES_MAX.
 * P2. What a patch cannot say (directories, devices, owners, xattrs, hard links) is a line that starts
 *     with `# `, before the next `diff --git`: programs skip it, people see it.
 * P3. Give it changes made with `expand: true`: a patch has no directories.
 */
import { createHash } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import { structuredPatch } from 'diff';
import { S_IFDIR, S_IFLNK, S_IFREG } from '../abi/mode.ts';
import type { Task } from '../kernel/task.ts';
import { readWhole } from './compare.ts';
import { quotePath } from './render.ts';
import type { Change } from './types.ts';
import { dataInode, metadataInode, statOf } from './view.ts';
import type { ViewNode } from './view.ts';

/** Bytes. Beyond, lines would cost more memory than a reader of patches has use for. */
export const PATCH_FILE_BYTES_MAX = 32 << 20;
/** Inserted plus deleted lines up to which the shortest script is searched for; it costs the square. */
const EDIT_LENGTH_MAX = 1500;
const CONTEXT_LINES = 3;
/** As git looks for NUL. */
const BINARY_PROBE_BYTES = 8000;

export interface PatchOptions {
  /** Binary contents as `GIT binary patch` instead of `Binary files differ`. Default false. */
  binary?: boolean;
}

interface Side {
  /** Mode with its type bits, as git writes it. */
  mode: number;
  path: string;
  text: string | undefined;
  /** Where `text` is undefined, if asked for. */
  bytes: Uint8Array | undefined;
  size: number;
}

interface Hunk {
  oldStart: number;
  oldLines: number;
  newStart: number;
  newLines: number;
  lines: string[];
}

export function* patchOf(change: Change, options: PatchOptions = {}): Task<string> {
  const { newNode, oldNode } = change;
  const read = !keepsContent(change);
  const before = yield* sideOf(oldNode, options, read);
  const after = yield* sideOf(newNode, options, read);
  const remarks = remarksOf(change, before, after);
  if (before === undefined || after === undefined) {
    return remarks + onePatch(change, before, after, options);
  }
  // Another type: git says it as a deletion and a creation.
  if ((before.mode & 0o170000) !== (after.mode & 0o170000)) {
    return (
      remarks +
      onePatch(change, before, undefined, options) +
      onePatch(change, undefined, after, options)
    );
  }
  return remarks + onePatch(change, before, after, options);
}

/** Then the contents need not be read: they are the same. */
const keepsContent = (change: Change): boolean =>
  change.op === 'X' || (change.op === 'R' && change.contentChanged !== true);

/** Undefined: not there, or nothing a patch can say. */
function* sideOf(
  node: ViewNode | undefined,
  options: PatchOptions,
  read: boolean,
): Task<Side | undefined> {
  if (node === undefined) return undefined;
  const stat = yield* statOf(node);
  if (node.type === S_IFLNK) {
    const text = yield* metadataInode(node).readlink();
    return { mode: S_IFLNK, path: node.path, text, bytes: undefined, size: text.length };
  }
  if (node.type !== S_IFREG) return undefined;
  const side = { mode: stat.mode, path: node.path, size: stat.size };
  if (!read) return { ...side, text: '', bytes: undefined };
  if (stat.size > PATCH_FILE_BYTES_MAX) return { ...side, text: undefined, bytes: undefined };
  const bytes = yield* readWhole(dataInode(node), stat.size);
  const binary = bytes.subarray(0, BINARY_PROBE_BYTES).includes(0);
  if (binary)
    return { ...side, text: undefined, bytes: options.binary === true ? bytes : undefined };
  return { ...side, text: Buffer.from(bytes.buffer, 0, bytes.length).toString('latin1'), bytes };
}

function remarksOf(change: Change, before: Side | undefined, after: Side | undefined): string {
  const path = quotePath(change.path);
  let remarks = '';
  const newKind = change.newNode !== undefined && after === undefined ? change.type : undefined;
  const oldKind =
    change.oldNode !== undefined && before === undefined
      ? (change.oldType ?? change.type)
      : undefined;
  if (newKind !== undefined && newKind === oldKind) {
    const renamed = change.op === 'R' ? `, renamed from ${quotePath(change.from!)}` : '';
    remarks += `# ${newKind} ${path}: mode ${change.oldMode!.toString(8)} to ${change.mode.toString(8)}${renamed}\n`;
  } else {
    if (oldKind !== undefined) remarks += `# ${oldKind} ${path}: deleted\n`;
    if (newKind !== undefined)
      remarks += `# ${newKind} ${path}: new, mode ${change.mode.toString(8)}\n`;
  }
  if (
    change.oldUid !== undefined &&
    (change.oldUid !== change.uid || change.oldGid !== change.gid)
  ) {
    remarks += `# ${path}: owner ${change.oldUid}:${change.oldGid} to ${change.uid}:${change.gid}\n`;
  }
  if (change.xattrs !== undefined)
    remarks += `# ${path}: xattrs ${change.xattrs.map(quotePath).join(' ')}\n`;
  if (change.linkTo !== undefined)
    remarks += `# ${path}: hard link to ${quotePath(change.linkTo)}\n`;
  return remarks;
}

function onePatch(
  change: Change,
  before: Side | undefined,
  after: Side | undefined,
  options: PatchOptions,
): string {
  if (before === undefined && after === undefined) return '';
  const oldPath = change.from ?? change.path;
  const header = headerOf({
    oldPath,
    newPath: change.path,
    before,
    after,
    renamed: change.op === 'R',
  });
  const pair = { oldPath, newPath: change.path, before, after };
  const body = keepsContent(change) ? '' : indexOf(pair) + bodyOf(pair, options);
  // Only owner, xattrs or links: a header that says nothing would be refused.
  const silent =
    body === '' &&
    before !== undefined &&
    after !== undefined &&
    change.op !== 'R' &&
    before.mode === after.mode;
  return silent ? '' : header + body;
}

function headerOf(p: {
  oldPath: string;
  newPath: string;
  before: Side | undefined;
  after: Side | undefined;
  renamed: boolean;
}): string {
  const { before, after } = p;
  // A renamed directory's own files keep one name here: the rename is said by the R of each.
  const left = before === undefined ? p.newPath : p.oldPath;
  const right = after === undefined ? p.oldPath : p.newPath;
  let header = `diff --git ${quotePath(`a/${left}`)} ${quotePath(`b/${right}`)}\n`;
  if (before === undefined) header += `new file mode ${after!.mode.toString(8)}\n`;
  else if (after === undefined) header += `deleted file mode ${before.mode.toString(8)}\n`;
  else if (before.mode !== after.mode) {
    header += `old mode ${before.mode.toString(8)}\nnew mode ${after.mode.toString(8)}\n`;
  }
  if (before !== undefined && after !== undefined && left !== right) {
    header += `similarity index ${similarity(before, after)}%\n`;
    header += `rename from ${quotePath(left)}\nrename to ${quotePath(right)}\n`;
  }
  return header;
}

const isSame = (a: Side, b: Side): boolean =>
  a.text !== undefined && b.text !== undefined ? a.text === b.text : sameBytes(a, b);

const sameBytes = (a: Side, b: Side): boolean =>
  a.bytes !== undefined && b.bytes !== undefined && Buffer.compare(a.bytes, b.bytes) === 0;

/** Only 100 has a meaning to programs. */
const similarity = (a: Side, b: Side): number => (isSame(a, b) ? 100 : 50);

/**
 * `index OLD..NEW MODE`, as git writes it. Programs other than git tell by it that an empty file goes
 * away, and that what is patched is a symlink. A binary patch brings its own.
 */
function indexOf({ before, after }: Pair): string {
  if (
    (before !== undefined && before.text === undefined) ||
    (after !== undefined && after.text === undefined)
  ) {
    return '';
  }
  const name = (side: Side | undefined): string =>
    blobName(side, Buffer.from(side?.text ?? '', 'latin1')).slice(0, 7);
  const mode = before?.mode === after?.mode ? ` ${before!.mode.toString(8)}` : '';
  return `index ${name(before)}..${name(after)}${mode}\n`;
}

interface Pair {
  oldPath: string;
  newPath: string;
  before: Side | undefined;
  after: Side | undefined;
}

function bodyOf(pair: Pair, options: PatchOptions): string {
  const { before, after } = pair;
  const oldText = before === undefined ? '' : before.text;
  const newText = after === undefined ? '' : after.text;
  if (oldText !== undefined && newText !== undefined) {
    const hunks = hunksOf(oldText, newText);
    if (hunks.length === 0) return '';
    return (
      fileLine('---', before === undefined ? undefined : `a/${pair.oldPath}`) +
      fileLine('+++', after === undefined ? undefined : `b/${pair.newPath}`) +
      hunks.map(hunkText).join('')
    );
  }
  return binaryBody(pair, options);
}

/** A name with a blank is ended by a tab, as git does, or patch(1) would take it for a date. */
function fileLine(mark: string, path: string | undefined): string {
  if (path === undefined) return `${mark} /dev/null\n`;
  const quoted = quotePath(path);
  return `${mark} ${quoted}${quoted.includes(' ') && !quoted.startsWith('"') ? '\t' : ''}\n`;
}

export function hunksOf(oldText: string, newText: string): Hunk[] {
  if (oldText === newText) return [];
  const options = { context: CONTEXT_LINES, maxEditLength: EDIT_LENGTH_MAX };
  const found =
    oldText === '' || newText === ''
      ? undefined
      : structuredPatch('', '', oldText, newText, undefined, undefined, options);
  return found?.hunks.map(unified) ?? [wholeHunk(oldText, newText)];
}

/** A side without lines is numbered by the line before it. */
function unified(hunk: Hunk): Hunk {
  return {
    ...hunk,
    oldStart: hunk.oldLines === 0 ? hunk.oldStart - 1 : hunk.oldStart,
    newStart: hunk.newLines === 0 ? hunk.newStart - 1 : hunk.newStart,
  };
}

/** All old lines out, all new lines in. */
function wholeHunk(oldText: string, newText: string): Hunk {
  const removed = linesOf(oldText);
  const added = linesOf(newText);
  return {
    oldStart: removed.length === 0 ? 0 : 1,
    oldLines: removed.length,
    newStart: added.length === 0 ? 0 : 1,
    newLines: added.length,
    lines: [...marked('-', removed, oldText), ...marked('+', added, newText)],
  };
}

function linesOf(text: string): string[] {
  if (text === '') return [];
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function marked(mark: string, lines: string[], text: string): string[] {
  const all = lines.map((line) => mark + line);
  if (text !== '' && !text.endsWith('\n')) all.push('\\ No newline at end of file');
  return all;
}

const range = (start: number, count: number): string =>
  count === 1 ? `${start}` : `${start},${count}`;

function hunkText(hunk: Hunk): string {
  const old = range(hunk.oldStart, hunk.oldLines);
  return `@@ -${old} +${range(hunk.newStart, hunk.newLines)} @@\n${hunk.lines.join('\n')}\n`;
}

// -- binary --

function binaryBody(pair: Pair, options: PatchOptions): string {
  const { before, after } = pair;
  if (before !== undefined && after !== undefined && sameContent(before, after)) return '';
  const oldBytes = before === undefined ? new Uint8Array(0) : before.bytes;
  const newBytes = after === undefined ? new Uint8Array(0) : after.bytes;
  if (options.binary === true && oldBytes !== undefined && newBytes !== undefined) {
    const index = `index ${blobName(before, oldBytes)}..${blobName(after, newBytes)}\n`;
    return `${index}GIT binary patch\n${literal(newBytes)}\n${literal(oldBytes)}\n`;
  }
  const left = before === undefined ? '/dev/null' : quotePath(`a/${pair.oldPath}`);
  const right = after === undefined ? '/dev/null' : quotePath(`b/${pair.newPath}`);
  return `Binary files ${left} and ${right} differ\n`;
}

const sameContent = (a: Side, b: Side): boolean => a.size === b.size && isSame(a, b);

function blobName(side: Side | undefined, bytes: Uint8Array): string {
  if (side === undefined) return '0'.repeat(40);
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

const BASE85 =
  '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~';
/** Bytes a line: a multiple of four, and its count fits into one letter. */
const LITERAL_LINE_BYTES = 52;

/** `literal SIZE` and the deflated bytes in lines of base 85, each led by its length as a letter. */
function literal(bytes: Uint8Array): string {
  const deflated = deflateSync(bytes);
  let text = `literal ${bytes.length}\n`;
  for (let at = 0; at < deflated.length; at += LITERAL_LINE_BYTES) {
    const line = deflated.subarray(at, at + LITERAL_LINE_BYTES);
    const letter = line.length <= 26 ? 0x40 + line.length : 0x60 + line.length - 26;
    text += `${String.fromCharCode(letter)}${base85(line)}\n`;
  }
  return text;
}

function base85(line: Uint8Array): string {
  let text = '';
  for (let at = 0; at < line.length; at += 4) {
    let word = 0;
    for (let i = 0; i < 4; i++) word = word * 256 + (line[at + i] ?? 0);
    let group = '';
    for (let i = 0; i < 5; i++) {
      group = BASE85[word % 85]! + group;
      word = Math.floor(word / 85);
    }
    text += group;
  }
  return text;
}

// -- stat --

const GRAPH_COLUMNS = 40;

interface StatRow {
  label: string;
  added: number;
  removed: number;
  note: string;
}

/** As `git diff --stat`: a line a file, then the sums. */
export function* renderStat(changes: readonly Change[]): Task<string> {
  const rows: StatRow[] = [];
  for (const change of changes) {
    if ((change.newNode ?? change.oldNode)?.type === S_IFDIR && change.oldType === undefined)
      continue;
    rows.push(yield* statRow(change));
  }
  const width = rows.reduce((most, row) => Math.max(most, row.label.length), 0);
  const largest = rows.reduce((most, row) => Math.max(most, row.added + row.removed), 1);
  const scale = Math.min(1, GRAPH_COLUMNS / largest);
  const lines = rows.map((row) => ` ${row.label.padEnd(width)} | ${graphOf(row, scale)}\n`);
  return lines.join('') + sums(rows);
}

function* statRow(change: Change): Task<StatRow> {
  const name = quotePath(change.path);
  const label = change.op === 'R' ? `${quotePath(change.from!)} => ${name}` : name;
  const read = !keepsContent(change);
  const before = yield* sideOf(change.oldNode, {}, read);
  const after = yield* sideOf(change.newNode, {}, read);
  const row = { label, added: 0, removed: 0, note: '' };
  const isText = (side: Side | undefined): boolean => side === undefined || side.text !== undefined;
  if (before === undefined && after === undefined) return { ...row, note: change.type };
  if (!isText(before) || !isText(after)) {
    return { ...row, note: `Bin ${before?.size ?? 0} -> ${after?.size ?? 0} bytes` };
  }
  for (const hunk of hunksOf(before?.text ?? '', after?.text ?? '')) {
    for (const line of hunk.lines) {
      if (line.startsWith('+')) row.added++;
      else if (line.startsWith('-')) row.removed++;
    }
  }
  return row;
}

function graphOf(row: StatRow, scale: number): string {
  if (row.note !== '') return row.note;
  const bar = (mark: string, count: number): string =>
    mark.repeat(count === 0 ? 0 : Math.max(1, Math.round(count * scale)));
  return `${row.added + row.removed} ${bar('+', row.added)}${bar('-', row.removed)}`.trimEnd();
}

function sums(rows: readonly StatRow[]): string {
  const total = (of: (row: StatRow) => number): number =>
    rows.reduce((sum, row) => sum + of(row), 0);
  const added = total((row) => row.added);
  const removed = total((row) => row.removed);
  const plural = (count: number, word: string): string =>
    `${count} ${word}${count === 1 ? '' : 's'}`;
  const parts = [`${plural(rows.length, 'file')} changed`];
  if (added > 0) parts.push(`${plural(added, 'insertion')}(+)`);
  if (removed > 0) parts.push(`${plural(removed, 'deletion')}(-)`);
  return rows.length === 0 ? '' : ` ${parts.join(', ')}\n`;
}
