/** Start a daemon for a plan, and wait until it has said ready or what is wrong. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, ftruncateSync, fstatSync, openSync, writeFileSync } from 'node:fs';
import { getCompileCacheDir } from 'node:module';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { MountError } from './options.ts';
import { programFile } from '../sys/program-file.ts';
import type { MountPlan } from './plan.ts';
import { ensurePrivateDirectory, targetKey } from './state.ts';

/** A log that has grown beyond this is begun anew at the next mount. */
const LOG_BYTES_MAX = 1 << 20;

export const logPath = (runtimeDirectory: string, target: string): string =>
  join(runtimeDirectory, `${targetKey(target)}.log`);

function openLog(path: string): number {
  const fd = openSync(path, 'a', 0o600);
  if (fstatSync(fd).size > LOG_BYTES_MAX) ftruncateSync(fd);
  return fd;
}

/**
 * V8's, for both threads: they cannot be changed once it runs. A young space of 2 MiB a half, where 32
 * is the default: what the engine allocates for a request is garbage at its end, so a small space is
 * emptied as cheaply, and is not 64 MiB of a daemon's memory. The old space is collected when it has grown
 * by a fifth: a million inodes would else lie among half as much garbage. `gc` is for collect.ts. See
 * docs/decisions/0006-memory-of-known-inodes.md.
 */
const V8_FLAGS = ['--expose-gc', '--max-semi-space-size=2', '--heap-growing-percent=20'];

/** Node's arguments to start a daemon with this plan. The daemon removes the file. */
export function daemonArguments(plan: MountPlan): string[] {
  ensurePrivateDirectory(plan.runtimeDirectory);
  const path = join(plan.runtimeDirectory, `plan-${randomUUID()}.json`);
  writeFileSync(path, JSON.stringify(plan), { mode: 0o600, flag: 'wx' });
  return [...V8_FLAGS, programFile(new URL('./daemon.ts', import.meta.url)), path];
}

/**
 * Threads for host calls that may take long, fsync above all. One of them waits for /dev/fuse while any
 * other call is under way: with libuv's four, a handful of slow syncs would stop every request.
 */
const POOL_THREADS = '16';

/** Ours, with the compile cache that this process uses, if any: half of the start is compiling. */
export function daemonEnvironment(): NodeJS.ProcessEnv {
  const cache = getCompileCacheDir();
  const environment = { UV_THREADPOOL_SIZE: POOL_THREADS, ...process.env };
  if (cache === undefined) return environment;
  // What it gives is the directory of this version of Node, inside of the one that was set.
  return { ...environment, NODE_COMPILE_CACHE: dirname(cache) };
}

export interface StartedDaemon {
  pid: number;
}

/** In the background. Errors: MountError `failed` or `refused` with the daemon's own words. */
export async function startDaemon(plan: MountPlan): Promise<StartedDaemon> {
  const args = daemonArguments(plan);
  const log = openLog(plan.log);
  const child = spawn(process.execPath, args, {
    detached: true,
    cwd: '/',
    env: daemonEnvironment(),
    // The pipe ends when this process does, however it does.
    stdio: [plan.workspace === undefined ? 'ignore' : 'pipe', log, log, 'pipe'],
  });
  closeSync(log);
  const answer = await readyLine(child.stdio[3] as Readable, child);
  child.unref();
  (child.stdin as Socket | null)?.unref();
  if (answer === undefined) {
    throw new MountError('failed', `the daemon ended before it was ready; see ${plan.log}`);
  }
  const ready = JSON.parse(answer) as { ok: true; pid: number } | { ok: false; error: string };
  if (!ready.ok) throw new MountError('failed', ready.error);
  return { pid: ready.pid };
}

function readyLine(pipe: Readable, child: ReturnType<typeof spawn>): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: pipe });
    lines.once('line', (line) => {
      resolve(line);
      lines.close();
      pipe.destroy();
    });
    lines.once('close', () => resolve(undefined));
    child.once('error', reject);
  });
}
