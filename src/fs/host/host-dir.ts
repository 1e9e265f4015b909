/**
 * A directory as a place where names are resolved. All inodes that mean the same directory share one
 * HostDir, and every file's location is a HostDir and a name: so a renamed directory takes all that is
 * known beneath it along, and costs one descriptor however many inodes look into it.
 *
 * P1. A HostDir without an open descriptor is reached from its parent by its name, one component,
 *     O_NOFOLLOW. Without a parent (a root, a removed directory) its descriptor is pinned.
 * P2. `users` counts the inodes that mean it, the files located in it and the HostDirs beneath it. At
 *     zero it leaves its parent and closes.
 * P3. A parent has at most one HostDir a name. If lookup finds another inode number there (somebody
 *     changed the host beneath us), the old HostDir is cut off: with an open descriptor it goes on,
 *     without one it is ESTALE, and never silently another directory.
 */
import { Errno } from '../../abi/errno.ts';
import { O_DIRECTORY, O_NOFOLLOW, O_PATH } from '../../abi/fcntl.ts';
import { fail } from '../../kernel/error.ts';
import { assert } from '../../lib/assert.ts';
import { Descriptor, type DescriptorCache } from './descriptor-cache.ts';

/** The inode number of a directory that was just made and not yet looked at. */
export const UNKNOWN_INO = -1;

export class HostDir extends Descriptor {
  readonly owner: object;
  readonly cache: DescriptorCache;

  parent: HostDir | undefined;
  /** In `parent`. */
  name: string;
  ino: number;
  /** S_ISGID, as last seen: whether the host hands the group down by itself. */
  setgid = false;
  users = 0;
  #children: Map<string, HostDir> | undefined = undefined;

  /** `owner` is the filesystem, for closing all that is its own. */
  constructor(owner: object, cache: DescriptorCache, parent: HostDir | undefined, name: string) {
    super();
    this.owner = owner;
    this.cache = cache;
    this.parent = parent;
    this.name = name;
    this.ino = UNKNOWN_INO;
    parent?.retain();
  }

  /** An O_PATH descriptor of this directory (D1). Errors: ESTALE it is not where it was. */
  descriptor(): number {
    if (this.fd >= 0) {
      this.cache.touch(this);
      return this.fd;
    }
    const parent = this.parent;
    if (parent === undefined) fail(Errno.ESTALE);
    const flags = O_PATH | O_DIRECTORY | O_NOFOLLOW;
    const fd = this.cache.openat(parent.descriptor(), this.name, flags);
    if (fd < 0) fail(isVanished(fd) ? Errno.ESTALE : -fd);
    this.cache.adopt(this, fd);
    return fd;
  }

  /** The HostDir of the directory that lookup found, with one user more. */
  child(name: string, ino: number): HostDir {
    const known = this.#children?.get(name);
    if (known !== undefined) {
      if (known.ino === UNKNOWN_INO) known.ino = ino;
      if (known.ino === ino || ino === UNKNOWN_INO) {
        known.retain();
        return known;
      }
      known.cutOff();
    }
    const dir = new HostDir(this.owner, this.cache, this, name);
    dir.ino = ino;
    dir.retain();
    (this.#children ??= new Map()).set(name, dir);
    return dir;
  }

  /** It is no longer under its name: only an open descriptor leads to it. */
  cutOff(): void {
    const parent = this.parent;
    if (parent === undefined) return;
    if (this.fd >= 0) this.cache.pin(this);
    this.parent = undefined;
    parent.#leave(this);
    parent.releaseUser();
  }

  /** Nothing that is known here under that name is there any more. */
  cutOffChild(name: string): void {
    this.#children?.get(name)?.cutOff();
  }

  /** It was renamed. What was known under the new name is cut off before, or moved next. */
  moveTo(parent: HostDir, name: string): void {
    const before = this.parent;
    assert(before !== undefined, 'a root was renamed');
    before.#leave(this);
    parent.retain();
    this.parent = parent;
    this.name = name;
    (parent.#children ??= new Map()).set(name, this);
    before.releaseUser();
  }

  retain(): void {
    this.users++;
  }

  releaseUser(): void {
    assert(this.users > 0, 'a directory has lost a user too many');
    this.users--;
    if (this.users > 0) return;
    this.cache.drop(this);
    const parent = this.parent;
    if (parent === undefined) return;
    this.parent = undefined;
    parent.#leave(this);
    parent.releaseUser();
  }

  /** Another may have taken the name already: in an exchange. */
  #leave(child: HostDir): void {
    if (this.#children?.get(child.name) === child) this.#children.delete(child.name);
  }
}

/** What opening a directory by its name answers if it is no longer there. */
export function isVanished(result: number): boolean {
  switch (-result) {
    case Errno.ENOENT:
    case Errno.ENOTDIR:
    case Errno.ELOOP:
    case Errno.ESTALE:
      return true;
    default:
      return false;
  }
}
