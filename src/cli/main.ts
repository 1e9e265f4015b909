/**
 * The command line: from arguments to a command's module and its exit status.
 *
 * Modules are loaded by the command that needs them: start-up is most of the time of most commands.
 * mount(8) calls us by other names and in its own way; that goes to mount-helper.ts at once.
 */
import { basename } from 'node:path';
import { MountError } from '../mount/options.ts';
import { EXIT_FAILED, EXIT_MOUNT, EXIT_OURS, EXIT_USAGE, ExitError } from './exit.ts';
import { note } from './output.ts';

const HELPER_NAME = /^(mount\.)?(fuse\.)?palimpsest(\.cjs)?$/;

/** `mount.fuse.palimpsest SPEC DIR …`, or `SPEC DIR -o …` as mount.fuse3 calls us. */
function helperArguments(argv: readonly string[]): readonly string[] | undefined {
  // By the script that doctor installs.
  if (argv[0] === 'mount-helper') return argv.slice(1);
  return isHelperCall(argv) ? argv : undefined;
}

function isHelperCall(argv: readonly string[]): boolean {
  const name = basename(process.argv[1] ?? '');
  if (name.startsWith('mount.') && HELPER_NAME.test(name)) return true;
  const [first, second] = argv;
  if (first === undefined || second === undefined || !argv.includes('-o')) return false;
  return /[/=]/.test(first) && !first.startsWith('-') && second.startsWith('/');
}

/** A path that is not UTF-8 reaches us damaged: better no command than a wrong one. */
function refuseDamaged(argv: readonly string[]): void {
  const damaged = argv.find((argument) => argument.includes('\u{FFFD}'));
  if (damaged !== undefined) {
    throw new ExitError(EXIT_USAGE, `not UTF-8: "${damaged}"; call it from its directory instead`);
  }
}

async function dispatch(argv: string[]): Promise<number> {
  refuseDamaged(argv);
  const helper = helperArguments(argv);
  if (helper !== undefined) return (await import('./mount-helper.ts')).mountHelper(helper);
  return (await import('./program.ts')).runProgram(argv);
}

function statusOf(error: unknown, argv: readonly string[]): number {
  if (error instanceof ExitError) {
    if (error.message !== '') note(`palimpsest: ${error.message}`);
    return error.status;
  }
  if (error instanceof MountError) {
    note(`palimpsest: ${error.message}`);
    if (error.kind === 'usage') return EXIT_USAGE;
    return argv[0] === 'run' ? EXIT_OURS : EXIT_MOUNT;
  }
  if (error instanceof Error && (error.name === 'LayerError' || error.name === 'FsError')) {
    note(`palimpsest: ${error.message}`);
    return argv[0] === 'run' ? EXIT_OURS : EXIT_FAILED;
  }
  note(`palimpsest: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return EXIT_OURS;
}

export async function main(argv: string[]): Promise<void> {
  try {
    process.exitCode = await dispatch(argv);
  } catch (error) {
    process.exitCode = statusOf(error, argv);
  }
}
