/**
 * A session: serves one mount from its /dev/fuse descriptor until it is unmounted.
 *
 * The engine thread has two states:
 *  - *alone*: no request waits for host I/O. The thread blocks in read(2) (or, if there are other
 *    descriptors to watch, in idle-wait.ts) and serves what comes on the spot. The event loop does not
 *    turn: a round trip is one read and one write.
 *  - *beside*: some requests wait for host calls on other threads. The event loop turns, so that their
 *    completions arrive; /dev/fuse is read without blocking, and when it is empty a thread of the pool
 *    waits in poll(2) for it. One slow fsync so stops nobody else.
 * In both states an idle session uses no processor time, but for one collection of garbage after many
 * inodes were forgotten (give-back.ts).
 *
 * L1. A request slot belongs to its request until the reply is written. The next read goes into
 *     another slot if the last request is still being served.
 * L2. In the state beside, and whenever others are watched, the descriptor is non-blocking: a request
 *     that poll(2) has seen may be gone, because its caller was killed, before read(2) comes for it.
 * L3. At most PARKED_MAX requests wait at one time; then nothing is read until one ends.
 * L4. When the session ends, requests that still wait are waited for: they hold the filesystem.
 *
 * Left out: more than one reading thread; io_uring (measured: no gain). cf. fs/fuse/dev.c
 */
import { randomFillSync } from 'node:crypto';
import { Errno, errnoName } from '../abi/errno.ts';
import { start, type Completion } from '../kernel/task.ts';
import {
  pollReadable,
  setNonblocking,
  tryBackingClose,
  tryBackingOpen,
  writeRecord,
} from '../sys/fuse-device.ts';
import { tryRead, tryWrite } from '../sys/io.ts';
import { eventfd, eventfdSignal, POLLIN, PollSet } from '../sys/poll.ts';
import { CAP_FSETID, tryWithoutCapability } from '../sys/process.ts';
import { tryClose } from '../sys/open.ts';
import type { FileSystem, Inode, Name } from '../vfs/inode-operations.ts';
import { dispatch, errorOutcome, finishReply, isSilent, takeBack } from './dispatch.ts';
import { Door, type DoorCounters } from './door.ts';
import type { DataMode } from './init.ts';
import { GiveBack } from './give-back.ts';
import { IdleWait } from './idle-wait.ts';
import { PARKED_MAX, TURN_REQUESTS } from './limits.ts';
import {
  invalidateAttributesRecord,
  invalidateEntryRecord,
  invalidateInodeRecord,
} from './notify.ts';
import { Request } from './request.ts';

export interface SessionOptions {
  /** The descriptor of /dev/fuse that was mounted. The session does not close it. */
  fd: number;
  dataMode: DataMode;
  readOnly: boolean;
  /** Every request and reply, a line each. */
  debug?: (line: string) => void;
  /** What should not happen. Default: process.emitWarning. */
  complain?: (line: string) => void;
  /** Hands a NOTIFY record to another thread, which write(2)s it to the descriptor. */
  notify: (record: Uint8Array) => void;
  /** The kernel and we have agreed: the mount can be used. */
  onReady?: () => void;
  /** Free memory that is not reachable any more; called when idle (give-back.ts). */
  collect?: () => void;
  /** Descriptors to watch beside; `onReadable` must take what made it readable. */
  extraPoll?: readonly { readonly fd: number; readonly onReadable: () => void }[];
  /** The session is about to wait for longer than a request takes: time for what was put off. */
  beforeSleep?: () => void;
}

/** One request slot and where it is in its life. */
class Service implements Completion<number> {
  readonly request = new Request();
  /** Begun and not answered. */
  busy = false;
  /** The engine has gone on to others while this waits. */
  parked = false;
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  done(outcome: number): void {
    this.#session.answer(this, outcome);
  }

  failed(error: unknown): void {
    this.#session.answer(this, this.#session.outcomeOf(this, error));
  }
}

export class Session {
  readonly #door: Door;
  readonly #options: SessionOptions;
  readonly #fd: number;
  readonly #extra: NonNullable<SessionOptions['extraPoll']>;
  readonly #pollSet: PollSet;
  readonly #idleWait: IdleWait;
  readonly #giveBack: GiveBack;
  /** Ends the poll(2) that a pool thread may still be in when the session is over. */
  readonly #endFd: number;

  #nonblocking = false;
  #stopping = false;
  #ended = false;
  #ready = false;
  /** Slots in no request's hands. */
  readonly #idle: Service[] = [];
  #parkedCount = 0;
  /** A pool thread waits in poll(2). */
  #polling = false;
  /** Resumes the state beside. */
  #wake: (() => void) | undefined;

  constructor(fs: FileSystem, options: SessionOptions) {
    this.#options = options;
    this.#fd = options.fd;
    this.#extra = options.extraPoll ?? [];
    this.#pollSet = new PollSet(1 + this.#extra.length);
    this.#pollSet.set(0, this.#fd, POLLIN);
    this.#idleWait = new IdleWait(this.#pollSet, options.beforeSleep);
    this.#extra.forEach((extra, i) => this.#pollSet.set(i + 1, extra.fd, POLLIN));
    this.#endFd = eventfd();
    const key = randomFillSync(new Uint32Array(2));
    this.#door = new Door(fs, {
      dataMode: options.dataMode,
      readOnly: options.readOnly,
      hashKey: [key[0]!, key[1]!],
      debug: options.debug,
      backing: {
        open: (fd) => tryWithoutCapability(CAP_FSETID, () => tryBackingOpen(this.#fd, fd)),
        close: (backingId) => void tryBackingClose(this.#fd, backingId),
      },
      complain: options.complain ?? ((line) => process.emitWarning(line)),
      notify: options.notify,
      notifyAndWait: (record) => writeRecord(this.#fd, record),
    });
    this.#giveBack = new GiveBack(this.#door.nodes, options.collect ?? (() => undefined));
  }

  get counters(): DoorCounters {
    return this.#door.counters;
  }

  /** Inodes that the kernel knows. */
  get knownNodes(): number {
    return this.#door.nodes.size;
  }

  /** Serve until unmounted, aborted or stopped. What still waits then is waited for. */
  async run(): Promise<void> {
    try {
      while (!this.#ended && !this.#stopping) {
        if (this.#parkedCount === 0) this.#serveAlone();
        else await this.#serveBeside();
      }
      while (this.#parkedCount > 0) await this.#sleep();
    } finally {
      eventfdSignal(this.#endFd);
      // The pool thread holds the number: it is closed when that has come back.
      if (!this.#polling) tryClose(this.#endFd);
      this.#door.nodes.clear();
    }
  }

  /** Stop before the next request: call it from `onReadable` or from a filesystem. */
  stop(): void {
    this.#stopping = true;
    this.#wake?.();
  }

  /** What is under a name has changed beneath: the kernel looks it up again. */
  invalidateEntry(parent: Inode, name: Name): void {
    this.#door.listings.drop(parent);
    const nodeid = this.#door.nodes.idOf(parent);
    if (nodeid !== undefined) this.#options.notify(invalidateEntryRecord(nodeid, name));
  }

  /** Data and attributes of an inode have changed beneath: the kernel drops what it cached. */
  invalidateInode(inode: Inode): void {
    this.#door.listings.drop(inode);
    const nodeid = this.#door.nodes.idOf(inode);
    if (nodeid !== undefined) this.#options.notify(invalidateInodeRecord(nodeid));
  }

  /** Only the attributes have changed. */
  invalidateAttributes(inode: Inode): void {
    const nodeid = this.#door.nodes.idOf(inode);
    if (nodeid !== undefined) this.#options.notify(invalidateAttributesRecord(nodeid));
  }

  // -- the two states --

  #serveAlone(): void {
    const watching = this.#extra.length > 0;
    this.#setNonblocking(watching);
    while (this.#parkedCount === 0 && !this.#ended && !this.#stopping) {
      if (watching) {
        if (this.#idleWait.wait(this.#giveBack.idleMs) === 0) {
          this.#giveBack.rest();
          continue;
        }
        this.#tellReadable();
        if (this.#pollSet.revents(0) === 0) continue;
      }
      this.#serveOne();
    }
  }

  async #serveBeside(): Promise<void> {
    this.#setNonblocking(true);
    while (this.#parkedCount > 0 && !this.#ended && !this.#stopping) {
      if (this.#extra.length > 0 && this.#pollSet.wait(0) > 0) this.#tellReadable();
      let served = 0;
      while (served < TURN_REQUESTS && this.#parkedCount < PARKED_MAX && this.#serveOne()) served++;
      if (this.#ended || this.#stopping) return;
      if (served === TURN_REQUESTS) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        continue;
      }
      if (this.#parkedCount === 0) return;
      if (this.#parkedCount < PARKED_MAX) this.#pollBeside();
      await this.#sleep();
    }
  }

  /** Until a parked request is answered, or poll(2) has seen something. */
  #sleep(): Promise<void> {
    this.#options.beforeSleep?.();
    return new Promise<void>((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  #pollBeside(): void {
    if (this.#polling) return;
    this.#polling = true;
    const fds = [this.#fd, this.#endFd, ...this.#extra.map((extra) => extra.fd)];
    const seen = (): void => {
      this.#polling = false;
      if (this.#ended || this.#stopping) tryClose(this.#endFd);
      this.#wake?.();
    };
    start(pollReadable(fds), { done: seen, failed: seen });
  }

  #tellReadable(): void {
    this.#extra.forEach((extra, i) => {
      if (this.#pollSet.revents(i + 1) !== 0) extra.onReadable();
    });
  }

  #setNonblocking(on: boolean): void {
    if (this.#nonblocking === on) return;
    setNonblocking(this.#fd, on);
    this.#nonblocking = on;
  }

  // -- one request --

  /** Read and serve one request. False: there was none. */
  #serveOne(): boolean {
    const service = this.#idle.pop() ?? new Service(this);
    const { request } = service;
    const length = tryRead(this.#fd, request.request.address, request.request.bytes.length);
    if (length <= 0) {
      this.#idle.push(service);
      this.#readFailed(-length);
      return false;
    }
    request.arrived(length);
    service.busy = true;
    const outcome = dispatch(this.#door, request);
    if (typeof outcome === 'number') this.answer(service, outcome);
    else start(outcome, service);
    if (service.busy) {
      service.parked = true;
      this.#parkedCount++;
      this.#door.counters.parked++;
    }
    if (!this.#ready && this.#door.agreement !== undefined) {
      this.#ready = true;
      this.#options.onReady?.();
    }
    if (this.#door.destroyed) this.#ended = true;
    return true;
  }

  #readFailed(errno: number): void {
    switch (errno) {
      // Nothing there; a signal; the request was called off while it was being read.
      case Errno.EAGAIN:
      case Errno.EINTR:
      case Errno.ENOENT:
        return;
      // Unmounted, or an orderly end; aborted (ABORT_ERROR).
      case 0:
      case Errno.ENODEV:
      case Errno.ECONNABORTED:
        this.#ended = true;
        return;
      default:
        this.#door.complain('read of /dev/fuse', errnoName(errno));
        this.#ended = true;
    }
  }

  /** For Service: the error field for what a task threw. */
  outcomeOf(service: Service, error: unknown): number {
    return errorOutcome(this.#door, service.request, error);
  }

  /** For Service: write the reply and take the slot back. */
  answer(service: Service, outcome: number): void {
    const { request } = service;
    if (!isSilent(request)) {
      finishReply(this.#door, request, outcome);
      this.#write(request);
    }
    service.busy = false;
    this.#idle.push(service);
    if (!service.parked) return;
    service.parked = false;
    this.#parkedCount--;
    this.#wake?.();
  }

  #write(request: Request): void {
    const written = tryWrite(this.#fd, request.reply.address, request.replyLength);
    if (written >= 0) return;
    takeBack(this.#door, request);
    this.#door.counters.refusedReplies++;
    switch (-written) {
      // The caller was killed, or the mount has gone: nobody waits.
      case Errno.ENOENT:
      case Errno.ENODEV:
      case Errno.ECONNABORTED:
      case Errno.EPERM:
        return;
      default:
        this.#refused(request, -written);
    }
  }

  /** The kernel did not like the reply; without one the caller would hang, so it gets EIO. */
  #refused(request: Request, errno: number): void {
    const { opcode, replyBytes } = request;
    this.#door.complain(
      'refused reply',
      `opcode ${opcode}, ${replyBytes} bytes: ${errnoName(errno)}`,
    );
    request.finish(-Errno.EIO);
    tryWrite(this.#fd, request.reply.address, request.replyLength);
  }
}
