/** Checks of names, before anything else is looked at (contract, V6). */
import { Errno } from '../../abi/errno.ts';
import { NAME_MAX } from '../../abi/fcntl.ts';
import { fail } from '../../kernel/error.ts';

const SLASH = 0x2f;
const BYTE_MAX = 0xff;

/** Errors: ENAMETOOLONG; EINVAL empty, `.`, `..`, or with a slash, NUL or what is no byte in it. */
export function checkName(name: string): void {
  const length = name.length;
  if (length > NAME_MAX) fail(Errno.ENAMETOOLONG);
  if (length === 0 || name === '.' || name === '..') fail(Errno.EINVAL);
  for (let at = 0; at < length; at++) {
    const byte = name.charCodeAt(at);
    if (byte === 0 || byte === SLASH || byte > BYTE_MAX) fail(Errno.EINVAL);
  }
}
