/**
 * The engine thread of a mount: opens the branches, makes the union, mounts it, serves it until it is
 * unmounted, then flushes and closes. See daemon.ts for the other side.
 *
 * W1. Branches are opened before the mount: what is mounted over them is not seen from here.
 * W2. Nothing here waits for the main thread, which may be waiting in umount(2) for us.
 * W3. A failure to flush is told, never swallowed: it is the last chance that anyone hears of it.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { BranchSpec } from '../fs/union/branch.ts';
import { hostProcess } from '../fs/host/host-process.ts';
import { type UnionFs, openUnion } from '../fs/union/union.ts';
import { markVolatile } from '../fs/union/volatile.ts';
import { mountFuse } from '../fuse/mount.ts';
import { Session } from '../fuse/session.ts';
import { FsError, errnoOf } from '../kernel/error.ts';
import { runSync } from '../kernel/task.ts';
import { Closer } from '../sys/closer.ts';
import { tryEventfdDrain } from '../sys/poll.ts';
import { openBranch } from './branches.ts';
import { collectGarbage } from './collect.ts';
import type { EngineCommand, EngineData, EngineMessage, EngineOrders } from './engine-protocol.ts';
import { bytesPath } from './paths.ts';
import type { MountPlan } from './plan.ts';

const { port } = workerData as EngineData;
/** Nothing is touched before: the main thread locks the branches first. */
const { plan, wakeFd } = await new Promise<EngineOrders>((resolve) =>
  port.once('message', resolve),
);

/** What removed files hold is given back beside the requests. */
const closer = new Closer();
hostProcess(closer);

const tell = (message: EngineMessage): void => parentPort!.postMessage(message);
const log = (text: string): void => tell({ kind: 'log', text });

/** `branch /srv/base: EACCES`: for people. A bug keeps its stack. */
function describe(what: string, error: unknown): string {
  if (errnoOf(error) !== undefined) return `${what}: ${(error as FsError).message}`;
  return `${what}: ${error instanceof Error ? error.stack : String(error)}`;
}

class StepError extends Error {}

/** Say which step failed. */
function step<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new StepError(describe(what, error));
  }
}

function openBranches(): BranchSpec[] {
  return plan.branches.map((branch) =>
    step(`cannot open branch ${branch.path}`, () => openBranch(branch, plan)),
  );
}

function flagsOf(mount: MountPlan): Record<string, boolean> {
  const options: Record<string, boolean> = {
    allowOther: mount.allowOther,
    readOnly: mount.readOnly,
  };
  for (const flag of ['nosuid', 'nodev', 'noexec', 'noatime']) {
    if (mount.flags.includes(flag)) options[flag] = true;
  }
  return options;
}

function mountUnion(): number {
  return step(`cannot mount at ${plan.target}`, () =>
    mountFuse({
      target: bytesPath(plan.target),
      source: bytesPath(plan.source),
      subtype: 'palimpsest',
      options: flagsOf(plan),
    }),
  );
}

class Engine {
  readonly #union: UnionFs;
  readonly #session: Session;

  constructor(union: UnionFs, fd: number) {
    this.#union = union;
    const wake = { fd: wakeFd, onReadable: () => this.#hear() };
    const beneath = union.beneath.sources.map((source) => ({
      fd: source.fd,
      onReadable: () => union.beneath.drain(),
    }));
    this.#session = new Session(union, {
      fd,
      dataMode: plan.passthrough ? 'passthrough' : 'writeback',
      readOnly: plan.readOnly,
      notify: (record) => tell({ kind: 'notify', record }),
      complain: log,
      collect: collectGarbage,
      extraPoll: [wake, ...beneath],
      beforeSleep: () => closer.wake(),
      ...(plan.debug ? { debug: log } : {}),
    });
    union.beneath.invalidation = {
      entry: (parent, name) => this.#session.invalidateEntry(parent, name),
      inode: (inode) => this.#session.invalidateInode(inode),
    };
  }

  run(): Promise<void> {
    return this.#session.run();
  }

  /** Take every command there is: the eventfd says at least one, not how many. */
  #hear(): void {
    tryEventfdDrain(wakeFd);
    for (;;) {
      const received = receiveMessageOnPort(port) as { message: EngineCommand } | undefined;
      if (received === undefined) return;
      this.#obey(received.message);
    }
  }

  #obey({ kind, id }: EngineCommand): void {
    if (kind === 'stop') {
      this.#session.stop();
      return;
    }
    try {
      tell({ kind: 'reply', id, result: kind === 'sync' ? this.#sync() : this.#status() });
    } catch (error) {
      tell({ kind: 'reply', id, error: describe(kind, error) });
    }
  }

  #sync(): object {
    runSync(this.#union.syncfs());
    return {};
  }

  #status(): object {
    const { heapUsed, rss } = process.memoryUsage();
    return {
      requests: this.#session.counters,
      union: this.#union.counters,
      knownNodes: this.#session.knownNodes,
      knownInodes: this.#union.inodes.size,
      watchedDirectories: this.#union.beneath.watchedCount,
      coherent: this.#union.coherent,
      memory: { heapUsed, rss },
    };
  }
}

/** Why not everything is on the branches, or undefined. */
async function serve(): Promise<string | undefined> {
  const specs = openBranches();
  const { metacopy, volatile } = plan;
  const union = step('cannot make the union', () =>
    runSync(openUnion(specs, { metacopy, volatile })),
  );
  if (volatile) step('cannot mark the branches volatile', () => runSync(markVolatile(union)));
  let problem: string | undefined;
  try {
    const fd = mountUnion();
    tell({ kind: 'mounted', fd });
    await new Engine(union, fd).run();
  } catch (error) {
    problem = error instanceof StepError ? error.message : describe('engine', error);
  }
  try {
    runSync(union.unmount());
  } catch (error) {
    problem ??= describe('flushing the branches', error);
  }
  return problem;
}

try {
  const problem = await serve();
  tell(problem === undefined ? { kind: 'ended' } : { kind: 'ended', error: problem });
} catch (error) {
  const text = error instanceof StepError ? error.message : describe('engine', error);
  tell({ kind: 'ended', error: text });
}
port.close();
