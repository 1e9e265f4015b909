/** Exit statuses, and the error that carries one to main. */

export const EXIT_OK = 0;
/** A commit or discard that could not be done. */
export const EXIT_FAILED = 1;
/** `diff --exit-code`: there are changes. */
export const EXIT_CHANGES = 1;
/** What was typed is not understood; `diff --exit-code`: it could not be found out. */
export const EXIT_USAGE = 2;
/** The base has changed beneath: nothing was committed. */
export const EXIT_CONFLICT = 3;
/** As mount(8) and umount(8). */
export const EXIT_MOUNT = 32;
/** `run`: our own failure, not the command's. 126: not executable, 127: not found. */
export const EXIT_OURS = 125;
export const EXIT_NOT_EXECUTABLE = 126;
export const EXIT_NOT_FOUND = 127;
/** `run`: the command died of a signal: 128 and its number. */
export const EXIT_SIGNAL = 128;

/** Ends the program with a status, and a message for a person unless it is empty. */
export class ExitError extends Error {
  override readonly name = 'ExitError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}
