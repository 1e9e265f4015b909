/**
 * One request in memory, from the read(2) that brought it to the write(2) that answers it.
 *
 * A *request slot* owns two arenas: the bytes read from /dev/fuse and the reply being made. Slots are
 * reused; whoever serves a request owns its slot until the reply is out.
 *
 * Q1. Fields are read at constant offsets through 32-bit views: no object is made to decode a record.
 * Q2. A u64 that does not fit a JS number exactly is an error of the request (EINVAL), never rounded.
 * Q3. `finish` is the only place that writes a reply header. An error field leaves it only as an
 *     integer from -511 to 0: the kernel refuses anything else and the caller would hang for good.
 * Q4. Nothing is read past `length`, the bytes that really came.
 * Q5. The data of a WRITE and of the reply to a READ begin at a page of memory.
 *
 * cf. fs/fuse/dev.c
 */
import { Errno } from '../abi/errno.ts';
import { NAME_MAX } from '../abi/fcntl.ts';
import { fail } from '../kernel/error.ts';
import { type Arena, allocateArenaAtPage, latin1Buffer, type Latin1Buffer } from '../sys/memory.ts';
import type { Cred, Inode, Name } from '../vfs/inode-operations.ts';
import { FUSE_HEADER_ROOM, IN_HEADER, OUT_HEADER, WRITE_IN } from './abi.ts';
import { CACHE_SECONDS, MAX_WRITE_BYTES, REPLY_ERRNO_MAX } from './limits.ts';

const REQUEST_BYTES = MAX_WRITE_BYTES + FUSE_HEADER_ROOM;
const REPLY_BYTES = MAX_WRITE_BYTES + FUSE_HEADER_ROOM;
const WORD = 0x1_0000_0000;
/** The high word from which on a u64 is above 2^53. */
const HIGH_MAX = 0x20_0000;
const SLASH = 47;
const DOT = 46;

const OPCODE_AT = IN_HEADER.at.opcode >> 2;
const UNIQUE_AT = IN_HEADER.at.unique >> 2;
const NODEID_AT = IN_HEADER.at.nodeid >> 2;
const UID_AT = IN_HEADER.at.uid >> 2;
const GID_AT = IN_HEADER.at.gid >> 2;
const PID_AT = IN_HEADER.at.pid >> 2;
const EXTLEN_AT = IN_HEADER.at.totalExtlen >> 1;
const BODY = IN_HEADER.bytes;

const OUT_LEN_AT = OUT_HEADER.at.len >> 2;
const OUT_ERROR_AT = OUT_HEADER.at.error >> 2;
const OUT_UNIQUE_AT = OUT_HEADER.at.unique >> 2;
/** Where a reply's body begins. */
export const REPLY_BODY = OUT_HEADER.bytes;

/** The error field of a reply for what a handler gave, or undefined if that is not one (Q3). */
export function errorField(outcome: unknown): number | undefined {
  if (typeof outcome !== 'number' || !Number.isInteger(outcome)) return undefined;
  if (outcome > 0 || outcome < -REPLY_ERRNO_MAX) return undefined;
  return outcome === 0 ? 0 : outcome;
}

export class Request {
  readonly request: Arena;
  readonly reply: Arena;
  readonly #in16: Uint16Array;
  readonly #in32: Uint32Array;
  readonly #inSigned: Int32Array;
  readonly #inText: Latin1Buffer;
  readonly #out32: Uint32Array;
  readonly #out16: Uint16Array;
  readonly #outText: Latin1Buffer;

  /** Bytes that came. */
  length = 0;
  /** Bytes of the body of the reply. */
  replyBytes = 0;
  /** Node ids whose lookup counts this reply raises: taken back if the kernel does not take it. */
  readonly handedOut: number[] = [];
  /** The file that this reply opens: closed again if the kernel does not take it. */
  opened: Inode | undefined;

  constructor() {
    this.request = allocateArenaAtPage(REQUEST_BYTES, BODY + WRITE_IN.bytes);
    this.reply = allocateArenaAtPage(REPLY_BYTES, REPLY_BODY);
    const { buffer: input, byteOffset: inputAt } = this.request.bytes;
    const { buffer: output, byteOffset: outputAt } = this.reply.bytes;
    this.#in16 = new Uint16Array(input, inputAt, REQUEST_BYTES >> 1);
    this.#in32 = new Uint32Array(input, inputAt, REQUEST_BYTES >> 2);
    this.#inSigned = new Int32Array(input, inputAt, REQUEST_BYTES >> 2);
    this.#inText = latin1Buffer(input, inputAt, REQUEST_BYTES);
    this.#out32 = new Uint32Array(output, outputAt, REPLY_BYTES >> 2);
    this.#out16 = new Uint16Array(output, outputAt, REPLY_BYTES >> 1);
    this.#outText = latin1Buffer(output, outputAt, REPLY_BYTES);
  }

  /** How long the kernel may keep what this reply says; dispatch.ts sets it. */
  cacheSeconds = CACHE_SECONDS;

  /** Ready for a request of `length` bytes that has been read in. */
  arrived(length: number): void {
    this.length = length;
    this.replyBytes = 0;
    this.handedOut.length = 0;
    this.opened = undefined;
  }

  // -- header --

  get opcode(): number {
    return this.#in32[OPCODE_AT]!;
  }
  /** The declared length. */
  get declaredBytes(): number {
    return this.#in32[0]!;
  }
  get uniqueLow(): number {
    return this.#in32[UNIQUE_AT]!;
  }
  get uniqueHigh(): number {
    return this.#in32[UNIQUE_AT + 1]!;
  }
  /** A node id; one that is not exact is none of ours, and gives 0. */
  get nodeid(): number {
    const high = this.#in32[NODEID_AT + 1]!;
    return high < HIGH_MAX ? this.#in32[NODEID_AT]! + high * WORD : 0;
  }
  get uid(): number {
    return this.#in32[UID_AT]!;
  }
  get gid(): number {
    return this.#in32[GID_AT]!;
  }
  get pid(): number {
    return this.#in32[PID_AT]!;
  }

  cred(umask: number): Cred {
    return { uid: this.uid, gid: this.gid, umask: umask & 0o777, pid: this.pid };
  }

  // -- body: `at` counts bytes from the start of the body, as the layouts of abi.ts do --

  /** Bytes of the body, without extensions. */
  get bodyBytes(): number {
    return this.length - BODY - this.#in16[EXTLEN_AT]! * 8;
  }
  u32(at: number): number {
    return this.#in32[(BODY + at) >> 2]!;
  }
  u64(at: number): number {
    const word = (BODY + at) >> 2;
    const high = this.#in32[word + 1]!;
    if (high >= HIGH_MAX) fail(Errno.EINVAL);
    return this.#in32[word]! + high * WORD;
  }
  /** A u64 that is only compared and capped: what is above 2^53 - 1 becomes that. */
  u64Capped(at: number): number {
    const word = (BODY + at) >> 2;
    const high = this.#in32[word + 1]!;
    return high >= HIGH_MAX ? Number.MAX_SAFE_INTEGER : this.#in32[word]! + high * WORD;
  }
  /** Signed: seconds since 1970. */
  i64(at: number): number {
    const word = (BODY + at) >> 2;
    return this.#in32[word]! + this.#inSigned[word + 1]! * WORD;
  }
  /** A node id in the body. */
  id(at: number): number {
    const word = (BODY + at) >> 2;
    const high = this.#in32[word + 1]!;
    return high < HIGH_MAX ? this.#in32[word]! + high * WORD : 0;
  }

  /** The end of the NUL-terminated string that starts `at`, without the NUL. Errors: EINVAL none. */
  stringEnd(at: number): number {
    const bytes = this.request.bytes;
    const limit = this.length - this.#in16[EXTLEN_AT]! * 8;
    for (let end = BODY + at; end < limit; end++) if (bytes[end] === 0) return end - BODY;
    return fail(Errno.EINVAL);
  }

  /** The bytes from `at` to `end`, one char each. */
  text(at: number, end: number): string {
    return this.#inText.latin1Slice(BODY + at, BODY + end);
  }

  /**
   * The name that starts `at`. Errors, in this order: ENAMETOOLONG over 255 bytes; EINVAL not
   * terminated, empty, `.`, `..`, or with a slash: the kernel sends none of these.
   */
  name(at: number): Name {
    const bytes = this.request.bytes;
    const end = this.stringEnd(at);
    const count = end - at;
    if (count > NAME_MAX) fail(Errno.ENAMETOOLONG);
    if (count === 0) fail(Errno.EINVAL);
    for (let i = BODY + at; i < BODY + end; i++) if (bytes[i] === SLASH) fail(Errno.EINVAL);
    if (count <= 2 && bytes[BODY + at] === DOT) {
      if (count === 1 || bytes[BODY + at + 1] === DOT) fail(Errno.EINVAL);
    }
    return this.text(at, end) as Name;
  }

  /** A view of `count` bytes of the body. Errors: EINVAL fewer came. */
  slice(at: number, count: number): Uint8Array {
    if (BODY + at + count > this.length) fail(Errno.EINVAL);
    return this.request.bytes.subarray(BODY + at, BODY + at + count);
  }

  // -- reply: `at` counts bytes from the start of its body --

  put16(at: number, value: number): void {
    this.#out16[(REPLY_BODY + at) >> 1] = value;
  }
  put32(at: number, value: number): void {
    this.#out32[(REPLY_BODY + at) >> 2] = value;
  }
  /** A 64-bit field: integers from -2^53 to 2^53. */
  put64(at: number, value: number): void {
    const word = (REPLY_BODY + at) >> 2;
    // Storing into a Uint32Array takes the number modulo 2^32: the low word, also of a negative one.
    this.#out32[word] = value;
    this.#out32[word + 1] = Math.floor(value / WORD);
  }
  /** Zero `count` bytes. */
  clear(at: number, count: number): void {
    this.reply.bytes.fill(0, REPLY_BODY + at, REPLY_BODY + at + count);
  }
  putBytes(at: number, bytes: Uint8Array): void {
    this.reply.bytes.set(bytes, REPLY_BODY + at);
  }
  /** A string of one char a byte. */
  putText(at: number, text: string): void {
    const start = REPLY_BODY + at;
    const count = text.length;
    if (count > 24) {
      this.#outText.latin1Write(text, start, count);
      return;
    }
    const bytes = this.reply.bytes;
    for (let i = 0; i < count; i++) bytes[start + i] = text.charCodeAt(i);
  }
  /** Bytes that a reply's body may have. */
  get replyRoom(): number {
    return REPLY_BYTES - REPLY_BODY;
  }

  /**
   * Write the header. `outcome` is 0 or a negative errno; anything else becomes -EIO, and the answer
   * is false, so that the caller can complain. An error reply has no body.
   */
  finish(outcome: unknown): boolean {
    const error = errorField(outcome);
    const sent = error ?? -Errno.EIO;
    if (sent !== 0) this.replyBytes = 0;
    const out = this.#out32;
    out[OUT_LEN_AT] = REPLY_BODY + this.replyBytes;
    out[OUT_ERROR_AT] = sent;
    out[OUT_UNIQUE_AT] = this.uniqueLow;
    out[OUT_UNIQUE_AT + 1] = this.uniqueHigh;
    return error !== undefined;
  }

  /** Bytes of the whole reply, once finished. */
  get replyLength(): number {
    return this.#out32[OUT_LEN_AT]!;
  }
}
