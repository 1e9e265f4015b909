/**
 * Memory with an address: arenas, addresses of views, and the scratch memory of the wrappers.
 *
 * M1. An ArrayBuffer's memory does not move while it lives, so an address is asked for once a buffer.
 *     Typed arrays under 64 bytes may live on V8's heap until `.buffer` is touched: touched first.
 * M2. Scratch memory holds arguments from the time they are put there to the call right after. It is
 *     never handed to a call that runs on another thread, and never kept over one.
 * M3. Every thread loads this module anew and has its own scratch memory.
 */
import { libc, rawAddress } from './native.ts';

/** A Buffer with its fast paths for one char per byte, which Node has and its types have not. */
export interface Latin1Buffer extends Buffer<ArrayBuffer> {
  latin1Slice(start: number, end: number): string;
  latin1Write(text: string, offset?: number, length?: number): number;
}

/** The same memory, seen as a Latin1Buffer. */
export const latin1Buffer = (memory: ArrayBuffer, offset = 0, length?: number): Latin1Buffer =>
  Buffer.from(memory, offset, length) as Latin1Buffer;

export interface Arena {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly address: number;
}

/** Zeroed memory with an address. It lives as long as `bytes` is reachable. */
export function allocateArena(byteCount: number): Arena {
  const bytes = new Uint8Array(new ArrayBuffer(byteCount));
  return { bytes, address: addressOf(bytes) };
}

const PAGE_BYTES = 4096;

/**
 * The same, placed so that its byte `pageAt`, a multiple of 16, begins a page: the kernel copies pages
 * faster from and to memory that is aligned as they are.
 */
export function allocateArenaAtPage(byteCount: number, pageAt: number): Arena {
  const memory = new ArrayBuffer(byteCount + PAGE_BYTES);
  const before = (addressOf(new Uint8Array(memory)) + pageAt) % PAGE_BYTES;
  const start = before === 0 ? 0 : PAGE_BYTES - before;
  const bytes = new Uint8Array(memory, start, byteCount);
  return { bytes, address: addressOf(bytes) };
}

const baseAddresses = new WeakMap<ArrayBufferLike, number>();
/** The buffer asked for last: I/O goes through few buffers, and a WeakMap costs 30 ns. */
let lastBuffer: ArrayBufferLike | undefined;
let lastBase = 0;

/** The address of a view's first byte: valid while its buffer is reachable and not transferred. */
export function addressOf(view: Uint8Array): number {
  const buffer = view.buffer;
  if (buffer !== lastBuffer) {
    let base = baseAddresses.get(buffer);
    if (base === undefined) {
      base = rawAddress(new Uint8Array(buffer));
      baseAddresses.set(buffer, base);
    }
    lastBuffer = buffer;
    lastBase = base;
  }
  return lastBase + view.byteOffset;
}

const mallocTrim = libc('int malloc_trim(size_t pad)');

/** Give the host what the C library's allocator has free. Milliseconds: not for a hot path. */
export const trimMalloc = (): void => void mallocTrim(0);

/** Bytes a path argument may have, with its NUL: PATH_MAX of the kernel. */
const PATH_BYTES = 4096;
/** Below this a loop of single bytes is faster than a call of latin1Write. */
const SHORT_PATH = 32;

class PathScratch {
  readonly address: number;
  readonly #bytes: Latin1Buffer;

  constructor() {
    const arena = allocateArena(PATH_BYTES + 8);
    this.#bytes = latin1Buffer(arena.bytes.buffer);
    this.address = arena.address;
  }

  /**
   * Put a path of one char per byte, with its NUL. A path that does not fit goes in cut and without
   * a NUL, so that it is the kernel that says ENAMETOOLONG.
   */
  put(path: string): number {
    const bytes = this.#bytes;
    const length = path.length;
    if (length <= SHORT_PATH) {
      for (let at = 0; at < length; at++) bytes[at] = path.charCodeAt(at);
      bytes[length] = 0;
    } else if (length < PATH_BYTES) {
      bytes.latin1Write(path, 0, length);
      bytes[length] = 0;
    } else {
      bytes.latin1Write(path.slice(0, PATH_BYTES), 0, PATH_BYTES);
    }
    return this.address;
  }
}

const firstPath = new PathScratch();
const secondPath = new PathScratch();
const thirdPath = new PathScratch();

/** Put a path into scratch memory; its address, good for the very next call. */
export const pathArgument = (path: string): number => firstPath.put(path);
/** The second path of a call that takes two. */
export const secondPathArgument = (path: string): number => secondPath.put(path);
/** The third string of a call that takes three: mount(2). */
export const thirdPathArgument = (path: string): number => thirdPath.put(path);

/** Bytes of the record and value scratch: the largest xattr value or name list, 64 KiB. */
export const SCRATCH_BYTES = 65536;

/** Scratch for records and values, seen in the widths that decoders need. */
export class Scratch {
  readonly address: number;
  readonly byteCount: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly buffer: Latin1Buffer;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;

  constructor(byteCount: number) {
    const arena = allocateArena(byteCount);
    const memory = arena.bytes.buffer;
    this.address = arena.address;
    this.byteCount = byteCount;
    this.bytes = arena.bytes;
    this.buffer = latin1Buffer(memory);
    this.u16 = new Uint16Array(memory);
    this.u32 = new Uint32Array(memory);
    this.i32 = new Int32Array(memory);
  }

  /** An unsigned 64-bit field; exact up to 2^53. `word` counts 32-bit words. */
  u64(word: number): number {
    return this.u32[word]! + this.u32[word + 1]! * 0x1_0000_0000;
  }

  /** A signed 64-bit field; exact within 2^53. */
  i64(word: number): number {
    return this.u32[word]! + this.i32[word + 1]! * 0x1_0000_0000;
  }

  /** A u64 that identifies: see `foldIdentity`. */
  identity(word: number): number {
    return foldIdentity(this.u32[word]!, this.u32[word + 1]!);
  }

  /** A copy of a range, good for ever. */
  copy(start: number, end: number): Uint8Array {
    return this.bytes.slice(start, end);
  }

  putU64(word: number, value: number): void {
    this.u32[word] = value;
    this.u32[word + 1] = Math.floor(value / 0x1_0000_0000);
  }
}

/**
 * An inode number as a JS number: exact up to 2^53. Of a larger one the eleven bits that do not fit
 * are folded into the others, so that numbers stay different far more often than by cutting.
 * A small one stays what V8 keeps without a box of its own: the result of a sum of doubles has one.
 */
export function foldIdentity(low: number, high: number): number {
  if (high === 0) return low;
  if (high < 0x20_0000) return low + high * 0x1_0000_0000;
  const folded = (high & 0x1f_ffff) ^ (high >>> 21);
  return low + folded * 0x1_0000_0000;
}
