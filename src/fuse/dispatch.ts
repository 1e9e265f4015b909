/**
 * From the bytes of a request to the handler that serves it, and from what that gave to an error field.
 *
 * P1. No request crashes the door: a malformed one is EINVAL, an unknown one ENOSYS, and a handler that
 *     throws anything but an errno is a bug that is logged with its stack and answered EIO.
 */
import { Errno, errnoName } from '../abi/errno.ts';
import { FsError } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import { IN_HEADER } from './abi.ts';
import type { Door } from './door.ts';
import { CACHE_SECONDS, INCOHERENT_CACHE_SECONDS } from './limits.ts';
import { OPERATIONS, opcodeName } from './opcodes.ts';
import type { Request } from './request.ts';

/** Begin to serve a request: the error field of its reply, or the task that will give it. */
export function dispatch(door: Door, request: Request): Task<number> | number {
  const { counters, options } = door;
  const { opcode } = request;
  counters.requests++;
  request.cacheSeconds = door.fs.coherent === false ? INCOHERENT_CACHE_SECONDS : CACHE_SECONDS;
  if (opcode < counters.byOpcode.length) counters.byOpcode[opcode]!++;
  if (options.debug !== undefined) options.debug(describe(request));
  const operation = OPERATIONS[opcode];
  if (operation === undefined) {
    counters.unknown++;
    return -Errno.ENOSYS;
  }
  if (request.length !== request.declaredBytes || request.bodyBytes < operation.bodyBytesMin) {
    counters.malformed++;
    door.complain('malformed request', `${operation.name} of ${request.length} bytes`);
    return -Errno.EINVAL;
  }
  if (operation.changes && options.readOnly) return -Errno.EROFS;
  try {
    return operation.serve(door, request);
  } catch (error) {
    return errorOutcome(door, request, error);
  }
}

/** The error field for what a handler threw. */
export function errorOutcome(door: Door, request: Request, error: unknown): number {
  if (error instanceof FsError) return -error.errno;
  door.counters.bugs++;
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  door.complain('bug in a handler', `${opcodeName(request.opcode)}: ${stack}`);
  return -Errno.EIO;
}

/** No reply is written for this request. */
export function isSilent(request: Request): boolean {
  return OPERATIONS[request.opcode]?.silent === true;
}

/** Write the reply's header for an outcome; what is not legal becomes EIO, with a complaint. */
export function finishReply(door: Door, request: Request, outcome: unknown): void {
  if (!request.finish(outcome)) {
    door.counters.illegalReplies++;
    door.complain('illegal reply', `${opcodeName(request.opcode)} gave ${String(outcome)}`);
  }
  if (outcome !== 0) door.counters.errors++;
  if (door.options.debug !== undefined) {
    const result = outcome === 0 ? `${request.replyBytes} bytes` : errnoName(-Number(outcome));
    door.options.debug(`   ${request.uniqueLow} ${opcodeName(request.opcode)} -> ${result}`);
  }
}

/** The open and the lookups of a reply that the kernel did not take are taken back. */
export function takeBack(door: Door, request: Request): void {
  if (request.opened !== undefined) door.openFiles.release(request.opened);
  request.opened = undefined;
  for (const nodeid of request.handedOut) door.nodes.forget(nodeid, 1);
  request.handedOut.length = 0;
}

function describe(request: Request): string {
  const { uniqueLow, nodeid, uid, pid } = request;
  const body = request.length - IN_HEADER.bytes;
  return `${uniqueLow} ${opcodeName(request.opcode)} node ${nodeid} uid ${uid} pid ${pid} body ${body}`;
}
