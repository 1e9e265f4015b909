/**
 * Running things on this machine: commands with a time limit, facts about the machine, processes
 * found by a word of their command line. Synchronous throughout: a benchmark that does something
 * else meanwhile measures that too.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import * as os from 'node:os';
import { basename } from 'node:path';

export class CommandFailed extends Error {
  override name = 'CommandFailed';
  readonly timedOut: boolean;
  constructor(message: string, timedOut: boolean) {
    super(message);
    this.timedOut = timedOut;
  }
}

export interface RunOptions {
  timeoutMs?: number;
  cwd?: string;
  env?: Record<string, string>;
  /** A descriptor for what the command says; daemons inherit it, so it must not be a pipe. */
  logFd?: number;
}

export interface RunResult {
  stdout: string;
  ms: number;
}

/** Long enough for the slowest row of the slowest peer, short enough to get past a hang. */
const TIMEOUT_MS = 180_000;

export function run(argv: readonly string[], options: RunOptions = {}): RunResult {
  const [program, ...args] = argv;
  if (program === undefined) throw new TypeError('an empty command line');
  const start = process.hrtime.bigint();
  const result = spawnSync(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    timeout: options.timeoutMs ?? TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: 64 * 1024 * 1024,
    stdio:
      options.logFd === undefined
        ? ['ignore', 'pipe', 'pipe']
        : ['ignore', options.logFd, options.logFd],
  });
  const ms = Number(process.hrtime.bigint() - start) / 1e6;
  if (result.error !== undefined || result.status !== 0) {
    const timedOut = (result.error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT';
    const said = String(result.stderr ?? '')
      .trim()
      .split('\n')
      .slice(-3)
      .join(' | ')
      .slice(0, 300);
    const why = timedOut
      ? 'timed out'
      : (result.error?.message ?? `exit ${result.status ?? result.signal}`);
    throw new CommandFailed(
      `${basename(program)}: ${why}${said === '' ? '' : `: ${said}`}`,
      timedOut,
    );
  }
  return { stdout: String(result.stdout ?? ''), ms };
}

/** Processes whose command line has `word` as a part, ourselves and our children's shells excepted. */
export function processesWith(word: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const line = readProc(`/proc/${name}/cmdline`);
    if (line !== undefined && line.includes(word)) found.push(Number(name));
  }
  return found;
}

/** Resident bytes of a process that no other process shares: what it alone costs. */
export function residentBytes(pid: number): number | undefined {
  const status = readProc(`/proc/${pid}/status`);
  const match = status === undefined ? null : /^VmRSS:\s+(\d+) kB/m.exec(status);
  return match === null ? undefined : Number(match[1]) * 1024;
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ESRCH') throw error;
    return undefined; // The process ended between the listing and the look.
  }
}

export interface Machine {
  kernel: string;
  cpus: number;
  cpuModel: string;
  memoryGiB: number;
  node: string;
  versions: Record<string, string>;
}

const VERSION_COMMANDS: Record<string, readonly string[]> = {
  'fuse-overlayfs': [
    'sh',
    '-c',
    'fuse-overlayfs --version | sed -n "s/fuse-overlayfs: version //p"',
  ],
  'unionfs-fuse': [
    'sh',
    '-c',
    'unionfs-fuse --version 2>&1 | sed -n "s/unionfs-fuse version: *//p"',
  ],
  mergerfs: ['sh', '-c', 'mergerfs --version 2>&1 | grep -om1 "[0-9][0-9.]*"'],
  gcc: ['gcc', '-dumpfullversion'],
};

export function machineFacts(): Machine {
  const versions: Record<string, string> = {};
  for (const [name, argv] of Object.entries(VERSION_COMMANDS)) {
    try {
      versions[name] = run(argv)
        .stdout.trim()
        .replace(/^version: */, '');
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      versions[name] = 'absent';
    }
  }
  const cpus = os.cpus();
  return {
    kernel: os.release().replace(/^(\d+\.\d+\.\d+).*/, '$1'),
    cpus: cpus.length,
    cpuModel: cpus[0]?.model ?? 'unknown',
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    node: process.version,
    versions,
  };
}
