/**
 * Extended attributes: the real inode's, without the union's own.
 *
 * An xattr of ours that a user sets (an overlay inside this one) is stored with one more `overlay.`
 * and given back without it, as the kernel does: nested unions work, and nobody can forge a whiteout.
 */
import { Errno } from '../../abi/errno.ts';
import { fail } from '../../kernel/error.ts';
import type { Task } from '../../kernel/task.ts';
import { copyUp } from './copy-up.ts';
import type { UnionInode } from './inode.ts';

const ESCAPE = 'overlay.';

/** The name on the branch for a name the user gave. */
function escaped(inode: UnionInode, name: string): string {
  const { prefix } = inode.branch;
  return name.startsWith(prefix) ? prefix + ESCAPE + name.slice(prefix.length) : name;
}

/** The user's name for a name on the branch; undefined for one of the union's own. */
function unescaped(inode: UnionInode, name: string): string | undefined {
  const { prefix } = inode.branch;
  if (!name.startsWith(prefix)) return name;
  const rest = name.slice(prefix.length);
  return rest.startsWith(ESCAPE) ? prefix + rest.slice(ESCAPE.length) : undefined;
}

export function* getxattr(inode: UnionInode, name: string): Task<Uint8Array | undefined> {
  if (inode.real.getxattr === undefined) fail(Errno.EOPNOTSUPP);
  return yield* inode.real.getxattr(escaped(inode, name));
}

export function* setxattr(inode: UnionInode, name: string, value: Uint8Array, flags: number): Task<void> {
  yield* copyUp(inode, 'metadata');
  if (inode.real.setxattr === undefined) fail(Errno.EOPNOTSUPP);
  yield* inode.real.setxattr(escaped(inode, name), value, flags);
}

export function* listxattr(inode: UnionInode): Task<string[]> {
  if (inode.real.listxattr === undefined) return [];
  const names: string[] = [];
  for (const name of yield* inode.real.listxattr()) {
    const shown = unescaped(inode, name);
    if (shown !== undefined) names.push(shown);
  }
  return names;
}

/** A name that is not there is ENODATA before anything is copied up. */
export function* removexattr(inode: UnionInode, name: string): Task<void> {
  if (inode.real.removexattr === undefined) fail(Errno.EOPNOTSUPP);
  if ((yield* getxattr(inode, name)) === undefined) fail(Errno.ENODATA);
  yield* copyUp(inode, 'metadata');
  yield* inode.real.removexattr(escaped(inode, name));
}
