/**
 * A filesystem in memory for the tests of the door: small, complete enough to be mounted, and with
 * places to put a slow or failing answer. Not for users.
 */
import { Errno } from '../../abi/errno.ts';
import { SEEK_HOLE, XATTR_CREATE, XATTR_REPLACE } from '../../abi/fcntl.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID } from '../../abi/mode.ts';
import type { Stat, StatFs } from '../../abi/stat.ts';
import { fail } from '../../kernel/error.ts';
import type { Task, Wait } from '../../kernel/task.ts';
import type {
  Cred,
  DirEntry,
  FileSystem,
  Inode,
  IoBuffer,
  Name,
  SetAttr,
  Time,
} from '../../vfs/inode-operations.ts';

const FILE_BYTES_MAX = 1 << 24;

/** A wait that a test ends. */
export class Gate implements Wait {
  readonly what = 'gate';
  #resume: (() => void) | undefined;
  block(): boolean {
    return true;
  }
  park(resume: () => void): void {
    this.#resume = resume;
  }
  get waited(): boolean {
    return this.#resume !== undefined;
  }
  open(): void {
    this.#resume?.();
  }
}

export class MemoryInode implements Inode {
  readonly fs: MemoryFs;
  readonly type: number;
  doorNode = -1;
  parentIno: number | undefined;
  readonly stat: Stat;
  readonly children = new Map<Name, MemoryInode>();
  readonly xattrs = new Map<string, Uint8Array>();
  bytes = new Uint8Array(0);
  target = '';
  forgotten = 0;

  constructor(fs: MemoryFs, mode: number, cred: { uid: number; gid: number }) {
    this.fs = fs;
    this.type = mode & S_IFMT;
    this.stat = {
      ino: fs.nextIno++,
      mode,
      nlink: this.type === S_IFDIR ? 2 : 1,
      uid: cred.uid,
      gid: cred.gid,
      size: 0,
      blocks: 0,
      blksize: 4096,
      rdevMajor: 0,
      rdevMinor: 0,
      devMajor: 0,
      devMinor: 0,
      atimeSec: 1,
      atimeNsec: 0,
      mtimeSec: 1,
      mtimeNsec: 0,
      ctimeSec: 1,
      ctimeNsec: 0,
      btimeSec: 1,
      btimeNsec: 0,
    };
  }

  *getattr(): Task<Stat> {
    yield* this.fs.hold('getattr', this);
    return { ...this.stat };
  }

  *setattr(changes: SetAttr): Task<void> {
    yield* this.fs.hold('setattr', this);
    const { stat } = this;
    if (changes.uid !== undefined) stat.uid = changes.uid;
    if (changes.gid !== undefined) stat.gid = changes.gid;
    if (changes.killPriv === true) stat.mode &= ~(S_ISUID | S_ISGID);
    if (changes.mode !== undefined) stat.mode = this.type | changes.mode;
    if (changes.size !== undefined) this.#resize(changes.size);
    if (changes.atime !== undefined)
      [stat.atimeSec, stat.atimeNsec] = this.fs.timeOf(changes.atime);
    if (changes.mtime !== undefined)
      [stat.mtimeSec, stat.mtimeNsec] = this.fs.timeOf(changes.mtime);
  }

  #resize(size: number): void {
    if (size > FILE_BYTES_MAX) fail(Errno.EFBIG);
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    this.bytes = bytes;
    this.stat.size = size;
    this.stat.blocks = Math.ceil(size / 512);
  }

  *readlink(): Task<string> {
    if (this.type !== S_IFLNK) fail(Errno.EINVAL);
    return this.target;
  }

  *lookup(name: Name): Task<Inode | undefined> {
    yield* this.fs.hold('lookup', this);
    if (this.type !== S_IFDIR) fail(Errno.ENOTDIR);
    return this.children.get(name);
  }

  *readdir(): Task<DirEntry[]> {
    this.fs.readdirs++;
    return [...this.children].map(([name, { stat, type }]) => ({
      name,
      ino: stat.ino,
      type: type >>> 12,
    }));
  }

  #add(name: Name, mode: number, cred: Cred): MemoryInode {
    if (this.children.has(name)) fail(Errno.EEXIST);
    const child = new MemoryInode(this.fs, mode & ~cred.umask, cred);
    child.parentIno = this.stat.ino;
    this.children.set(name, child);
    return child;
  }

  *create(name: Name, mode: number, cred: Cred): Task<Inode> {
    return this.#add(name, S_IFREG | mode, cred);
  }

  *mkdir(name: Name, mode: number, cred: Cred): Task<Inode> {
    return this.#add(name, S_IFDIR | mode, cred);
  }

  *mknod(name: Name, mode: number, rdevMajor: number, rdevMinor: number, cred: Cred): Task<Inode> {
    const child = this.#add(name, mode, cred);
    child.stat.rdevMajor = rdevMajor;
    child.stat.rdevMinor = rdevMinor;
    return child;
  }

  *symlink(name: Name, target: string, cred: Cred): Task<Inode> {
    const child = this.#add(name, S_IFLNK | 0o777, { ...cred, umask: 0 });
    child.target = target;
    child.stat.size = target.length;
    return child;
  }

  *link(name: Name, target: Inode): Task<void> {
    if (this.children.has(name)) fail(Errno.EEXIST);
    this.children.set(name, target as MemoryInode);
    (target as MemoryInode).stat.nlink++;
  }

  *unlink(name: Name, victim: Inode): Task<void> {
    if (this.children.get(name) !== victim) fail(Errno.ENOENT);
    this.children.delete(name);
    (victim as MemoryInode).stat.nlink--;
  }

  *rmdir(name: Name, victim: Inode): Task<void> {
    if ((victim as MemoryInode).children.size > 0) fail(Errno.ENOTEMPTY);
    this.children.delete(name);
  }

  *rename(name: Name, source: Inode, newDir: Inode, newName: Name): Task<void> {
    this.children.delete(name);
    (newDir as MemoryInode).children.set(newName, source as MemoryInode);
  }

  *tmpfile(mode: number, cred: Cred): Task<Inode> {
    const file = new MemoryInode(this.fs, S_IFREG | (mode & ~cred.umask), cred);
    file.stat.nlink = 0;
    return file;
  }

  *read(buffer: IoBuffer, position: number): Task<number> {
    yield* this.fs.hold('read', this);
    const part = this.bytes.subarray(position, position + buffer.length);
    buffer.bytes.set(part, buffer.offset);
    return part.length;
  }

  *write(buffer: IoBuffer, position: number): Task<number> {
    yield* this.fs.hold('write', this);
    const length = Math.min(buffer.length, this.fs.writeBytesMax);
    if (length === 0 && buffer.length > 0) fail(Errno.ENOSPC);
    this.fs.writeBytesMax -= this.fs.writeBytesMax === Infinity ? 0 : length;
    if (position + length > this.bytes.length) this.#resize(position + length);
    this.bytes.set(buffer.bytes.subarray(buffer.offset, buffer.offset + length), position);
    return length;
  }

  *fsync(_dataOnly: boolean): Task<void> {
    yield* this.fs.hold('fsync', this);
  }

  *seek(position: number, whence: number): Task<number> {
    if (position >= this.bytes.length) fail(Errno.ENXIO);
    return whence === SEEK_HOLE ? this.bytes.length : position;
  }

  *getxattr(name: string): Task<Uint8Array | undefined> {
    return this.xattrs.get(name);
  }
  *setxattr(name: string, value: Uint8Array, flags: number): Task<void> {
    if ((flags & XATTR_CREATE) !== 0 && this.xattrs.has(name)) fail(Errno.EEXIST);
    if ((flags & XATTR_REPLACE) !== 0 && !this.xattrs.has(name)) fail(Errno.ENODATA);
    this.xattrs.set(name, value);
  }
  *listxattr(): Task<string[]> {
    return [...this.xattrs.keys()];
  }
  *removexattr(name: string): Task<void> {
    if (!this.xattrs.delete(name)) fail(Errno.ENODATA);
  }

  forget(): void {
    this.forgotten++;
  }
}

export class MemoryFs implements FileSystem {
  readonly label = 'memory';
  readonly readOnly = false;
  nextIno = 1;
  /** Calls of readdir. */
  readdirs = 0;
  /** Bytes that writes still take. */
  writeBytesMax = Infinity;
  /** Waits put in front of operations, by name. */
  readonly gates = new Map<string, Gate>();
  /** What an operation throws, by name. */
  readonly faults = new Map<string, () => unknown>();
  readonly root: MemoryInode = new MemoryInode(this, S_IFDIR | 0o755, { uid: 0, gid: 0 });

  *hold(operation: string, _inode: MemoryInode): Task<void> {
    const gate = this.gates.get(operation);
    if (gate !== undefined) {
      this.gates.delete(operation);
      yield gate;
    }
    const fault = this.faults.get(operation);
    if (fault !== undefined) throw fault();
  }

  timeOf(time: Time): [number, number] {
    return time === 'now' ? [2, 0] : [time.sec, time.nsec];
  }

  *statfs(): Task<StatFs> {
    return {
      bsize: 4096,
      frsize: 4096,
      blocks: 1000,
      bfree: 500,
      bavail: 500,
      files: 100,
      ffree: 50,
      namelen: 255,
    };
  }
  *syncfs(): Task<void> {}
  *unmount(): Task<void> {}
}
