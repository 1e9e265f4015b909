/**
 * Changes as text. Everything given has one char per byte: write it with encoding 'latin1'.
 *
 * R1. A directory's path ends in `/`, save in JSON and with `nul`.
 * R2. Without `nul`, a path with control characters, `"`, `\` or bytes that are not UTF-8 is quoted as
 *     git quotes it ("a\tb", "\377"), so that a line is always one change.
 * R3. JSON: one object a line; a path that is not UTF-8 is in `pathBase64` instead of `path` (and
 *     `fromBase64`, `linkToBase64`); modes are octal strings. Fields may be added, never changed.
 */
import type { Change, ObjectType } from './types.ts';

export interface RenderOptions {
  /** Paths raw and ended by NUL instead of quoted and ended by a newline. */
  nul?: boolean;
}

const ESCAPES = new Map([
  ['\x07', '\\a'],
  ['\b', '\\b'],
  ['\t', '\\t'],
  ['\n', '\\n'],
  ['\v', '\\v'],
  ['\f', '\\f'],
  ['\r', '\\r'],
  ['"', '\\"'],
  ['\\', '\\\\'],
]);

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text that these bytes are, or undefined where they are not UTF-8. */
export function decodeUtf8(path: string): string | undefined {
  try {
    return utf8.decode(Buffer.from(path, 'latin1'));
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

const encodeUtf8 = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');

/** C-style as git does with core.quotePath=false: UTF-8 stays as it is. */
export function quotePath(path: string): string {
  const isText = decodeUtf8(path) !== undefined;
  let quoted = '';
  for (const char of path) {
    const code = char.charCodeAt(0);
    const plain = code >= 0x20 && code !== 0x7f && (code < 0x80 || isText) && !ESCAPES.has(char);
    quoted += plain ? char : (ESCAPES.get(char) ?? `\\${code.toString(8).padStart(3, '0')}`);
  }
  return quoted === path ? path : `"${quoted}"`;
}

const withSlash = (path: string, type: ObjectType): string => (type === 'dir' ? `${path}/` : path);

const shown = (path: string, type: ObjectType): string => quotePath(withSlash(path, type));

/** `M<TAB>path`, `R<TAB>from<TAB>path`; with `nul` each part is ended by NUL, as in git. */
export function renderNameStatus(changes: readonly Change[], options: RenderOptions = {}): string {
  return changes
    .map((c) => {
      const paths = c.op === 'R' ? [c.from!, c.path] : [c.path];
      if (options.nul === true) return [c.op, ...paths].map((part) => `${part}\0`).join('');
      return `${[c.op, ...paths.map((path) => shown(path, c.type))].join('\t')}\n`;
    })
    .join('');
}

export function renderNameOnly(changes: readonly Change[], options: RenderOptions = {}): string {
  return changes
    .map((c) => (options.nul === true ? `${c.path}\0` : `${shown(c.path, c.type)}\n`))
    .join('');
}

/** docker diff's: `A /p`, `C /p`, `D /p`; parents of what changed are `C` too. Wants `expand`. */
export function renderDocker(changes: readonly Change[], options: RenderOptions = {}): string {
  const letters = new Map<string, 'A' | 'C' | 'D'>();
  for (const change of changes) {
    if (change.op === 'R') {
      letters.set(change.from!, 'D');
      letters.set(change.path, 'A');
    } else {
      const letter = change.op === 'A' || change.op === 'D' ? change.op : 'C';
      const replaced = letters.has(change.path) && letter !== letters.get(change.path);
      letters.set(change.path, replaced ? 'C' : letter);
    }
  }
  for (const path of [...letters.keys()]) addParents(letters, path);
  const end = options.nul === true ? '\0' : '\n';
  return [...letters]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, letter]) => `${letter} /${options.nul === true ? path : quotePath(path)}${end}`)
    .join('');
}

function addParents(letters: Map<string, 'A' | 'C' | 'D'>, path: string): void {
  for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
    const parent = path.slice(0, slash);
    if (!letters.has(parent)) letters.set(parent, 'C');
  }
}

export function renderJson(changes: readonly Change[]): string {
  return changes.map((c) => `${encodeUtf8(JSON.stringify(jsonOf(c)))}\n`).join('');
}

const octal = (mode: number): string => mode.toString(8).padStart(4, '0');

/** The record of one change as programs see it. */
export function jsonOf(change: Change): Record<string, unknown> {
  const { op, type, oldType, size, oldSize, uid, gid, oldUid, oldGid } = change;
  const record: Record<string, unknown> = {
    ...jsonPath('path', change.path),
    op,
    type,
    mode: octal(change.mode),
    size,
    uid,
    gid,
  };
  if (oldType !== undefined) record['oldType'] = oldType;
  if (op !== 'A' && op !== 'D') {
    record['oldMode'] = octal(change.oldMode!);
    Object.assign(record, { oldSize, oldUid, oldGid });
  }
  if (change.contentChanged !== undefined) record['contentChanged'] = change.contentChanged;
  if (change.xattrs !== undefined)
    record['xattrs'] = change.xattrs.map((name) => decodeUtf8(name) ?? name);
  if (change.from !== undefined) Object.assign(record, jsonPath('from', change.from));
  if (change.linkTo !== undefined) Object.assign(record, jsonPath('linkTo', change.linkTo));
  if (change.digest !== undefined) record['digest'] = `sha256:${change.digest}`;
  if (change.oldDigest !== undefined) record['oldDigest'] = `sha256:${change.oldDigest}`;
  return record;
}

function jsonPath(key: string, path: string): Record<string, string> {
  const text = decodeUtf8(path);
  if (text !== undefined) return { [key]: text };
  return { [`${key}Base64`]: Buffer.from(path, 'latin1').toString('base64') };
}

const WORDS = {
  A: 'added',
  M: 'modified',
  D: 'deleted',
  R: 'renamed',
  T: 'changed in type',
  X: 'changed in metadata',
} as const;

/** `3 added, 1 deleted`; `no changes`. */
export function renderSummary(changes: readonly Change[]): string {
  const counts = new Map<Change['op'], number>();
  for (const { op } of changes) counts.set(op, (counts.get(op) ?? 0) + 1);
  const parts = (Object.keys(WORDS) as Change['op'][])
    .filter((op) => counts.has(op))
    .map((op) => `${counts.get(op)} ${WORDS[op]}`);
  return `${parts.length === 0 ? 'no changes' : parts.join(', ')}\n`;
}
