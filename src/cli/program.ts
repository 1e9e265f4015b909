/** Every command with its options: what `help` and the completions are made from. */
import { Command, CommanderError, Option } from 'commander';
import { EXIT_OK, EXIT_USAGE } from './exit.ts';

/** An option that may be repeated; absent if it never was. */
const collect = (value: string, before: string[] | undefined): string[] => [
  ...(before ?? []),
  value,
];

type Action = (...args: never[]) => Promise<number>;

class Statuses {
  status = EXIT_OK;
  /** What was typed, to begin anew elsewhere. */
  readonly argv: readonly string[];

  constructor(argv: readonly string[] = []) {
    this.argv = argv;
  }

  /** Keep what the command returns as the exit status. */
  take(action: Action): (...args: unknown[]) => Promise<void> {
    return async (...args) => {
      this.status = await action(...(args as never[]));
    };
  }
}

function addMount(program: Command, statuses: Statuses): void {
  program
    .command('mount [SPEC_AND_DIR...]')
    .summary('show branches as one tree at a mount point; without arguments, list the mounts')
    .description(
      'Show branches as one tree at a mount point. The first branch is topmost. ' +
        'A writable branch (=rw) takes the changes; the others are never touched.',
    )
    .usage('[options] [SPEC] DIR')
    .option('-b, --branch <DIR[=rw|ro]>', 'a branch, topmost first (repeat)', collect)
    .option('-l, --lower <DIR>', 'a read-only branch, topmost first (repeat)', collect)
    .option('-u, --upper <DIR>', 'the writable branch, on top of all')
    .option('-w, --work <DIR>', 'work directory of the writable branch, on its filesystem', collect)
    .option('-o, --options <LIST>', 'lowerdir=A:B,upperdir=U,workdir=W,ro,… (see below)', collect)
    .option('-r, --read-only', 'nothing can be changed')
    .option('-f, --foreground', 'stay in the foreground; Ctrl-C unmounts')
    .option('-d, --debug', 'log every request')
    .addHelpText(
      'after',
      `
Options for -o, as in fstab; a backslash keeps ":" "," "=" in a path:
  lowerdir=A:B          read-only branches, topmost first
  upperdir=U            the writable branch
  workdir=W             work directory, on the same mount as U
  branch=A=rw:B=ro      any branches, topmost first
  volatile              nothing is synced, fsync does nothing: throw U and W away after a crash;
                        U is not mounted again while W/work/incompat/volatile is there
  ro, allow_other, metacopy=on|off, passthrough=on|off,
  nodev, nosuid, noexec, noatime

Example:
  palimpsest mount --branch /tmp/changes=rw --branch /srv/base /mnt/view
  palimpsest mount -o lowerdir=/a:/b,upperdir=/u,workdir=/w /mnt/view`,
    )
    .action(
      statuses.take(async (words: string[], options: object) =>
        (await import('./mount.ts')).mountCommand(words, options as never),
      ),
    );
}

function addUmount(program: Command, statuses: Statuses): void {
  program
    .command('umount [DIR...]')
    .alias('unmount')
    .summary('unmount; returns when all is flushed and the daemon has gone')
    .option('-l, --lazy', 'detach now, even if in use; the daemon goes with its last user')
    .option('-f, --force', 'end the connection: programs in the mount get errors')
    .option('-a, --all', 'every mount of palimpsest')
    .option('--timeout <SECONDS>', 'how long to wait for the flush (default: as long as it takes)')
    .action(
      statuses.take(async (targets: string[], options: object) =>
        (await import('./umount.ts')).umountCommand(targets, options as never),
      ),
    );
}

function addRun(program: Command, statuses: Statuses): void {
  program
    .command('run <COMMAND...>')
    .summary('run a command in a copy-on-write view of this directory tree')
    .description(
      'Run a command in a copy-on-write view of the current directory tree. The command sees and ' +
        'changes the tree at its own path; the real tree stays as it is until you commit.',
    )
    .usage('[options] -- COMMAND [ARGUMENTS...]')
    .passThroughOptions()
    .option('-s, --workspace <NAME>', 'keep the changes under this name, or go on with them')
    .addOption(
      new Option(
        '--on-exit <WHAT>',
        'what to do with the changes (default: ask, or keep without a terminal)',
      ).choices(['ask', 'keep', 'commit', 'discard']),
    )
    .option('-C, --directory <DIR>', 'run there, and cover that tree instead of the current one')
    .option('--cow <PATH>', 'cover this tree too (repeat)', collect)
    .option('--env <K=V>', 'set an environment variable (repeat)', collect)
    .option('--json', 'say the outcome as one JSON line on standard error')
    .addHelpText(
      'after',
      `
Exit status: the command's own; 128 and N if signal N ended it; 126 not executable;
127 not found; 125 our own failure; 3 if --on-exit commit found the tree changed meanwhile.
Processes that the command leaves behind are stopped. --on-exit commit commits only if
the command succeeded.

Example:
  palimpsest run -- npm install left-pad
  palimpsest run --workspace try -- make -j4 && palimpsest diff try && palimpsest commit try`,
    )
    .action(
      statuses.take(async (command: string[], options: object) => {
        (await import('./user-namespace.ts')).enterUserNamespace(statuses.argv);
        return (await import('./run.ts')).runCommand(command, options as never);
      }),
    );
}

function addLists(program: Command, statuses: Statuses): void {
  program
    .command('ls')
    .alias('ps')
    .summary('list workspaces and mounts')
    .option('--json', 'one JSON object a line')
    .option('-q, --quiet', 'names and mount points only')
    .action(
      statuses.take(async (options: object) =>
        (await import('./list.ts')).listCommand(options as never),
      ),
    );
  program
    .command('status [WORKSPACE_OR_MOUNTPOINT]')
    .summary('one workspace or mount, with the counters of its daemon')
    .option('--json', 'as JSON')
    .action(
      statuses.take(async (name: string | undefined, options: object) =>
        (await import('./list.ts')).statusCommand(name, options as never),
      ),
    );
}

/** A workspace was made in a user namespace; a mount is unmounted outside of one. */
async function enterFor(name: string, argv: readonly string[]): Promise<void> {
  if (process.geteuid?.() === 0) return;
  if ((await import('./workspace.ts')).findWorkspace(name) === undefined) return;
  (await import('./user-namespace.ts')).enterUserNamespace(argv);
}

function withSelection(command: Command): Command {
  return command
    .option('--include <GLOB>', 'only paths that match (repeat)', collect)
    .option('--exclude <GLOB>', 'not the paths that match (repeat)', collect);
}

function addDiff(program: Command, statuses: Statuses): void {
  withSelection(
    program
      .command('diff <WORKSPACE_OR_MOUNTPOINT> [PATH...]')
      .summary('what changed: A added, M modified, D deleted, R renamed, T type, X metadata'),
  )
    .option('--name-status', 'a letter and the path (default)')
    .option('--name-only', 'the path alone')
    .option('--stat', 'how many bytes and lines')
    .option('-p, --patch', 'the contents, as a unified diff')
    .option('--json', 'one JSON object a change')
    .option('--docker', 'as `docker diff` prints it')
    .option('--summary', 'counts only')
    .option('-z, --null', 'paths end in NUL and are raw bytes')
    .option('--expand', 'every entry beneath deleted and renamed directories')
    .option('--mtime', 'a new time of modification alone is a change')
    .option('--exit-code', 'status 1 if there are changes, 2 on an error')
    .option('-q, --quiet', 'print nothing; implies --exit-code')
    .action(
      statuses.take(async (name: string, paths: string[], options: object) => {
        await enterFor(name, statuses.argv);
        return (await import('./diff.ts')).diffCommand(name, paths, options as never);
      }),
    );
}

function addCommit(program: Command, statuses: Statuses): void {
  withSelection(
    program
      .command('commit <WORKSPACE_OR_MOUNTPOINT> [PATH...]')
      .summary('make the changes in the real tree, all or none'),
  )
    .option('-n, --dry-run', 'say what would be done')
    .addOption(
      new Option(
        '--conflict <MODE>',
        'where the real tree has changed meanwhile: fail, take ours, keep theirs',
      )
        .choices(['fail', 'ours', 'theirs'])
        .default('fail'),
    )
    .option('--json', 'one JSON object')
    .option('-q, --quiet', 'print errors only')
    .action(
      statuses.take(async (name: string, paths: string[], options: object) => {
        await enterFor(name, statuses.argv);
        return (await import('./commit.ts')).commitCommand(name, paths, options as never);
      }),
    );
  withSelection(
    program
      .command('discard <WORKSPACE_OR_MOUNTPOINT> [PATH...]')
      .alias('rollback')
      .summary('throw the changes away; without PATHs, a workspace too'),
  )
    .option('-n, --dry-run', 'say what would be done')
    .option('--json', 'one JSON object')
    .option('-q, --quiet', 'print errors only')
    .action(
      statuses.take(async (name: string, paths: string[], options: object) => {
        await enterFor(name, statuses.argv);
        return (await import('./discard.ts')).discardCommand(name, paths, options as never);
      }),
    );
}

function addRest(program: Command, statuses: Statuses): void {
  program
    .command('doctor')
    .summary('check what this machine offers, and clean what dead daemons left')
    .option('--json', 'as JSON')
    .option('--install-mount-helper', 'make `mount -t fuse.palimpsest` and /etc/fstab work (root)')
    .action(
      statuses.take(async (options: object) =>
        (await import('./doctor.ts')).doctorCommand(options as never),
      ),
    );
  program
    .command('completion <SHELL>')
    .summary('a completion script for bash, zsh or fish')
    .action(
      statuses.take(async (shell: string) =>
        (await import('./completion.ts')).completionCommand(shell, program),
      ),
    );
  program
    .command('version')
    .summary('the version')
    .option('--json', 'with Node, kernel and protocol, as JSON')
    .action(
      statuses.take(async (options: object) =>
        (await import('./version.ts')).versionCommand(options as never),
      ),
    );
}

export function buildProgram(statuses: Statuses = new Statuses()): Command {
  const program = new Command('palimpsest');
  program
    .description(
      'See directory trees as one, write to a layer above them, and then look at what changed, ' +
        'keep it, or throw it away.',
    )
    .usage('COMMAND [options]')
    .version('', '-V, --version', 'the version')
    .enablePositionalOptions()
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .showHelpAfterError('(palimpsest help COMMAND says more)')
    .addHelpText(
      'after',
      `
Begin with:
  palimpsest run -- COMMAND      run it in a copy-on-write view of this directory tree
  palimpsest diff WORKSPACE      see what it changed; then commit or discard`,
    );
  // Subcommands copy this, so that every error comes back here.
  program.exitOverride();
  addRun(program, statuses);
  addDiff(program, statuses);
  addCommit(program, statuses);
  addMount(program, statuses);
  addUmount(program, statuses);
  addLists(program, statuses);
  addRest(program, statuses);
  return program;
}

/** Errors: what the commands throw. What commander says itself has been printed already. */
export async function runProgram(argv: string[]): Promise<number> {
  const statuses = new Statuses(argv);
  if (argv[0] === '--version' || argv[0] === '-V') {
    return (await import('./version.ts')).versionCommand({});
  }
  const program = buildProgram(statuses);
  if (argv.length === 0) {
    program.outputHelp({ error: true });
    return EXIT_USAGE;
  }
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const isHelp = error.code === 'commander.helpDisplayed' || error.code === 'commander.help';
    return isHelp && error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
  }
  return statuses.status;
}
