/**
 * `palimpsest run`: inside the view. Started by run.ts through unshare(1), in a mount namespace that
 * nobody else is in; gets its request as the path of a JSON file, answers on descriptor 3.
 *
 * I1. The command starts only when every covered path is mounted and answering.
 * I2. Nothing is unmounted while a process of the view is left: its next write by path would go to the
 *     real tree. So what the command leaves behind is stopped first.
 * I3. The command gets no more rights than the caller of `run` has: the capabilities that are ours in
 *     the user namespace are taken from it.
 * I4. It answers only after the daemons have gone: what it says of the flush is final.
 */
import { spawn } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { delimiter, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MountError, emptyRequest } from '../mount/options.ts';
import { namespaceUsers } from '../mount/namespace-users.ts';
import { planMount } from '../mount/plan.ts';
import { logPath, startDaemon } from '../mount/start.ts';
import { unmount } from '../mount/stop.ts';
import { EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OURS } from './exit.ts';
import { forwardSignals } from './run.ts';
import type { WorkspaceLayer } from './workspace.ts';

export interface InsideRequest {
  command: string[];
  cwd: string;
  env: NodeJS.ProcessEnv;
  workspace: string;
  layers: WorkspaceLayer[];
  runtimeDirectory: string;
}

export type InsideReport =
  | { kind: 'failed'; status: number; error: string }
  | {
      kind: 'ended';
      code: number | null;
      signal: NodeJS.Signals | null;
      /** Everything that was written is in the upper. */
      flushed: boolean;
      /** Sentences for the user. */
      problems: string[];
    };

const REPORT_FD = 3;
/** Processes left behind get this long to end themselves after SIGTERM. */
const LEFTOVER_GRACE_MS = 3000;
const LEFTOVER_POLL_MS = 20;
/** After SIGKILL: longer only if one hangs in the kernel. */
const LEFTOVER_KILL_MS = 10_000;

class CannotRun extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** All of them or none. */
async function mountLayers(request: InsideRequest): Promise<void> {
  const mounted: WorkspaceLayer[] = [];
  try {
    for (const layer of request.layers) {
      await mountLayer(request, layer);
      mounted.push(layer);
    }
  } catch (error) {
    await unmountLayers(mounted);
    throw error;
  }
}

async function mountLayer(request: InsideRequest, layer: WorkspaceLayer): Promise<void> {
  const mount = emptyRequest();
  // In a namespace of its own: nobody but the command and its children is there.
  mount.allowOther = true;
  mount.branches = [
    { path: layer.upper, mode: 'rw', work: layer.work },
    { path: layer.base, mode: 'ro' },
  ];
  const plan = planMount(mount, {
    target: layer.base,
    debug: false,
    runtimeDirectory: request.runtimeDirectory,
    log: logPath(request.runtimeDirectory, `${request.workspace}:${layer.base}`),
    workspace: request.workspace,
  });
  await startDaemon(plan);
}

/** As execvp(3) and a shell would find it: the statuses 126 and 127 depend on it. */
function findProgram(request: InsideRequest): void {
  const [program] = request.command;
  const places = program!.includes('/')
    ? [resolve(request.cwd, program!)]
    : (request.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin')
        .split(delimiter)
        .map((directory) => resolve(request.cwd, directory, program!));
  let status = EXIT_NOT_FOUND;
  for (const path of places) {
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return;
      status = EXIT_NOT_EXECUTABLE;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === undefined) throw error;
      if (code === 'EACCES') status = EXIT_NOT_EXECUTABLE;
    }
  }
  const why = status === EXIT_NOT_FOUND ? 'not found' : 'not executable';
  throw new CannotRun(status, `${program}: ${why}`);
}

/** I3. Root outside has its rights inside; the namespace's root powers are ours, not the command's. */
function withoutCapabilities(command: readonly string[]): string[] {
  if (process.geteuid?.() === 0) return [...command];
  return ['setpriv', '--inh-caps=-all', '--ambient-caps=-all', '--', ...command];
}

function runCommand(request: InsideRequest): Promise<[number | null, NodeJS.Signals | null]> {
  const [program, ...args] = withoutCapabilities(request.command);
  const child = spawn(program!, args, {
    cwd: request.cwd,
    env: request.env,
    stdio: ['inherit', 'inherit', 'inherit', 'ignore'],
  });
  const signals = forwardSignals(child);
  return new Promise((done, reject) => {
    child.once('error', (error) => {
      signals[Symbol.dispose]();
      reject(new CannotRun(EXIT_NOT_EXECUTABLE, `${program}: ${error.message}`));
    });
    child.once('exit', (code, signal) => {
      signals[Symbol.dispose]();
      done([code, signal]);
    });
  });
}

const commandName = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return 'process';
  }
};

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ESRCH' && code !== 'EPERM') throw error;
    }
  }
}

/** I2. The names of what had to be stopped. */
async function stopLeftovers(): Promise<string[]> {
  const stopped = new Map<number, string>();
  const waits: [NodeJS.Signals, number][] = [
    ['SIGTERM', LEFTOVER_GRACE_MS],
    ['SIGKILL', LEFTOVER_KILL_MS],
  ];
  for (const [signal, forMs] of waits) {
    for (let waited = 0; waited < forMs; waited += LEFTOVER_POLL_MS) {
      const left = namespaceUsers();
      if (left.length === 0) return [...stopped.values()];
      const fresh = signal === 'SIGKILL' ? left : left.filter((pid) => !stopped.has(pid));
      for (const pid of fresh) stopped.set(pid, commandName(pid));
      signalAll(fresh, signal);
      await sleep(LEFTOVER_POLL_MS);
    }
  }
  return [...stopped.values()];
}

/** Unmount all, the last one first. The problems met: none means that everything is on disk. */
async function unmountLayers(layers: readonly WorkspaceLayer[]): Promise<string[]> {
  const problems: string[] = [];
  for (const layer of layers.toReversed()) {
    try {
      await unmount(layer.base, { lazy: false, force: false, timeoutMs: 0 });
    } catch (error) {
      if (!(error instanceof MountError)) throw error;
      problems.push(error.message);
    }
  }
  return problems;
}

async function inside(request: InsideRequest): Promise<InsideReport> {
  await mountLayers(request);
  let ended: [number | null, NodeJS.Signals | null];
  try {
    findProgram(request);
    ended = await runCommand(request);
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    await unmountLayers(request.layers);
    return { kind: 'failed', status: error.status, error: error.message };
  }
  const [code, signal] = ended;
  // From here on a signal must not keep us from putting everything away.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)
    process.on(name, () => undefined);
  const stopped = await stopLeftovers();
  const flushProblems = await unmountLayers(request.layers);
  const problems = [...flushProblems];
  if (stopped.length > 0)
    problems.unshift(`stopped what the command left running: ${stopped.join(', ')}`);
  return { kind: 'ended', code, signal, flushed: flushProblems.length === 0, problems };
}

function readRequest(): InsideRequest {
  const path = process.argv[2]!;
  const request = JSON.parse(readFileSync(path, 'utf8')) as InsideRequest;
  rmSync(path);
  return request;
}

async function main(): Promise<void> {
  let report: InsideReport;
  try {
    report = await inside(readRequest());
  } catch (error) {
    const message = error instanceof MountError ? error.message : String((error as Error).stack);
    report = { kind: 'failed', status: EXIT_OURS, error: message };
  }
  writeSync(REPORT_FD, JSON.stringify(report));
  closeSync(REPORT_FD);
}

await main();
process.exit(0);
