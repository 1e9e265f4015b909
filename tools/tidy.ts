/**
 * Tidy: structure that a compiler does not check. Run by the tests (tidy.test.ts) or alone:
 * `npm run tidy`. It never judges length or taste.
 *
 * It says: an import that points up or sideways between rooms; syntax that Node cannot strip and
 * things this project does without; the host's clock, randomness, files and FFI outside their rooms;
 * a source file that nobody imports; a relative link in a document that leads nowhere.
 *
 * Sources are scanned as text with comments and strings blanked, not parsed: enough for what is
 * looked for, and no dependency.
 */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';

export interface Finding {
  /** Relative to the root of the repository. */
  file: string;
  /** 1-based. */
  line: number;
  message: string;
}

/** A room may import itself and rooms of a lower level. Same level, other room: no. */
const ROOM_LEVELS: ReadonlyMap<string, number> = new Map([
  ['lib', 0],
  ['abi', 1],
  ['kernel', 2],
  ['sys', 3],
  ['block', 3],
  ['mm', 4],
  ['vfs', 5],
  ['fs/tmpfs', 6],
  ['fs/squashfs', 6],
  ['fs/host', 6],
  ['fs/union', 6],
  ['fuse', 7],
  ['nodefs', 7],
  ['mount', 8],
  ['layers', 9],
  ['web', 10],
  ['cli', 11],
  // The seeded world drives everything; nothing but tests imports it.
  ['sim', 12],
]);

/** The only rooms that may import sys/, beside sys itself. */
const SYS_USERS: ReadonlyMap<string, string> = new Map([
  ['fs/host', 'the filesystem that is made of host calls'],
  ['block', 'loop over a host file'],
  ['fuse', 'the mounted door reads and writes /dev/fuse'],
  ['mount', 'the composition root: mounts, locks, wakes the engine'],
  ['web', 'a server'],
  ['cli', 'commands'],
]);

/** Rooms that may use Node's own I/O, clock and timers, with the reason. */
const HOST_ROOMS: ReadonlyMap<string, string> = new Map([
  ['sys', 'the room of host calls'],
  ['nodefs', 'speaks the shape of node:fs'],
  ['mount', 'process, worker, socket and state file are Node things'],
  ['web', 'a server'],
  ['cli', 'commands'],
]);

const BANNED_SYNTAX: readonly (readonly [RegExp, string])[] = [
  [/^\s*(export\s+)?(declare\s+)?(const\s+)?enum\s+\w/, 'enum: Node cannot strip it'],
  [/^\s*(export\s+)?(declare\s+)?namespace\s+\w/, 'namespace: Node cannot strip it'],
  [
    /constructor\s*\(([^)]*,)?\s*(public|private|protected|readonly)\s+(readonly\s+)?\w+\s*[?:]/,
    'parameter property: Node cannot strip it',
  ],
  [/^\s*@\w+(\(.*\))?\s*(export\s+)?(class|abstract|async|static|\w+\()/, 'decorator'],
  [/\bcatch\s*(\([^)]*\))?\s*\{\s*\}/, 'empty catch: name the errno it forgives'],
  [/^\s*export\s+default\b/, 'default export'],
  [/^\s*import\s+\w+\s*=\s*require/, 'import = require: Node cannot strip it'],
];

const HOST_USES: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\s*\(|\bnew Date\s*\(\s*\)/, "the host's clock"],
  [/\bperformance\.now\s*\(/, "the host's clock"],
  [/\bMath\.random\s*\(/, "the host's randomness"],
  [/\bset(Timeout|Interval)\s*\(/, 'a timer'],
];

/** Tests and what only tests import: they may reach into any room, and use the host. */
const isTestSource = (file: string): boolean => /\.(test|fuzz)\.ts$|\/testing(\.ts$|\/)/.test(file);

export function roomOf(file: string): string | undefined {
  const match = /^src\/(fs\/[^/]+|[^/]+)\//.exec(file);
  return match?.[1];
}

/** The text with comments and the insides of strings blanked, line by line the same length. */
export function blankCommentsAndStrings(source: string): string {
  const blank = (text: string): string => text.replaceAll(/[^\n]/g, ' ');
  const pattern =
    /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`/g;
  return source.replaceAll(pattern, (text) => {
    if (text.startsWith('/')) return blank(text);
    return text[0] + blank(text.slice(1, -1)) + text.at(-1);
  });
}

/** Every module a source names: static, re-exported, dynamic, or as a worker's or child's URL. */
export function importsOf(source: string): { specifier: string; line: number }[] {
  const found: { specifier: string; line: number }[] = [];
  const pattern =
    /(?:\bfrom\s*|\bimport\s*\(?\s*|new URL\(\s*|\brequire(?:\.resolve)?\(\s*)'([^'\n]+)'/g;
  const withoutComments = source.replaceAll(/^\s*(\*|\/\/|\/\*).*$/gm, '');
  for (const match of withoutComments.matchAll(pattern)) {
    const line = withoutComments.slice(0, match.index).split('\n').length;
    found.push({ specifier: match[1] ?? '', line });
  }
  return found;
}

function checkImports(file: string, source: string): Finding[] {
  const room = roomOf(file);
  if (room === undefined || isTestSource(file)) return [];
  const level = ROOM_LEVELS.get(room);
  if (level === undefined) {
    return [{ file, line: 1, message: `room ${room} is not in the order of DESIGN §2` }];
  }
  const findings: Finding[] = [];
  for (const { specifier, line } of importsOf(source)) {
    if (!specifier.startsWith('.')) continue;
    const target = roomOf(normalize(join(dirname(file), specifier)));
    if (target === undefined || target === room) continue;
    const targetLevel = ROOM_LEVELS.get(target) ?? Infinity;
    if (targetLevel >= level) {
      findings.push({
        file,
        line,
        message: `${room} must not import ${target}: imports point down`,
      });
    } else if (target === 'sys' && !SYS_USERS.has(room)) {
      findings.push({
        file,
        line,
        message: `${room} must not import sys: host calls are not its business`,
      });
    }
  }
  return findings;
}

function checkHostUses(file: string, source: string, lines: readonly string[]): Finding[] {
  const room = roomOf(file);
  if (room === undefined || isTestSource(file)) return [];
  const findings: Finding[] = [];
  for (const { specifier, line } of importsOf(source)) {
    if (specifier === 'koffi' && room !== 'sys') {
      findings.push({ file, line, message: 'koffi outside sys/' });
    }
    if (/^(node:)?fs(\/promises)?$/.test(specifier) && !HOST_ROOMS.has(room)) {
      findings.push({ file, line, message: `node:fs in ${room}` });
    }
  }
  if (HOST_ROOMS.has(room)) return findings;
  lines.forEach((text, index) => {
    for (const [pattern, what] of HOST_USES) {
      if (pattern.test(text)) {
        findings.push({ file, line: index + 1, message: `${what} in ${room}: it is passed in` });
      }
    }
  });
  return findings;
}

function checkSyntax(file: string, lines: readonly string[]): Finding[] {
  const findings: Finding[] = [];
  lines.forEach((text, index) => {
    for (const [pattern, message] of BANNED_SYNTAX) {
      if (pattern.test(text)) findings.push({ file, line: index + 1, message });
    }
  });
  return findings;
}

/** All findings of one source file by itself. */
export function checkSource(file: string, source: string): Finding[] {
  const lines = blankCommentsAndStrings(source).split('\n');
  return [
    ...checkImports(file, source),
    ...checkHostUses(file, source, lines),
    ...checkSyntax(file, lines),
  ];
}

/** Files that something starts by path, not by import. */
const ENTRY_POINTS: readonly RegExp[] = [
  /\.test\.ts$/,
  /\.fuzz\.ts$/,
  /^src\/cli\/main\.ts$/,
  /^tools\//,
  /^bench\//,
  /^test\//,
];

function checkOrphans(sources: ReadonlyMap<string, string>): Finding[] {
  const imported = new Set<string>();
  for (const [file, source] of sources) {
    for (const { specifier } of importsOf(source)) {
      if (specifier.startsWith('.')) imported.add(normalize(join(dirname(file), specifier)));
    }
  }
  const findings: Finding[] = [];
  for (const file of sources.keys()) {
    if (imported.has(file) || ENTRY_POINTS.some((pattern) => pattern.test(file))) continue;
    findings.push({ file, line: 1, message: 'nobody imports this file' });
  }
  return findings;
}

export function checkLinks(
  file: string,
  text: string,
  exists: (path: string) => boolean,
): Finding[] {
  const findings: Finding[] = [];
  text.split('\n').forEach((lineText, index) => {
    for (const match of lineText.matchAll(/\]\(([^)\s]+)\)/g)) {
      const target = (match[1] ?? '').replace(/#.*$/, '');
      if (target === '' || /^[a-z]+:/.test(target)) continue;
      if (!exists(normalize(join(dirname(file), target)))) {
        findings.push({ file, line: index + 1, message: `dead link ${target}` });
      }
    }
  });
  return findings;
}

export function tidy(root: string): Finding[] {
  const sources = new Map<string, string>();
  for (const pattern of ['src/**/*.ts', 'test/**/*.ts', 'tools/**/*.ts', 'bench/**/*.ts']) {
    for (const file of globSync(pattern, { cwd: root })) {
      sources.set(file, readFileSync(join(root, file), 'utf8'));
    }
  }
  const findings: Finding[] = [];
  for (const [file, source] of sources) findings.push(...checkSource(file, source));
  findings.push(...checkOrphans(sources));
  for (const file of ['*.md', 'docs/**/*.md'].flatMap((glob) => globSync(glob, { cwd: root }))) {
    const text = readFileSync(join(root, file), 'utf8');
    findings.push(...checkLinks(file, text, (path) => existsSync(join(root, path))));
  }
  return findings;
}

export const formatFinding = (finding: Finding): string =>
  `${finding.file}:${finding.line}: ${finding.message}`;

if (import.meta.main) {
  const findings = tidy(join(import.meta.dirname, '..'));
  for (const finding of findings) console.log(formatFinding(finding));
  console.log(
    `${findings.length} findings in ${relative('.', join(import.meta.dirname, '..')) || '.'}`,
  );
  process.exitCode = findings.length === 0 ? 0 : 1;
}
