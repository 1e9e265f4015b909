/**
 * What a test has put into the world and must take out again, also when it fails or is stopped:
 * mounts, processes, directories. Taken away newest first.
 *
 * `release` runs one entry early. Whatever is left is undone when the test process ends, for any
 * reason that lets JavaScript run (a SIGTERM of the test runner's time limit included).
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

interface Leftover {
  readonly what: string;
  readonly undo: () => void;
}

const leftovers = new Set<Leftover>();
let armed = false;

export interface Registration {
  /** The thing is gone already: forget about it. */
  release(): void;
}

export function register(what: string, undo: () => void): Registration {
  arm();
  const entry: Leftover = { what, undo };
  leftovers.add(entry);
  return { release: () => void leftovers.delete(entry) };
}

/** Mount, lazily unmounted if nobody does it properly; a FUSE connection is aborted first. */
export function registerMount(mountpoint: string): Registration {
  return register(`mount ${mountpoint}`, () => forceUnmount(mountpoint));
}

export function registerProcess(pid: number): Registration {
  return register(`process ${pid}`, () => killPid(pid, 'SIGKILL'));
}

export function registerDirectory(path: string): Registration {
  return register(`directory ${path}`, () => {
    if (mountsBelow(path).length > 0) {
      process.stderr.write(`kept ${path}: something is still mounted below\n`);
      return;
    }
    fs.rmSync(path, { recursive: true, force: true });
  });
}

/** False if there was no such process any more. */
export function killPid(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'ESRCH') throw e;
    return false;
  }
}

export interface MountInfo {
  readonly mountpoint: string;
  /** `major:minor` of st_dev. */
  readonly dev: string;
  readonly type: string;
}

export function mountTable(): MountInfo[] {
  const lines = fs.readFileSync('/proc/self/mountinfo', 'latin1').trimEnd().split('\n');
  return lines.map((line) => {
    const [left, right] = line.split(' - ');
    const fields = left!.split(' ');
    const mountpoint = fields[4]!.replace(/\\([0-7]{3})/g, (_, o: string) =>
      String.fromCharCode(Number.parseInt(o, 8)),
    );
    return { mountpoint, dev: fields[2]!, type: right!.split(' ')[0]! };
  });
}

export function mountsBelow(path: string): MountInfo[] {
  return mountTable().filter((m) => m.mountpoint === path || m.mountpoint.startsWith(path + '/'));
}

/** Frees every request that waits for a daemon: nobody stays in D state. */
export function abortConnection(mountpoint: string): void {
  const mount = mountTable().find((m) => m.mountpoint === mountpoint && m.type.startsWith('fuse'));
  if (mount === undefined) return;
  const connection = `/sys/fs/fuse/connections/${Number(mount.dev.split(':')[1])}/abort`;
  if (fs.existsSync(connection)) fs.writeFileSync(connection, '1');
}

export function forceUnmount(mountpoint: string): void {
  if (!mountTable().some((m) => m.mountpoint === mountpoint)) return;
  abortConnection(mountpoint);
  spawnSync('umount', ['-l', mountpoint], { timeout: 10_000 });
}

function undoAll(): void {
  for (const entry of [...leftovers].reverse()) {
    leftovers.delete(entry);
    try {
      entry.undo();
    } catch (e) {
      process.stderr.write(`cannot undo ${entry.what}: ${String(e)}\n`);
    }
  }
}

function arm(): void {
  if (armed) return;
  armed = true;
  process.on('exit', undoAll);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(1));
  }
}
