/**
 * Which paths a command is about: lists of paths (and all beneath them) and globs.
 *
 * A glob without a slash is about the last component, at any depth; one with a slash about the whole
 * path; one that names a directory takes in all beneath it. `exclude` wins over `include`.
 */
import picomatch from 'picomatch';
import type { Selection } from './types.ts';

export type Selects = (path: string) => boolean;

export function selectsOf(selection: Selection): Selects {
  const paths = (selection.paths ?? []).map(normalizePath);
  const everything = paths.length === 0 || paths.includes('');
  const wanted = new Set(paths);
  const included = globsOf(selection.include);
  const excluded = globsOf(selection.exclude);
  return (path) => {
    if (!everything && !selfAndParents(path).some((p) => wanted.has(p))) return false;
    if (excluded?.(path) === true) return false;
    return included === undefined || included(path);
  };
}

export const isSelective = (selection: Selection): boolean =>
  [selection.paths, selection.include, selection.exclude].some((list) => (list?.length ?? 0) > 0);

/** Without `.`, empty components and slashes at the ends. `..` stays and so matches nothing. */
export const normalizePath = (path: string): string =>
  path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');

/** `a/b/c`, `a/b`, `a`. */
export function selfAndParents(path: string): string[] {
  const all = [path];
  for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
    all.push(path.slice(0, slash));
  }
  return all;
}

function globsOf(globs: readonly string[] | undefined): Selects | undefined {
  if (globs === undefined || globs.length === 0) return undefined;
  const matchers = globs.map((glob) => {
    const trimmed = normalizePath(glob);
    const matches = picomatch(trimmed, { dot: true });
    const anyDepth = !trimmed.includes('/');
    return (path: string) => matches(anyDepth ? path.slice(path.lastIndexOf('/') + 1) : path);
  });
  return (path) => selfAndParents(path).some((p) => matchers.some((matches) => matches(p)));
}
