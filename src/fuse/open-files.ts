/**
 * Open files of a mount in passthrough mode: which are read and written by the kernel itself.
 *
 * A file is *passed* if the kernel has its backing file, by a *backing id*, and reads, writes and maps
 * that one without us. Else it is *cached*: its pages are the mount's own, filled and written by READ
 * and WRITE. Both at once would be two truths about one file, so the kernel refuses it (EIO).
 *
 * F1. The first open decides, and all opens of an inode are alike until its last RELEASE. What is copied
 *     up while it is open stays cached so long: nobody is left with the old bytes.
 * F2. An inode that was passed once is passed again, or the open fails: a map of it outlives its
 *     RELEASE, for the kernel counts that with the backing file. Only a set-id file is not (F4); its
 *     pages are then dropped at the open.
 * F3. Size and times of what is or was passed change without us: they are not cached.
 * F4. A set-id file is cached, so that a WRITE says whether the bits go. One that becomes set-id while
 *     it is open and passed loses them at any write, also root's: the kernel writes with our rights,
 *     not the writer's, so they exclude keeping the bits.
 * F5. The kernel lets go of a file before it sends RELEASE: what we count is never less than it has.
 *
 * Used in this mode only; elsewhere nobody is told of opens. cf. fs/fuse/iomode.c, fs/fuse/passthrough.c
 */
import { Errno, errnoName } from '../abi/errno.ts';
import { S_IFREG, S_ISGID, S_ISUID, S_IXGRP } from '../abi/mode.ts';
import type { Stat } from '../abi/stat.ts';
import { fail } from '../kernel/error.ts';
import { assert } from '../lib/assert.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode } from '../vfs/inode-operations.ts';

/** What the kernel offers: ioctls of /dev/fuse. */
export interface BackingDevice {
  /** A backing id for the file of this descriptor, above 0, or -errno. */
  open(fd: number): number;
  close(backingId: number): void;
}

const CACHED = 0;

interface OpenFile {
  opens: number;
  /** Of the present opens: a backing id, or CACHED. */
  backingId: number;
}

const isSetId = (mode: number): boolean =>
  (mode & S_ISUID) !== 0 || (mode & (S_ISGID | S_IXGRP)) === (S_ISGID | S_IXGRP);

/** The kernel will not pass any file of this mount, whichever it is. */
function isForGood(errno: number): boolean {
  switch (errno) {
    case Errno.EPERM:
    case Errno.EINVAL:
    case Errno.ENOTTY:
    case Errno.EOPNOTSUPP:
      return true;
    default:
      return false;
  }
}

export class OpenFiles {
  readonly #device: BackingDevice | undefined;
  readonly #complain: (line: string) => void;

  /** What has opens now. */
  readonly #files = new Map<Inode, OpenFile>();
  readonly #passed = new WeakSet<Inode>();
  readonly #told = new Set<number>();
  #refused = false;

  constructor(device: BackingDevice | undefined, complain: (line: string) => void) {
    this.#device = device;
    this.#complain = complain;
  }

  /** Its attributes change without us (F3). */
  wasPassed(inode: Inode): boolean {
    return this.#passed.has(inode);
  }

  /**
   * One more open of a file. The backing id to answer, or 0: cached.
   * Errors: what reaching the host's file answers; EIO it was passed and cannot be any more.
   */
  *open(inode: Inode): Task<number> {
    const present = this.#join(inode);
    if (present !== undefined) return present;
    const stat = yield* inode.getattr();
    const wanted = this.#mayPass(inode, stat);
    const fd = wanted ? yield* inode.backing!() : undefined;
    // From here to the ioctl nobody else is served: the descriptor is good. Another open came meanwhile?
    const meanwhile = this.#join(inode);
    if (meanwhile !== undefined) return meanwhile;
    const backingId = fd === undefined ? CACHED : this.#pass(inode, fd);
    if (backingId === CACHED && wanted && this.#passed.has(inode)) fail(Errno.EIO); // F2.
    this.#files.set(inode, { opens: 1, backingId });
    if (backingId !== CACHED) this.#passed.add(inode);
    return backingId;
  }

  /** F1. Undefined: it is not open. */
  #join(inode: Inode): number | undefined {
    const file = this.#files.get(inode);
    if (file === undefined) return undefined;
    file.opens++;
    return file.backingId;
  }

  /** F4. */
  #mayPass(inode: Inode, stat: Stat): boolean {
    if (this.#device === undefined || this.#refused || inode.backing === undefined) return false;
    return inode.type === S_IFREG && !isSetId(stat.mode);
  }

  /** A backing id, or CACHED if the kernel does not want that file. */
  #pass(inode: Inode, fd: number): number {
    const result = this.#device!.open(fd);
    if (result > 0) return result;
    if (this.#passed.has(inode)) fail(-result);
    this.#refused ||= isForGood(-result);
    if (!this.#told.has(-result)) {
      this.#told.add(-result);
      const what = this.#refused ? 'every file is' : 'some files are';
      this.#complain(`the kernel answers ${errnoName(-result)}: ${what} served without it`);
    }
    return CACHED;
  }

  /** One open of it is over. */
  release(inode: Inode): void {
    const file = this.#files.get(inode);
    if (file === undefined) return;
    assert(file.opens > 0, 'an open file has opens');
    file.opens--;
    if (file.opens === 0) this.drop(inode);
  }

  /** The kernel has let go of the inode, so there is no open of it. */
  drop(inode: Inode): void {
    const file = this.#files.get(inode);
    if (file === undefined) return;
    this.#files.delete(inode);
    if (file.backingId !== CACHED) this.#device!.close(file.backingId);
  }
}
