/** `palimpsest completion bash|zsh|fish`: scripts made from the commands' own option table. */
import type { Command } from 'commander';
import { MountError } from '../mount/options.ts';
import { EXIT_OK } from './exit.ts';
import { print } from './output.ts';

interface CompletedCommand {
  name: string;
  summary: string;
  options: { flag: string; description: string; takesValue: boolean }[];
  /** Its first argument is a workspace or a mount point. */
  wantsSubject: boolean;
}

const SUBJECT_COMMANDS = ['diff', 'commit', 'discard', 'status'];

export function completedCommands(program: Command): CompletedCommand[] {
  return program.commands.map((command) => ({
    name: command.name(),
    summary: command.summary() || command.description(),
    wantsSubject: SUBJECT_COMMANDS.includes(command.name()),
    options: command.options.flatMap((option) => {
      const flags = [option.long, option.short].filter((flag) => typeof flag === 'string');
      const takesValue = option.required || option.optional;
      return flags.map((flag) => ({ flag, description: option.description, takesValue }));
    }),
  }));
}

const NAMES = 'palimpsest ls -q 2>/dev/null';

function bash(commands: readonly CompletedCommand[]): string {
  const cases = commands.map((command) => {
    const flags = command.options.map((option) => option.flag).join(' ');
    return `    ${command.name}) flags='${flags}' ;;`;
  });
  return `# palimpsest completion bash > /etc/bash_completion.d/palimpsest
_palimpsest() {
  local current=\${COMP_WORDS[COMP_CWORD]} command=\${COMP_WORDS[1]} flags=
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${commands.map((command) => command.name).join(' ')} help' -- "$current"))
    return
  fi
  case $command in
${cases.join('\n')}
  esac
  case $current in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$current")); return ;;
  esac
  COMPREPLY=($(compgen -f -- "$current"))
  case " ${SUBJECT_COMMANDS.join(' ')} " in
    *" $command "*) COMPREPLY+=($(compgen -W "$(${NAMES})" -- "$current")) ;;
  esac
}
complete -o filenames -F _palimpsest palimpsest
`;
}

const zshText = (text: string): string => text.replaceAll(/[[\]:]/g, '\\$&').replaceAll("'", '’');

function zsh(commands: readonly CompletedCommand[]): string {
  const cases = commands.map((command) => {
    const options = command.options.map(
      (option) =>
        `'${option.flag}[${zshText(option.description)}]${option.takesValue ? ':value:_files' : ''}'`,
    );
    const rest = command.wantsSubject ? "'*:workspace:_palimpsest_subjects'" : "'*:file:_files'";
    return `    ${command.name}) _arguments ${[...options, rest].join(' ')} ;;`;
  });
  const names = commands.map((command) => `'${command.name}:${zshText(command.summary)}'`);
  return `#compdef palimpsest
# palimpsest completion zsh > "\${fpath[1]}/_palimpsest"
_palimpsest_subjects() {
  local -a names
  names=(\${(f)"$(${NAMES})"})
  compadd -a names
  _files -/
}
_palimpsest() {
  local -a commands
  commands=(${names.join(' ')})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=\${words[2]}
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
}
_palimpsest "$@"
`;
}

const fishText = (text: string): string => `'${text.replaceAll(/['\\]/g, '\\$&')}'`;

function fish(commands: readonly CompletedCommand[]): string {
  const lines = ['# palimpsest completion fish > ~/.config/fish/completions/palimpsest.fish'];
  for (const command of commands) {
    const base = 'complete -c palimpsest';
    lines.push(
      `${base} -n __fish_use_subcommand -f -a ${command.name} -d ${fishText(command.summary)}`,
    );
    const seen = `${base} -n '__fish_seen_subcommand_from ${command.name}'`;
    for (const option of command.options) {
      const flag = option.flag.startsWith('--')
        ? `-l ${option.flag.slice(2)}`
        : `-s ${option.flag.slice(1)}`;
      lines.push(
        `${seen} ${flag} ${option.takesValue ? '-r ' : ''}-d ${fishText(option.description)}`,
      );
    }
    if (command.wantsSubject) lines.push(`${seen} -a '(${NAMES})'`);
  }
  return `${lines.join('\n')}\n`;
}

// oxlint-disable-next-line require-await -- every command gives a promise
export async function completionCommand(shell: string, program: Command): Promise<number> {
  const scripts = new Map([
    ['bash', bash],
    ['zsh', zsh],
    ['fish', fish],
  ]);
  const script = scripts.get(shell);
  if (script === undefined) {
    throw new MountError('usage', `no completion for "${shell}": bash, zsh and fish are known`);
  }
  print(script(completedCommands(program)).trimEnd());
  return EXIT_OK;
}
