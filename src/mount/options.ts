/**
 * What a mount is asked to be: parsing of `-o` strings, `DIR[=rw|ro]` branches and helper SPECs.
 *
 * Both ways to say it end in one MountRequest: the kernel overlayfs's words
 * (`lowerdir=A:B,upperdir=U,workdir=W`) and branches, topmost first. A backslash takes the meaning
 * from the next character, so that a path may hold `:` `,` and `=`.
 *
 * Text only: nothing here looks at the host. Whether the directories are fit is plan.ts's business.
 */

export interface BranchRequest {
  path: string;
  mode: 'rw' | 'ro';
  work?: string;
}

export interface MountRequest {
  /** Topmost first. */
  branches: BranchRequest[];
  readOnly: boolean;
  allowOther: boolean;
  /** Sync nothing: the writable branches are to be thrown away if the machine dies. */
  volatile: boolean;
  /** Metadata-only copy-up. */
  metacopy: boolean;
  /** Files of the upper branch read and written without the daemon; big data, root only. */
  passthrough: boolean;
  /** What mount(2) takes as flags: `nosuid`, `nodev`, … In the order given. */
  flags: string[];
}

/** A message for the user: what was asked is not understood or cannot be. Exit status 2 or 32. */
export class MountError extends Error {
  override readonly name = 'MountError';
  /** `usage`: what was typed; `refused`: the directories are not fit; `failed`: it was tried. */
  readonly kind: 'usage' | 'refused' | 'failed';
  constructor(kind: 'usage' | 'refused' | 'failed', message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Options of mount(8), fstab and systemd that say nothing to a filesystem. */
const IGNORED = new Set([
  'defaults',
  'auto',
  'noauto',
  'user',
  'nouser',
  'users',
  'owner',
  'group',
  'nofail',
  '_netdev',
  'loop',
  'default_permissions',
  'nonempty',
]);
const IGNORED_PREFIXES = ['x-', 'comment=', 'X-', 'uhelper=', 'helper=', 'subtype='];

/** What kernel overlayfs can be told and is always so here: accepted when it says so. */
const ALWAYS_SO = new Map([
  ['redirect_dir', ['on', 'follow']],
  ['index', ['on']],
  ['xino', ['on', 'auto']],
  ['uuid', ['on', 'auto']],
]);

/** Options that are flags of mount(2). Each replaces its opposite given before it. */
const MOUNT_FLAGS = new Map([
  ['dev', 'nodev'],
  ['nodev', 'dev'],
  ['suid', 'nosuid'],
  ['nosuid', 'suid'],
  ['exec', 'noexec'],
  ['noexec', 'exec'],
  ['atime', 'noatime'],
  ['noatime', 'atime'],
  ['relatime', 'strictatime'],
  ['strictatime', 'relatime'],
  ['diratime', 'nodiratime'],
  ['nodiratime', 'diratime'],
  ['sync', 'async'],
  ['async', 'sync'],
  ['dirsync', ''],
]);

export function emptyRequest(): MountRequest {
  return {
    branches: [],
    readOnly: false,
    allowOther: false,
    volatile: false,
    metacopy: true,
    passthrough: false,
    flags: [],
  };
}

/** Split at unescaped separators; escapes stay in the parts for the next split. */
export function splitEscaped(text: string, separator: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (char === '\\' && i + 1 < text.length) {
      part += char + text[++i]!;
    } else if (char === separator) {
      parts.push(part);
      part = '';
    } else {
      part += char;
    }
  }
  parts.push(part);
  return parts;
}

export const unescapePath = (text: string): string => text.replaceAll(/\\(.)/gs, '$1');

/** The inverse, for a SPEC: what the mount table shows as the source. */
export const escapePath = (path: string): string => path.replaceAll(/[\\:,=]/g, '\\$&');

/** `DIR`, `DIR=rw`, `DIR=ro`. Only rw and ro are modes: `x=ab` is a directory of that name. */
export function parseBranch(text: string, defaultMode: 'rw' | 'ro'): BranchRequest {
  const parts = splitEscaped(text, '=');
  const last = parts.length > 1 ? parts.at(-1) : undefined;
  const mode = last === 'rw' || last === 'ro' ? last : undefined;
  const path = mode === undefined ? text : parts.slice(0, -1).join('=');
  return { path: requirePath(unescapePath(path), text), mode: mode ?? defaultMode };
}

function requirePath(path: string, text: string): string {
  if (path === '') throw new MountError('usage', `an empty branch in "${text}"`);
  return path;
}

/** `A=rw:B=ro:C`. Without a mode, the first is rw if no other says so, and the rest are ro. */
export function parseSpec(spec: string): BranchRequest[] {
  return splitEscaped(spec, ':').map((part) => parseBranch(part, 'ro'));
}

/** Words of SPEC that name no branches: the branches are then among the options. */
export const isNamelessSpec = (spec: string): boolean =>
  ['', 'none', 'overlay', 'palimpsest', 'fuse.palimpsest', 'union'].includes(spec);

interface OverlayWords {
  lower: string[];
  upper: string | undefined;
  work: string[];
  branches: BranchRequest[];
}

function valueOf(name: string, value: string | undefined): string {
  if (value === undefined || value === '') {
    throw new MountError('usage', `option ${name} needs a value: ${name}=…`);
  }
  return value;
}

function onOff(name: string, value: string | undefined): boolean {
  if (value === undefined || value === 'on') return true;
  if (value === 'off') return false;
  throw new MountError('usage', `option ${name} is on or off, not "${value}"`);
}

function noValue(name: string, value: string | undefined): true {
  if (value !== undefined) throw new MountError('usage', `option ${name} takes no value`);
  return true;
}

function applyFlag(request: MountRequest, flag: string): void {
  const opposite = MOUNT_FLAGS.get(flag);
  request.flags = request.flags.filter((given) => given !== opposite && given !== flag);
  request.flags.push(flag);
}

function applyOption(request: MountRequest, words: OverlayWords, text: string): void {
  if (text === '') return;
  const equals = text.indexOf('=');
  const name = equals < 0 ? text : text.slice(0, equals);
  const value = equals < 0 ? undefined : text.slice(equals + 1);
  switch (name) {
    case 'lowerdir':
    case 'lower':
      for (const part of splitEscaped(valueOf(name, value), ':')) {
        words.lower.push(requirePath(unescapePath(part), text));
      }
      return;
    case 'lowerdir+':
      words.lower.push(unescapePath(valueOf(name, value)));
      return;
    case 'upperdir':
    case 'upper':
      words.upper = unescapePath(valueOf(name, value));
      return;
    case 'workdir':
    case 'work':
      words.work.push(unescapePath(valueOf(name, value)));
      return;
    case 'branch':
    case 'branches':
    case 'br':
      words.branches.push(...parseSpec(valueOf(name, value)));
      return;
    case 'ro':
      request.readOnly = noValue(name, value);
      return;
    case 'rw':
      noValue(name, value);
      request.readOnly = false;
      return;
    case 'allow_other':
      request.allowOther = noValue(name, value);
      return;
    case 'volatile':
      request.volatile = noValue(name, value);
      return;
    case 'metacopy':
      request.metacopy = onOff(name, value);
      return;
    case 'passthrough':
      request.passthrough = onOff(name, value);
      return;
    default:
      break;
  }
  const settled = ALWAYS_SO.get(name);
  if (settled !== undefined) {
    if (settled.includes(valueOf(name, value))) return;
    throw new MountError('usage', `option ${text}: it is always ${name}=${settled[0]} here`);
  }
  if (MOUNT_FLAGS.has(name)) {
    noValue(name, value);
    applyFlag(request, name);
    return;
  }
  if (IGNORED.has(name) || IGNORED_PREFIXES.some((prefix) => text.startsWith(prefix))) return;
  throw new MountError('usage', `unknown mount option "${name}"; see palimpsest help mount`);
}

/** What the command line gives beside `-o`: already apart, nothing is escaped. */
export interface BranchWords {
  /** In the order given, topmost first: `--branch`, SPECs. */
  branches: BranchRequest[];
  lower: string[];
  upper: string | undefined;
  work: string[];
}

/** One request of all the words. Errors: MountError `usage`. */
export function parseRequest(options: readonly string[], given: BranchWords): MountRequest {
  const request = emptyRequest();
  const words: OverlayWords = {
    lower: [],
    upper: undefined,
    work: [],
    branches: [...given.branches],
  };
  for (const option of options) {
    for (const part of splitEscaped(option, ',')) applyOption(request, words, part);
  }
  words.lower.push(...given.lower);
  words.work.push(...given.work);
  const upper = given.upper ?? words.upper;
  if (upper !== undefined) request.branches.push({ path: upper, mode: 'rw' });
  request.branches.push(...words.branches);
  for (const path of words.lower) request.branches.push({ path, mode: 'ro' });
  assignWork(request, words.work);
  if (request.branches.length === 0) {
    throw new MountError(
      'usage',
      'no branches: give --branch DIR[=rw|ro] (topmost first) or -o lowerdir=…,upperdir=…',
    );
  }
  return request;
}

/** Work directories belong to the rw branches in their order. */
function assignWork(request: MountRequest, work: readonly string[]): void {
  const writable = request.branches.filter((branch) => branch.mode === 'rw');
  if (work.length > writable.length) {
    const what = writable.length === 0 ? 'no writable branch' : `${writable.length} writable`;
    throw new MountError('usage', `${work.length} work directories given, but ${what}`);
  }
  work.forEach((path, index) => {
    writable[index]!.work = path;
  });
}

/** `A=rw:B=ro`: the branches as one word, which parseSpec takes back. */
export function specOf(branches: readonly BranchRequest[]): string {
  return branches.map((branch) => `${escapePath(branch.path)}=${branch.mode}`).join(':');
}
