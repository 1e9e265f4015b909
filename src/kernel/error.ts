/**
 * The one error of the core. It carries an errno and nothing else: path and syscall are added at the
 * doors (STYLE rule 5). Objects are preallocated, one an errno, because a thrown `new Error` costs
 * 2.5 us; set `PALIMPSEST_TRACE_ERRORS=1` to get a fresh object with a stack instead.
 */
import { Errno, errnoName } from '../abi/errno.ts';

export class FsError extends Error {
  override readonly name = 'FsError';
  readonly errno: number;
  get code(): string {
    return errnoName(this.errno);
  }
  constructor(errno: number, detail?: string) {
    super(detail === undefined ? errnoName(errno) : `${errnoName(errno)}: ${detail}`);
    this.errno = errno;
  }
}

const ERRNO_MAX = 511;
let traced = false;
const preallocated: FsError[] = [];
{
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  for (let errno = 0; errno <= ERRNO_MAX; errno++) preallocated.push(new FsError(errno));
  Error.stackTraceLimit = limit;
}

/** Make every thrown FsError a fresh object with its own stack. For debugging. */
export function traceErrors(on: boolean): void {
  traced = on;
}

export function fsError(errno: number): FsError {
  if (traced) return new FsError(errno);
  return preallocated[errno] ?? preallocated[Errno.EIO]!;
}

/** Throw the error of this errno. */
export function fail(errno: number): never {
  throw fsError(errno);
}

/** The errno of a caught value, or undefined if it is not an FsError (then it is a bug: rethrow it). */
export function errnoOf(error: unknown): number | undefined {
  return error instanceof FsError ? error.errno : undefined;
}
