/**
 * What others change in directories of the host: inotify(7), one watch a directory.
 *
 * The watch is on the directory itself, not on its path: it follows a rename. Two inodes may mean one
 * directory (a bind mount): the kernel gives them one watch, and both are told.
 * Left out: fanotify, which would see the whole filesystem with one mark but also all that is done on
 * its writable branches, and needs privilege.
 */
import {
  IN_ATTRIB,
  IN_CREATE,
  IN_DELETE,
  IN_DELETE_SELF,
  IN_EXCL_UNLINK,
  IN_IGNORED,
  IN_MODIFY,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_MOVE_SELF,
  IN_ONLYDIR,
  IN_Q_OVERFLOW,
  inotifyInit,
  inotifyRead,
  tryInotifyAddWatch,
  tryInotifyRemoveWatch,
} from '../../sys/inotify.ts';
import type { InotifyEvent } from '../../sys/inotify.ts';
import { tryClose } from '../../sys/open.ts';
import type { BeneathChange, ChangeSource, Inode, Name } from '../../vfs/inode-operations.ts';

const ENTRY = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO;
const CONTENT = IN_MODIFY | IN_ATTRIB;
const SELF = IN_DELETE_SELF | IN_MOVE_SELF;
const MASK = ENTRY | CONTENT | SELF | IN_ONLYDIR | IN_EXCL_UNLINK;

export class HostChanges implements ChangeSource {
  readonly fd: number;
  readonly #descriptorOf: (dir: Inode) => number;
  readonly #watchOf = new Map<Inode, number>();
  readonly #inodesOf = new Map<number, Inode[]>();

  /** `descriptorOf` gives an open descriptor of a directory, good until the next call. */
  constructor(descriptorOf: (dir: Inode) => number) {
    this.fd = inotifyInit();
    this.#descriptorOf = descriptorOf;
  }

  watch(dir: Inode): boolean {
    if (this.#watchOf.has(dir)) return true;
    const watch = tryInotifyAddWatch(this.fd, `/proc/self/fd/${this.#descriptorOf(dir)}`, MASK);
    if (watch < 0) return false;
    this.#watchOf.set(dir, watch);
    const inodes = this.#inodesOf.get(watch);
    if (inodes === undefined) this.#inodesOf.set(watch, [dir]);
    else inodes.push(dir);
    return true;
  }

  unwatch(dir: Inode): void {
    const watch = this.#watchOf.get(dir);
    if (watch === undefined) return;
    this.#watchOf.delete(dir);
    const left = (this.#inodesOf.get(watch) ?? []).filter((inode) => inode !== dir);
    if (left.length > 0) {
      this.#inodesOf.set(watch, left);
      return;
    }
    this.#inodesOf.delete(watch);
    tryInotifyRemoveWatch(this.fd, watch); // EINVAL: the directory is gone and its watch with it.
  }

  drain(): BeneathChange[] {
    const changes: BeneathChange[] = [];
    for (;;) {
      const events = inotifyRead(this.fd);
      if (events.length === 0) return changes;
      for (const event of events) this.#decode(event, changes);
    }
  }

  #decode(event: InotifyEvent, changes: BeneathChange[]): void {
    if ((event.mask & IN_Q_OVERFLOW) !== 0) {
      changes.push({ kind: 'overflow' });
      return;
    }
    if ((event.mask & IN_IGNORED) !== 0) return;
    for (const dir of this.#inodesOf.get(event.watch) ?? []) {
      if (event.name === '') changes.push({ kind: 'self', dir });
      else if ((event.mask & ENTRY) !== 0)
        changes.push({ kind: 'entry', dir, name: event.name as Name });
      else changes.push({ kind: 'content', dir, name: event.name as Name });
    }
  }

  close(): void {
    tryClose(this.fd);
  }
}
