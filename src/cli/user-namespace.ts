/**
 * For an ordinary user, what concerns workspaces happens in a user namespace of its own: mounting in
 * it, and reading and removing what the command made unreadable (a directory of mode 000) with rights
 * over the user's own files, and over nobody else's.
 *
 * A process with threads, as Node is, cannot enter one: so this process becomes unshare(1), and that
 * becomes us again.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { EXIT_OURS, ExitError } from './exit.ts';

const INSIDE = 'PALIMPSEST_INSIDE_USER_NAMESPACE';
const NAMESPACE = ['--user', '--map-current-user', '--keep-caps'];

/** The program on PATH or where Debian has it. */
export function findProgram(name: string): string | undefined {
  const directories = [
    ...(process.env['PATH'] ?? '').split(':'),
    '/usr/bin',
    '/bin',
    '/usr/sbin',
    '/sbin',
  ];
  return directories
    .filter((directory) => directory.startsWith('/'))
    .map((directory) => join(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === undefined) throw error;
        return false;
      }
    });
}

/** Why user namespaces cannot be had here, or undefined. */
export function userNamespaceProblem(): string | undefined {
  const unshare = findProgram('unshare');
  if (unshare === undefined) return 'unshare(1) of util-linux is not installed';
  const probe = spawnSync(unshare, [...NAMESPACE, '--mount', '--', 'true'], { encoding: 'utf8' });
  if (probe.status === 0) return undefined;
  return probe.stderr.trim() || `unshare ended with status ${probe.status}`;
}

/** Go on inside. Root stays where it is. Errors: ExitError with what to do. */
export function enterUserNamespace(argv: readonly string[]): void {
  if (process.geteuid?.() === 0) return;
  if (process.env[INSIDE] !== undefined) {
    delete process.env[INSIDE];
    return;
  }
  const problem = userNamespaceProblem();
  if (problem !== undefined) {
    throw new ExitError(
      EXIT_OURS,
      `user namespaces are not available to you (${problem}); palimpsest doctor says more`,
    );
  }
  const unshare = findProgram('unshare')!;
  const self = [process.execPath, process.argv[1]!, ...argv];
  const env = { ...process.env, [INSIDE]: '1' } as Record<string, string>;
  process.execve!(unshare, ['unshare', ...NAMESPACE, '--', ...self], env);
}
