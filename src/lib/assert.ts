/** Always-on assertions: for our own mistakes, never for bytes from disk, kernel, user or host. */
export class AssertionError extends Error {
  override name = 'AssertionError';
}

export function assert(condition: boolean, message = 'assertion failed'): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** The end of every exhaustive switch. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable value: ${JSON.stringify(value)}`);
}
