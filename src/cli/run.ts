/**
 * `palimpsest run`: outside of the view.
 *
 * It finds or makes the workspace, starts run-inside.ts in a namespace of its own by unshare(1) (a
 * process with threads, as Node is, cannot enter a user namespace itself), passes signals on, and
 * when all is over, outside and unmounted, shows the changes and does with them as asked.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { isInside } from '../mount/mountinfo.ts';
import { MountError } from '../mount/options.ts';
import { programFile } from '../sys/program-file.ts';
import { realDirectory } from '../mount/plan.ts';
import { ensurePrivateDirectory, runtimeDirectory, spareDirectory } from '../mount/state.ts';
import { EXIT_OURS, EXIT_SIGNAL, ExitError } from './exit.ts';
import { isInteractive, isTerminal, note } from './output.ts';
import type { InsideReport, InsideRequest } from './run-inside.ts';
import type { Workspace } from './workspace.ts';
import { checkName, createWorkspace, extendWorkspace, findWorkspace } from './workspace.ts';

export type OnExit = 'ask' | 'keep' | 'commit' | 'discard';

export interface RunCommandOptions {
  workspace?: string;
  onExit?: OnExit;
  directory?: string;
  cow?: string[];
  env?: string[];
  json?: boolean;
}

interface Place {
  workspace: Workspace;
  /** Where the command runs: real. */
  cwd: string;
  /** Made by this run, without a name asked for: worth keeping only if something changed. */
  temporary: boolean;
}

function refuseRoot(base: string): string {
  if (base === '/') {
    throw new MountError('refused', 'run cannot cover /; name the trees with -C and --cow');
  }
  return base;
}

/** The covered paths: none inside another. */
function basesOf(cwd: string, cow: readonly string[]): string[] {
  const bases = [cwd, ...cow.map((path) => realDirectory(resolve(path), '--cow'))];
  const outer = bases.filter(
    (base, index) =>
      !bases.some((other, at) => isInside(base, other) && (base !== other || at < index)),
  );
  return outer.map(refuseRoot);
}

function resumeWorkspace(workspace: Workspace, cwd: string, options: RunCommandOptions): void {
  const covered = (path: string): boolean =>
    workspace.layers.some((layer) => isInside(path, layer.base));
  if (!covered(cwd)) {
    const bases = workspace.layers.map((layer) => layer.base);
    throw new MountError(
      'refused',
      `the workspace ${workspace.name} covers ${bases.join(', ')}, and ${cwd} is not there: ` +
        `use -C ${bases[0]}, or another workspace`,
    );
  }
  const further = (options.cow ?? [])
    .map((path) => realDirectory(resolve(path), '--cow'))
    .filter((path) => !covered(path));
  for (const path of further) {
    const inner = workspace.layers.find((layer) => isInside(layer.base, path));
    if (inner !== undefined) {
      throw new MountError(
        'refused',
        `--cow ${path} contains ${inner.base}, which is covered already`,
      );
    }
  }
  if (further.length > 0) extendWorkspace(workspace, further.map(refuseRoot));
}

function placeOf(options: RunCommandOptions): Place {
  const cwd = realDirectory(resolve(options.directory ?? '.'), 'directory');
  const name = options.workspace === undefined ? undefined : checkName(options.workspace);
  const existing = name === undefined ? undefined : findWorkspace(name);
  if (existing !== undefined) {
    resumeWorkspace(existing, cwd, options);
    return { workspace: existing, cwd, temporary: false };
  }
  const workspace = createWorkspace(name, basesOf(cwd, options.cow ?? []));
  return { workspace, cwd, temporary: name === undefined };
}

function environmentOf(place: Place, given: readonly string[]): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env };
  for (const pair of given) {
    const equals = pair.indexOf('=');
    if (equals <= 0) throw new MountError('usage', `--env wants NAME=VALUE, not "${pair}"`);
    env[pair.slice(0, equals)] = pair.slice(equals + 1);
  }
  const layer = place.workspace.layers.find((covering) => isInside(place.cwd, covering.base));
  env['PALIMPSEST'] = '1';
  env['PALIMPSEST_WORKSPACE'] = place.workspace.name;
  env['PALIMPSEST_ROOT'] = layer!.base;
  env['PWD'] = place.cwd;
  return env;
}

/** For unshare(1). An ordinary user is in a user namespace already. */
const NAMESPACE = [
  '--mount',
  // slave: what is mounted outside appears, and what is unmounted outside does not live on in here.
  '--propagation',
  'slave',
];

/** Sent by the terminal to everyone in the foreground, so the command has its own copy. */
const TERMINAL_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];
const FORWARDED_SIGNALS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'];

/** Pass signals on to a child for as long as the result is not disposed of. */
export function forwardSignals(child: ChildProcess): Disposable {
  const handlers = new Map<NodeJS.Signals, () => void>();
  const fromTerminal = [0, 1, 2].some(isTerminal);
  for (const signal of TERMINAL_SIGNALS) {
    handlers.set(signal, () => void (fromTerminal || child.kill(signal)));
  }
  for (const signal of FORWARDED_SIGNALS) handlers.set(signal, () => void child.kill(signal));
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return {
    [Symbol.dispose]() {
      for (const [signal, handler] of handlers) process.off(signal, handler);
    },
  };
}

/** Not in the view: the daemons write there while it is mounted. */
function recordDirectoryFor(workspace: Workspace): string {
  const usual = runtimeDirectory();
  if (!workspace.layers.some((layer) => isInside(usual, layer.base))) {
    return ensurePrivateDirectory(usual);
  }
  ensurePrivateDirectory(spareDirectory());
  return ensurePrivateDirectory(join(spareDirectory(), 'run'));
}

async function runInside(
  place: Place,
  command: string[],
  env: NodeJS.ProcessEnv,
): Promise<InsideReport> {
  const directory = recordDirectoryFor(place.workspace);
  const request: InsideRequest = {
    command,
    cwd: place.cwd,
    env,
    workspace: place.workspace.name,
    layers: place.workspace.layers,
    runtimeDirectory: directory,
  };
  const path = join(directory, `run-${randomUUID()}.json`);
  writeFileSync(path, JSON.stringify(request), { mode: 0o600, flag: 'wx' });
  const inside = [process.execPath, programFile(new URL('./run-inside.ts', import.meta.url)), path];
  const child = spawn('unshare', [...NAMESPACE, '--', ...inside], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    cwd: '/',
  });
  using _signals = forwardSignals(child);
  const exit = new Promise<number | null>((done, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => done(code));
  });
  let report: string;
  try {
    [report] = await Promise.all([text(child.stdio[3] as Readable), exit]);
  } catch (error) {
    throw new ExitError(
      EXIT_OURS,
      `cannot start unshare (util-linux): ${(error as Error).message}`,
    );
  } finally {
    if (existsSync(path)) rmSync(path);
  }
  if (report === '') {
    throw new ExitError(EXIT_OURS, noNamespaceMessage());
  }
  return JSON.parse(report) as InsideReport;
}

function noNamespaceMessage(): string {
  if (process.geteuid?.() === 0) return 'the view could not be set up (see above)';
  return (
    'the view could not be set up (see above). Without root it needs ' +
    'read and write permission for /dev/fuse: palimpsest doctor says more'
  );
}

function statusOf(report: InsideReport): number {
  if (report.kind === 'failed') return report.status;
  if (report.signal === null) return report.code ?? EXIT_OURS;
  return EXIT_SIGNAL + constants.signals[report.signal];
}

export async function runCommand(command: string[], options: RunCommandOptions): Promise<number> {
  if (options.onExit === 'ask' && !isInteractive()) {
    throw new MountError('usage', '--on-exit ask needs a terminal; use keep, commit or discard');
  }
  const place = placeOf(options);
  const { afterRun, dropIfUnused, recoverBefore } = await import('./run-exit.ts');
  let report: InsideReport;
  try {
    recoverBefore(place.workspace);
    report = await runInside(place, command, environmentOf(place, options.env ?? []));
  } catch (error) {
    if (place.temporary) await dropIfUnused(place.workspace);
    throw error;
  }
  if (report.kind === 'failed') {
    if (place.temporary) await dropIfUnused(place.workspace);
    throw new ExitError(report.status, report.error);
  }
  for (const problem of report.problems) note(`palimpsest: ${problem}`);
  const status = report.flushed ? statusOf(report) : EXIT_OURS;
  return afterRun(place.workspace, {
    onExit: options.onExit ?? (isInteractive() ? 'ask' : 'keep'),
    status,
    temporary: place.temporary,
    flushed: report.flushed,
    json: options.json === true,
  });
}
