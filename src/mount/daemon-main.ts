/**
 * The daemon of one mount: the process's main thread. It is given the path of its plan (JSON, which it
 * removes); says on descriptor 3, if that is there, one line: ready, or what is wrong.
 *
 * It keeps what needs an event loop: signals, the control socket, the log, NOTIFY records. The engine
 * worker owns the filesystem (engine-worker.ts).
 *
 * D1. It says ready only after a request has gone through the kernel, the engine and a branch.
 * D2. It ends only after the engine has flushed and closed everything, with status 0 if all that was
 *     accepted got to the branches, else 1; the control socket says why.
 * D3. SIGTERM and SIGINT unmount. A mount in use is detached: it disappears from the tree, and the
 *     daemon goes when the last user has. A second signal ends the connection under them.
 * D4. Its working directory is /, and it holds no descriptor in its own mount.
 * D5. A daemon of `run` ends when the process that started it has died (its standard input ends) or on
 *     a signal, but not before every process of the view has: their next write by path would go to the
 *     real tree.
 */
import { closeSync, fstatSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { MessagePort, Worker } from 'node:worker_threads';
import { errnoName, Errno } from '../abi/errno.ts';
import { errnoOf } from '../kernel/error.ts';
import { eventfd, eventfdSignal } from '../sys/poll.ts';
import { MNT_DETACH, tryUmount2, UMOUNT_NOFOLLOW } from '../sys/mount.ts';
import { ControlServer } from './control.ts';
import { flushMount } from './flush.ts';
import { bytesPath } from './paths.ts';
import type {
  EngineCommand,
  EngineMessage,
  EngineOrders,
  StartedEngine,
} from './engine-protocol.ts';
import { raiseReadahead } from './readahead.ts';
import { BranchLocks } from './lock.ts';
import { namespaceUsers } from './namespace-users.ts';
import { MountError } from './options.ts';
import type { MountPlan } from './plan.ts';
import { type MountRecord, processStart, removeRecord, socketPath, writeRecord } from './state.ts';

const READY_FD = 3;
/** The kernel gives a connection this long to answer INIT and the first GETATTR before we give up. */
const READY_MS = 60_000;
const VIEW_POLL_MS = 200;

const log = (text: string): void => {
  process.stderr.write(`${new Date().toISOString()} ${text}\n`);
};

class Daemon {
  readonly #plan: MountPlan;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #wakeFd = eventfd();
  readonly #replies = new Map<number, (message: EngineMessage & { kind: 'reply' }) => void>();
  #nextId = 1;
  #fuseFd = -1;
  #detached = false;
  #error: string | undefined;
  readonly #mounted = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();

  constructor(plan: MountPlan, { worker, port }: StartedEngine) {
    this.#plan = plan;
    this.#worker = worker;
    this.#port = port;
    this.#worker.on('message', (message: EngineMessage) => this.#hear(message));
    this.#worker.on('error', (error) =>
      this.#fail(`engine: ${error instanceof Error ? error.stack : String(error)}`),
    );
    this.#worker.on('exit', () => this.#engineGone());
    this.#port.postMessage({ plan, wakeFd: this.#wakeFd } satisfies EngineOrders);
  }

  #hear(message: EngineMessage): void {
    switch (message.kind) {
      case 'mounted':
        this.#fuseFd = message.fd;
        this.#mounted.resolve();
        return;
      case 'reply':
        this.#replies.get(message.id)?.(message);
        this.#replies.delete(message.id);
        return;
      case 'notify':
        this.#notify(message.record);
        return;
      case 'log':
        log(message.text);
        return;
      case 'ended':
        if (message.error !== undefined) this.#fail(message.error);
        return;
      default:
        message satisfies never;
    }
  }

  /** ENOENT: the kernel does not know the node, so it has nothing to forget. */
  #notify(record: Uint8Array): void {
    try {
      writeSync(this.#fuseFd, record);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ENODEV' && code !== 'ENOTCONN') {
        log(`notify: ${String(error)}`);
      }
    }
  }

  #fail(error: string): void {
    this.#error ??= error;
    log(error);
  }

  /** Whatever way it went: nobody may wait for it. */
  #engineGone(): void {
    if (this.#fuseFd >= 0) {
      // Closing the last descriptor ends the connection: waiting programs get ENOTCONN, not a hang.
      closeSync(this.#fuseFd);
      this.#fuseFd = -1;
    }
    this.#mounted.reject(new MountError('failed', this.#error ?? 'the engine ended'));
    this.#ended.resolve();
  }

  async mountedOrEnded(): Promise<void> {
    await Promise.allSettled([this.#mounted.promise]);
  }

  /** Mounted and answering (D1). */
  async start(): Promise<void> {
    await this.#mounted.promise;
    const before = stat(this.#plan.target);
    const timeout = AbortSignal.timeout(READY_MS);
    const slow = new Promise<never>((_, reject) => {
      timeout.addEventListener('abort', () =>
        reject(new MountError('failed', 'no answer to the first request')),
      );
    });
    const gone = this.#ended.promise.then(() => {
      throw new MountError('failed', this.#error ?? 'the engine ended');
    });
    gone.catch(() => undefined);
    slow.catch(() => undefined);
    const root = await Promise.race([before, slow, gone]);
    raiseReadahead(root.dev);
  }

  #ask(kind: EngineCommand['kind']): Promise<unknown> {
    const id = this.#nextId++;
    const command: EngineCommand = { kind, id };
    return new Promise((resolve, reject) => {
      this.#replies.set(id, (message) => {
        if (message.error === undefined) resolve(message.result);
        else reject(new Error(message.error));
      });
      this.#port.postMessage(command);
      eventfdSignal(this.#wakeFd);
      void this.#ended.promise.then(() => reject(new Error('the engine ended')));
    });
  }

  async handle(command: string): Promise<unknown> {
    switch (command) {
      case 'ping':
        return { pid: process.pid };
      case 'status':
        return {
          target: this.#plan.target,
          pid: process.pid,
          ...((await this.#ask('status')) as object),
        };
      case 'sync':
        await flushMount(this.#plan.target);
        await this.#ask('sync');
        return {};
      default:
        throw new Error(`unknown command "${command}"`);
    }
  }

  /** D3. umount(2) waits for the write-back that the engine, another thread, takes meanwhile. */
  stop(signal: string): void {
    log(`${signal}: unmounting ${this.#plan.target}`);
    if (this.#detached) {
      log('asked again: ending the connection under its users');
      this.#port.postMessage({ kind: 'stop', id: 0 } satisfies EngineCommand);
      eventfdSignal(this.#wakeFd);
      return;
    }
    const target = bytesPath(this.#plan.target);
    let result = tryUmount2(target, UMOUNT_NOFOLLOW);
    if (result === -Errno.EBUSY) {
      log('in use: detached; the daemon stays until its last user has gone');
      result = tryUmount2(target, UMOUNT_NOFOLLOW | MNT_DETACH);
      this.#detached = true;
    }
    // EINVAL: not mounted any more; the engine knows already.
    if (result < 0 && result !== -Errno.EINVAL) log(`umount: ${errnoName(-result)}`);
  }

  async ended(): Promise<string | undefined> {
    await this.#ended.promise;
    return this.#error;
  }
}

function readPlan(): MountPlan {
  const path = process.argv[2];
  if (path === undefined) throw new Error('usage: daemon PLAN');
  const plan = JSON.parse(readFileSync(path, 'utf8')) as MountPlan;
  rmSync(path);
  return plan;
}

function recordOf(plan: MountPlan): MountRecord {
  return {
    version: 1,
    plan,
    pid: process.pid,
    pidStart: processStart(process.pid)!,
    mountNamespace: String(statSync('/proc/self/ns/mnt').ino),
    socket: socketPath(plan.runtimeDirectory, process.pid),
    started: new Date().toISOString(),
  };
}

function hasReadyFd(): boolean {
  try {
    return fstatSync(READY_FD).isFIFO() || fstatSync(READY_FD).isSocket();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBADF') return false;
    throw error;
  }
}

function say(
  ready: boolean,
  answer: { ok: true; pid: number } | { ok: false; error: string },
): void {
  if (ready) {
    writeSync(READY_FD, `${JSON.stringify(answer)}\n`);
    closeSync(READY_FD);
  } else if (!answer.ok) {
    process.stderr.write(`palimpsest: ${answer.error}\n`);
  }
}

/** D5. */
function stopAfterView(daemon: Daemon, why: string): void {
  log(`${why}: waiting for the processes of the view`);
  const timer = setInterval(() => {
    if (namespaceUsers().length > 0) return;
    clearInterval(timer);
    daemon.stop(why);
  }, VIEW_POLL_MS);
}

function endWithStarter(daemon: Daemon): void {
  process.stdin.on('error', (error) => log(`standard input: ${error.message}`));
  process.stdin.on('close', () => stopAfterView(daemon, 'whoever started this has died'));
  process.stdin.resume();
}

const messageOf = (error: unknown): string => {
  if (error instanceof MountError) return error.message;
  const errno = errnoOf(error);
  if (errno !== undefined) return errnoName(errno);
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
};

/** The exit status. */
export async function runDaemon(engine: StartedEngine): Promise<number> {
  const hasReady = hasReadyFd();
  let plan: MountPlan;
  let locks: BranchLocks;
  try {
    plan = readPlan();
    locks = new BranchLocks(plan.branches);
  } catch (error) {
    say(hasReady, { ok: false, error: messageOf(error) });
    return 32;
  }
  process.chdir('/');
  process.title = `palimpsest ${plan.target}`;
  const daemon = new Daemon(plan, engine);
  const record = recordOf(plan);
  const control = new ControlServer(record.socket, (request) => daemon.handle(request.command));
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (plan.workspace === undefined) daemon.stop(signal);
      else stopAfterView(daemon, signal);
    });
  }
  if (plan.workspace !== undefined) endWithStarter(daemon);
  process.on('SIGHUP', () => log('SIGHUP: nothing to reread'));
  try {
    await control.ready();
    await daemon.start();
    writeRecord(record);
  } catch (error) {
    log(`failed start: ${messageOf(error)}`);
    // What is not mounted yet cannot be unmounted: it would be mounted afterwards, and stay.
    await daemon.mountedOrEnded();
    daemon.stop('failed start');
    const why = (await daemon.ended()) ?? messageOf(error);
    await control.end({ event: 'ended', error: why });
    removeRecord(record);
    // Before it is said: whoever hears it may try again at once.
    locks.release();
    say(hasReady, { ok: false, error: why });
    return 32;
  }
  say(hasReady, { ok: true, pid: process.pid });
  log(`mounted ${plan.source} at ${plan.target}`);
  const error = await daemon.ended();
  log(error === undefined ? 'unmounted' : `unmounted, with errors: ${error}`);
  locks.release();
  removeRecord(record);
  await control.end(error === undefined ? { event: 'ended' } : { event: 'ended', error });
  return error === undefined ? 0 : 1;
}
