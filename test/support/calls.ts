/**
 * The calls a test makes on a mounted tree, and the process that makes them.
 *
 * Run as a program this file is the *caller*: it reads batches of calls from standard input as JSON
 * lines and answers with results. The test process itself never touches a mounted tree: if a daemon
 * hangs, the caller hangs and the test process lives on to say so, abort the connection and clean up.
 *
 * Paths, names and file contents are strings with one char per byte (latin1).
 *
 * C1. Host calls are bound here a second time, not taken from src/sys: the judge must not share the
 *     mistakes of the judged.
 * C2. An errno is thrown as `{ errno }`; nothing is retried or smoothed over.
 */
import fs from 'node:fs';
import { createHash } from 'node:crypto';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const AT_FDCWD = -100;

const cOpen = libc.func('int openat(int dir, const uint8_t *path, int flags, int mode)');
const cDup = libc.func('int dup(int fd)');
const cClose = libc.func('int close(int fd)');
const cPread = libc.func('int64_t pread(int fd, void *buf, size_t n, int64_t off)');
const cPwrite = libc.func('int64_t pwrite(int fd, const void *buf, size_t n, int64_t off)');
const cRead = libc.func('int64_t read(int fd, void *buf, size_t n)');
const cWrite = libc.func('int64_t write(int fd, const void *buf, size_t n)');
const cMkdir = libc.func('int mkdir(const uint8_t *path, int mode)');
const cRmdir = libc.func('int rmdir(const uint8_t *path)');
const cUnlink = libc.func('int unlink(const uint8_t *path)');
const cRename = libc.func('int renameat2(int d1, const uint8_t *a, int d2, const uint8_t *b, uint32_t flags)');
const cLink = libc.func('int linkat(int d1, const uint8_t *a, int d2, const uint8_t *b, int flags)');
const cSymlink = libc.func('int symlink(const uint8_t *target, const uint8_t *path)');
const cReadlink = libc.func('int64_t readlink(const uint8_t *path, void *buf, size_t n)');
const cMknod = libc.func('int mknod(const uint8_t *path, int mode, uint64_t dev)');
const cChmod = libc.func('int chmod(const uint8_t *path, int mode)');
const cFchmod = libc.func('int fchmod(int fd, int mode)');
const cLchown = libc.func('int lchown(const uint8_t *path, uint32_t uid, uint32_t gid)');
const cFchown = libc.func('int fchown(int fd, uint32_t uid, uint32_t gid)');
const cUtimens = libc.func('int utimensat(int d, const uint8_t *path, const void *times, int flags)');
const cFutimens = libc.func('int futimens(int fd, const void *times)');
const cTruncate = libc.func('int truncate(const uint8_t *path, int64_t size)');
const cFtruncate = libc.func('int ftruncate(int fd, int64_t size)');
const cSetxattr = libc.func('int lsetxattr(const uint8_t *p, const uint8_t *n, const void *v, size_t s, int f)');
const cGetxattr = libc.func('int64_t lgetxattr(const uint8_t *p, const uint8_t *n, void *v, size_t s)');
const cListxattr = libc.func('int64_t llistxattr(const uint8_t *p, void *v, size_t s)');
const cRemovexattr = libc.func('int lremovexattr(const uint8_t *p, const uint8_t *n)');
const cFallocate = libc.func('int fallocate(int fd, int mode, int64_t off, int64_t len)');
const cLseek = libc.func('int64_t lseek(int fd, int64_t off, int whence)');
const cCopyRange = libc.func(
  'int64_t copy_file_range(int i, int64_t *io, int o, int64_t *oo, size_t n, uint32_t flags)',
);
const cFsync = libc.func('int fsync(int fd)');
const cFdatasync = libc.func('int fdatasync(int fd)');
const cFadvise = libc.func('int posix_fadvise(int fd, int64_t off, int64_t len, int advice)');
const cIoctl = libc.func('int ioctl(int fd, uint64_t request, void *arg)');
const cMmap = libc.func('uintptr_t mmap(uintptr_t a, size_t n, int prot, int flags, int fd, int64_t off)');
const cMunmap = libc.func('int munmap(uintptr_t a, size_t n)');
const cMsync = libc.func('int msync(uintptr_t a, size_t n, int flags)');
const cCopyOut = libc.func('memcpy', 'uintptr_t', ['void *', 'uintptr_t', 'size_t']);
const cCopyIn = libc.func('memcpy', 'uintptr_t', ['uintptr_t', 'void *', 'size_t']);
const cGetdents = libc.func('int64_t getdents64(int fd, void *buf, size_t n)');
const cSyscall = libc.func('int64_t syscall(int64_t n, int64_t a, int64_t b, int64_t c)');
const cSyscallBuffer = libc.func('syscall', 'int64_t', ['int64_t', 'int64_t', 'void *', 'int64_t']);
const cFlock = libc.func('int flock(int fd, int op)');

/** Raw numbers: glibc's wrappers would change every thread of the process. */
const NR =
  process.arch === 'arm64'
    ? { setresuid: 147, setresgid: 149, setgroups: 159 }
    : { setresuid: 117, setresgid: 119, setgroups: 116 };

export interface StatRecord {
  ino: string;
  dev: string;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  blocks: number;
  atimeNs: string;
  mtimeNs: string;
  ctimeNs: string;
}

export interface TreeEntry {
  /** Relative to the root, `.` for the root itself. */
  path: string;
  stat: StatRecord;
  target?: string;
  /** SHA-1 of the content, or `size>limit` if the file is larger than the limit. */
  hash?: string;
  /** Values in hex. */
  xattrs: Record<string, string>;
  /** What the entry said about itself in a way that cannot be right. */
  problems: string[];
}

export interface DirentRecord {
  name: string;
  ino: string;
  type: number;
  off: string;
}

class CallError extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

function check(result: number): number {
  if (Number(result) === -1) throw new CallError(koffi.errno());
  return Number(result);
}

/** A NUL-terminated C string of bytes. */
function z(path: string): Buffer {
  return Buffer.from(path + '\0', 'latin1');
}

function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

function statRecord(s: fs.BigIntStats): StatRecord {
  return {
    ino: String(s.ino),
    dev: String(s.dev),
    mode: Number(s.mode),
    nlink: Number(s.nlink),
    uid: Number(s.uid),
    gid: Number(s.gid),
    rdev: Number(s.rdev),
    size: Number(s.size),
    blocks: Number(s.blocks),
    atimeNs: String(s.atimeNs),
    mtimeNs: String(s.mtimeNs),
    ctimeNs: String(s.ctimeNs),
  };
}

const UTIME_OMIT = 0x3ffffffe;

/** Two timespecs from nanoseconds as decimal strings; undefined leaves the time alone. */
function timespecs(atimeNs: string | null, mtimeNs: string | null): Buffer {
  const out = Buffer.alloc(32);
  [atimeNs, mtimeNs].forEach((ns, i) => {
    if (ns === null) {
      out.writeBigInt64LE(BigInt(UTIME_OMIT), i * 16 + 8);
      return;
    }
    const t = BigInt(ns);
    out.writeBigInt64LE(t / 1_000_000_000n, i * 16);
    out.writeBigInt64LE(t % 1_000_000_000n, i * 16 + 8);
  });
  return out;
}

function xattrNames(path: string): string[] {
  const list = Buffer.alloc(65536);
  const n = check(cListxattr(z(path), list, list.length));
  return list.toString('latin1', 0, n).split('\0').filter((name) => name !== '').sort();
}

function xattrValue(path: string, name: string): string {
  const value = Buffer.alloc(65536);
  const n = check(cGetxattr(z(path), z(name), value, value.length));
  return value.toString('hex', 0, n);
}

const S_IFMT = 0o170000;
const DT_OF_MODE = (mode: number): number => (mode & S_IFMT) >> 12;

const direntBuffer = Buffer.alloc(32768);

function dirents(fd: number, bufferBytes: number): DirentRecord[] {
  const buffer = Buffer.alloc(bufferBytes);
  return parseDirents(buffer, check(cGetdents(fd, buffer, buffer.length)));
}

function parseDirents(buffer: Buffer, n: number): DirentRecord[] {
  const out: DirentRecord[] = [];
  for (let at = 0; at < n; ) {
    const length = buffer.readUInt16LE(at + 16);
    const end = buffer.indexOf(0, at + 19);
    out.push({
      ino: String(buffer.readBigUInt64LE(at)),
      off: String(buffer.readBigInt64LE(at + 8)),
      type: buffer[at + 18]!,
      name: buffer.toString('latin1', at + 19, end),
    });
    at += length;
  }
  return out;
}

function entriesOf(path: string): DirentRecord[] {
  const fd = check(cOpen(AT_FDCWD, z(path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY, 0));
  try {
    const out: DirentRecord[] = [];
    for (;;) {
      const some = dirents(fd, 32768);
      if (some.length === 0) return out;
      out.push(...some);
    }
  } finally {
    cClose(fd);
  }
}

function hashOf(path: string, size: number, limit: number): string {
  if (size > limit) return `${size}>${limit}`;
  const content = fs.readFileSync(bytes(path));
  const hash = createHash('sha1').update(content).digest('hex');
  return content.length === size ? hash : `${hash} of ${content.length} bytes, not ${size}`;
}

function treeEntry(root: string, path: string, dirent: DirentRecord | undefined, hashMax: number): TreeEntry {
  const full = path === '.' ? root : `${root}/${path}`;
  const stat = statRecord(fs.lstatSync(bytes(full), { bigint: true }));
  const entry: TreeEntry = { path, stat, xattrs: {}, problems: [] };
  if (dirent !== undefined) {
    if (dirent.type !== 0 && dirent.type !== DT_OF_MODE(stat.mode)) {
      entry.problems.push(`readdir says type ${dirent.type}, lstat says ${DT_OF_MODE(stat.mode)}`);
    }
    if (dirent.ino !== stat.ino) entry.problems.push(`readdir says ino ${dirent.ino}, lstat ${stat.ino}`);
  }
  const type = stat.mode & S_IFMT;
  if (type === 0o120000) entry.target = calls.readlink(full);
  if (type === 0o100000) entry.hash = hashOf(full, stat.size, hashMax);
  for (const name of xattrNames(full)) entry.xattrs[name] = xattrValue(full, name);
  return entry;
}

/** Walks without following links, names sorted by bytes. */
function walk(root: string, path: string, out: TreeEntry[], hashMax: number): void {
  const full = path === '.' ? root : `${root}/${path}`;
  const entries = entriesOf(full).filter((d) => d.name !== '.' && d.name !== '..');
  entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  entries.forEach((dirent, i) => {
    const child = path === '.' ? dirent.name : `${path}/${dirent.name}`;
    const entry = treeEntry(root, child, dirent, hashMax);
    if (i > 0 && entries[i - 1]!.name === dirent.name) entry.problems.push('name twice in readdir');
    out.push(entry);
    if ((entry.stat.mode & S_IFMT) === 0o040000) walk(root, child, out, hashMax);
  });
}

const maps = new Map<number, { address: number; length: number; prot: number; fd: number }>();
let nextMap = 1;
const descriptors = new Set<number>();

function mapOf(map: number): { address: number; length: number; prot: number; fd: number } {
  const found = maps.get(map);
  if (found === undefined) throw new CallError(9);
  return found;
}


/** Every call by name. All throw `{ errno }`. */
export const calls = {
  open(path: string, flags: number, mode = 0o666): number {
    const fd = check(cOpen(AT_FDCWD, z(path), flags | 0o2000000, mode));
    descriptors.add(fd);
    return fd;
  },
  close(fd: number): number {
    descriptors.delete(fd);
    return check(cClose(fd));
  },
  /** Every descriptor and map that is left, so that a tree can be unmounted. */
  closeAll(): number {
    for (const map of [...maps.keys()]) calls.munmap(map);
    for (const fd of [...descriptors]) cClose(fd);
    descriptors.clear();
    return 0;
  },
  pread(fd: number, length: number, position: number): string {
    const buffer = Buffer.alloc(length);
    return buffer.toString('latin1', 0, check(cPread(fd, buffer, length, position)));
  },
  pwrite: (fd: number, text: string, position: number): number =>
    check(cPwrite(fd, bytes(text), text.length, position)),
  read(fd: number, length: number): string {
    const buffer = Buffer.alloc(length);
    return buffer.toString('latin1', 0, check(cRead(fd, buffer, length)));
  },
  write: (fd: number, text: string): number => check(cWrite(fd, bytes(text), text.length)),
  /** `text` over and over until `length` bytes are written from `position` on. */
  fill(fd: number, text: string, position: number, length: number): number {
    const block = Buffer.alloc(Math.min(length, 1 << 20), bytes(text));
    let done = 0;
    while (done < length) {
      done += check(cPwrite(fd, block, Math.min(block.length, length - done), position + done));
    }
    return done;
  },
  fstat: (fd: number): StatRecord => statRecord(fs.fstatSync(fd, { bigint: true })),
  lstat: (path: string): StatRecord => statRecord(fs.lstatSync(bytes(path), { bigint: true })),
  stat: (path: string): StatRecord => statRecord(fs.statSync(bytes(path), { bigint: true })),
  mkdir: (path: string, mode = 0o777): number => check(cMkdir(z(path), mode)),
  rmdir: (path: string): number => check(cRmdir(z(path))),
  unlink: (path: string): number => check(cUnlink(z(path))),
  rename: (from: string, to: string, flags = 0): number =>
    check(cRename(AT_FDCWD, z(from), AT_FDCWD, z(to), flags)),
  link: (from: string, to: string): number => check(cLink(AT_FDCWD, z(from), AT_FDCWD, z(to), 0)),
  /** Gives an open file a (further) name: how O_TMPFILE files get theirs. */
  linkfd: (fd: number, to: string): number =>
    check(cLink(AT_FDCWD, z(`/proc/self/fd/${fd}`), AT_FDCWD, z(to), 0x400)),
  symlink: (target: string, path: string): number => check(cSymlink(z(target), z(path))),
  readlink(path: string): string {
    const buffer = Buffer.alloc(4097);
    return buffer.toString('latin1', 0, check(cReadlink(z(path), buffer, buffer.length)));
  },
  mknod: (path: string, mode: number, rdev = 0): number => check(cMknod(z(path), mode, rdev)),
  chmod: (path: string, mode: number): number => check(cChmod(z(path), mode)),
  fchmod: (fd: number, mode: number): number => check(cFchmod(fd, mode)),
  lchown: (path: string, uid: number, gid: number): number => check(cLchown(z(path), uid >>> 0, gid >>> 0)),
  fchown: (fd: number, uid: number, gid: number): number => check(cFchown(fd, uid >>> 0, gid >>> 0)),
  utimens: (path: string, atimeNs: string | null, mtimeNs: string | null): number =>
    check(cUtimens(AT_FDCWD, z(path), timespecs(atimeNs, mtimeNs), 0x100)),
  futimens: (fd: number, atimeNs: string | null, mtimeNs: string | null): number =>
    check(cFutimens(fd, timespecs(atimeNs, mtimeNs))),
  truncate: (path: string, size: number): number => check(cTruncate(z(path), size)),
  ftruncate: (fd: number, size: number): number => check(cFtruncate(fd, size)),
  /** Values are latin1 text, except where a name ends in `Hex`. */
  setxattr: (path: string, name: string, value: string, flags = 0): number =>
    check(cSetxattr(z(path), z(name), bytes(value), value.length, flags)),
  setxattrHex: (path: string, name: string, hex: string, flags = 0): number =>
    check(cSetxattr(z(path), z(name), Buffer.from(hex, 'hex'), hex.length / 2, flags)),
  getxattr: (path: string, name: string): string =>
    Buffer.from(xattrValue(path, name), 'hex').toString('latin1'),
  getxattrHex: (path: string, name: string): string => xattrValue(path, name),
  listxattr: (path: string): string[] => xattrNames(path),
  removexattr: (path: string, name: string): number => check(cRemovexattr(z(path), z(name))),
  fallocate: (fd: number, mode: number, offset: number, length: number): number =>
    check(cFallocate(fd, mode, offset, length)),
  lseek: (fd: number, offset: number, whence: number): number => check(cLseek(fd, offset, whence)),
  copyRange: (from: number, fromAt: number, to: number, toAt: number, length: number): number =>
    check(cCopyRange(from, [fromAt], to, [toAt], length, 0)),
  fsync: (fd: number): number => check(cFsync(fd)),
  fdatasync: (fd: number): number => check(cFdatasync(fd)),
  /** POSIX_FADV_DONTNEED: clean pages of the file leave the page cache. */
  dropPages: (fd: number): number => cFadvise(fd, 0, 0, 4),
  /** Errors only: the argument is 256 zero bytes. */
  ioctl: (fd: number, request: number): number => check(cIoctl(fd, request, Buffer.alloc(256))),
  flock: (fd: number, op: number): number => check(cFlock(fd, op)),

  /** PROT_READ is 1, PROT_WRITE 2; always MAP_SHARED. */
  mmap(fd: number, length: number, prot: number): number {
    const address = Number(cMmap(0, length, prot, 1, fd, 0));
    if (address < 0 || address > 2 ** 52) throw new CallError(koffi.errno());
    maps.set(nextMap, { address, length, prot, fd: check(cDup(fd)) });
    return nextMap++;
  },
  /** As mapRead and mapWrite; EFAULT where the file has no such bytes and the access would be SIGBUS. */
  mapReadWithin(map: number, at: number, length: number): string {
    if (at + length > calls.fstat(mapOf(map).fd).size) throw new CallError(14);
    return calls.mapRead(map, at, length);
  },
  mapWriteWithin(map: number, at: number, text: string): number {
    const { fd, prot } = mapOf(map);
    if ((prot & 2) === 0 || at + text.length > calls.fstat(fd).size) throw new CallError(14);
    return calls.mapWrite(map, at, text);
  },
  mapRead(map: number, at: number, length: number): string {
    const buffer = Buffer.alloc(length);
    cCopyOut(buffer, mapOf(map).address + at, length);
    return buffer.toString('latin1');
  },
  mapWrite(map: number, at: number, text: string): number {
    cCopyIn(mapOf(map).address + at, bytes(text), text.length);
    return text.length;
  },
  msync: (map: number): number => check(cMsync(mapOf(map).address, mapOf(map).length, 4)),
  munmap(map: number): number {
    const { address, length, fd } = mapOf(map);
    maps.delete(map);
    cClose(fd);
    return check(cMunmap(address, length));
  },

  /** Names without `.` and `..`, sorted. */
  names: (path: string): string[] =>
    entriesOf(path).map((d) => d.name).filter((n) => n !== '.' && n !== '..').sort(),
  entries: (path: string): DirentRecord[] => entriesOf(path),
  /** rewinddir(3) and all names; a directory that was removed has none. */
  rewindNames(fd: number): string[] {
    check(cLseek(fd, 0, 0));
    const out: string[] = [];
    for (;;) {
      const n = Number(cGetdents(fd, direntBuffer, direntBuffer.length));
      if (n === -1 && koffi.errno() === 2) return [];
      if (check(n) === 0) return out.filter((name) => name !== '.' && name !== '..').sort();
      out.push(...parseDirents(direntBuffer, n).map((d) => d.name));
    }
  },
  /** One getdents64(2) on a descriptor. */
  getdents: (fd: number, bufferBytes: number): DirentRecord[] => dirents(fd, bufferBytes),

  /** Never waits for the other end of a fifo, as writeFile. */
  readFile(path: string): string {
    const fd = calls.open(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      return fs.readFileSync(fd, 'latin1');
    } finally {
      calls.close(fd);
    }
  },
  writeFile(path: string, text: string, mode = 0o666): number {
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK } = fs.constants;
    const fd = calls.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, mode);
    try {
      return text.length === 0 ? 0 : calls.write(fd, text);
    } finally {
      calls.close(fd);
    }
  },
  /** [start, end) of every data segment. */
  segments(path: string): [number, number][] {
    const fd = calls.open(path, fs.constants.O_RDONLY);
    try {
      const size = calls.fstat(fd).size;
      const out: [number, number][] = [];
      for (let at = 0; at < size; ) {
        const start = Number(cLseek(fd, at, 3));
        if (start === -1) break;
        const end = check(cLseek(fd, start, 4));
        out.push([start, end]);
        at = end;
      }
      return out;
    } finally {
      calls.close(fd);
    }
  },
  /** `count` files of a few bytes: `prefix` and a number. */
  manyFiles(dir: string, prefix: string, count: number): number {
    for (let i = 0; i < count; i++) calls.writeFile(`${dir}/${prefix}${i}`, `${i}\n`);
    return count;
  },
  removeTree(path: string): number {
    fs.rmSync(bytes(path), { recursive: true, force: true });
    return 0;
  },
  tree(root: string, hashMax = 1 << 26): TreeEntry[] {
    const out = [treeEntry(root, '.', undefined, hashMax)];
    walk(root, '.', out, hashMax);
    return out;
  },

  /** Who asks from now on. Root again with `as(0, 0, [], 0)`. */
  as(uid: number, gid: number, groups: number[], mask = 0): number {
    check(cSyscall(NR.setresuid, -1, 0, -1));
    const list = Buffer.alloc(Math.max(4, groups.length * 4));
    groups.forEach((g, i) => list.writeUInt32LE(g, i * 4));
    check(cSyscallBuffer(NR.setgroups, groups.length, list, 0));
    check(cSyscall(NR.setresgid, gid, gid, 0));
    process.umask(mask);
    check(uid === 0 ? cSyscall(NR.setresuid, 0, 0, 0) : cSyscall(NR.setresuid, uid, uid, 0));
    return 0;
  },
  umask: (mask: number): number => process.umask(mask),
  pid: (): number => process.pid,
};

export type Calls = typeof calls;
export type CallName = keyof Calls;
export type Call = readonly [CallName, ...unknown[]];
export type Outcome = { value: unknown } | { errno: number };

export function perform([name, ...args]: Call): Outcome {
  try {
    return { value: (calls[name] as (...a: unknown[]) => unknown)(...args) };
  } catch (e) {
    const errno = (e as { errno?: unknown }).errno;
    if (typeof errno !== 'number') throw e;
    return { errno: Math.abs(errno) };
  }
}

/** One line in, one line out: an array of calls, an array of outcomes; stops when standard input ends. */
function serve(): void {
  process.umask(0);
  let pending = '';
  const buffer = Buffer.alloc(1 << 20);
  for (;;) {
    const n = fs.readSync(0, buffer);
    if (n === 0) return;
    pending += buffer.toString('latin1', 0, n);
    for (let end = pending.indexOf('\n'); end !== -1; end = pending.indexOf('\n')) {
      const batch = JSON.parse(Buffer.from(pending.slice(0, end), 'latin1').toString('utf8')) as Call[];
      pending = pending.slice(end + 1);
      const answer = Buffer.from(JSON.stringify(batch.map(perform)) + '\n');
      for (let done = 0; done < answer.length; ) done += fs.writeSync(1, answer, done);
    }
  }
}

if (import.meta.main) serve();
