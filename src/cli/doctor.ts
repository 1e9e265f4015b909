/** `palimpsest doctor`: what this machine offers, what is wrong, and cleaning after dead daemons. */
import { accessSync, chmodSync, constants, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import { errnoName } from '../abi/errno.ts';
import { close, tryOpenat } from '../sys/open.ts';
import { tryListxattr } from '../sys/xattr.ts';
import { MountError } from '../mount/options.ts';
import { bytesPath } from '../mount/paths.ts';
import { isAlive, readRecords, removeRecord, stateHome } from '../mount/state.ts';
import { cleanDead } from '../mount/stop.ts';
import { EXIT_OK, EXIT_OURS } from './exit.ts';
import { findMounts } from './list.ts';
import { STDOUT, print, printJson, styled } from './output.ts';
import { findProgram, userNamespaceProblem } from './user-namespace.ts';

type Level = 'ok' | 'note' | 'problem';

interface Finding {
  what: string;
  level: Level;
  text: string;
}

const HELPER = '/sbin/mount.fuse.palimpsest';
/** WRITEBACK_CACHE, no_open, posix ACLs, HANDLE_KILLPRIV_V2: all there since 5.12. */
const KERNEL_MIN = [5, 12] as const;

const isRoot = (): boolean => process.geteuid?.() === 0;

function checkKernel(): Finding {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const isOld = major < KERNEL_MIN[0] || (major === KERNEL_MIN[0] && minor < KERNEL_MIN[1]);
  const text = isOld ? `Linux ${release()}: ${KERNEL_MIN.join('.')} or newer is wanted` : release();
  return { what: 'kernel', level: isOld ? 'problem' : 'ok', text };
}

function checkDevice(): Finding {
  const what = '/dev/fuse';
  if (!existsSync(what)) {
    return { what, level: 'problem', text: 'not there: modprobe fuse (root), or install fuse3' };
  }
  try {
    accessSync(what, constants.R_OK | constants.W_OK);
    return { what, level: 'ok', text: 'can be read and written' };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return {
      what,
      level: 'problem',
      text: `${code}: chmod 666 /dev/fuse (root), as Debian's udev does`,
    };
  }
}

function checkUserNamespace(): Finding {
  const what = 'user namespaces';
  const problem = userNamespaceProblem();
  if (problem === undefined) return { what, level: 'ok', text: 'run works without root' };
  const level = isRoot() ? 'note' : 'problem';
  const sysctls = 'sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces';
  return { what, level, text: `run works for root only (${problem}); see ${sysctls}` };
}

function checkPrograms(): Finding[] {
  const wanted: [string, string, boolean][] = [
    ['unshare', 'util-linux: needed by run', true],
    ['setpriv', 'util-linux: needed by run without root', !isRoot()],
    ['fusermount3', 'fuse3: needed by mount without root', false],
  ];
  return wanted.map(([what, why, needed]) => {
    const path = findProgram(what);
    if (path !== undefined) return { what, level: 'ok', text: path };
    return { what, level: needed ? 'problem' : 'note', text: `not installed (${why})` };
  });
}

function checkHelper(): Finding {
  const what = 'mount helper';
  if (existsSync(HELPER)) return { what, level: 'ok', text: HELPER };
  const text =
    'not installed: mount -t fuse.palimpsest and /etc/fstab need it (--install-mount-helper)';
  return { what, level: 'note', text };
}

/** Where workspaces are kept must take extended attributes. */
function checkState(): Finding {
  const what = 'workspaces';
  const home = stateHome();
  mkdirSync(home, { recursive: true, mode: 0o700 });
  const fd = tryOpenat(-100, bytesPath(home), constants.O_RDONLY | constants.O_DIRECTORY);
  if (fd < 0) return { what, level: 'problem', text: `${home}: ${errnoName(-fd)}` };
  const result = tryListxattr(fd, '');
  close(fd);
  if (result >= 0) return { what, level: 'ok', text: home };
  const text = `${home} is on a filesystem without extended attributes: set XDG_STATE_HOME to another`;
  return { what, level: 'problem', text };
}

/** What killed daemons left: their mounts are detached, their records removed. */
async function cleanLeftovers(): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const mount of await findMounts()) {
    if (mount.state === 'hung') {
      const text = `${mount.target} does not answer; palimpsest umount --force ends it`;
      findings.push({ what: 'hung mount', level: 'problem', text });
    }
    if (mount.state !== 'dead') continue;
    try {
      cleanDead(mount.target);
      findings.push({ what: 'dead mount', level: 'note', text: `${mount.target}: cleaned up` });
    } catch (error) {
      if (!(error instanceof MountError)) throw error;
      findings.push({ what: 'dead mount', level: 'problem', text: error.message });
    }
  }
  for (const record of readRecords()) {
    if (isAlive(record)) continue;
    removeRecord(record);
    const text = `${record.plan.target}: removed the record of process ${record.pid}`;
    findings.push({ what: 'stale record', level: 'note', text });
  }
  return findings;
}

const quote = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`;

/** A script, not a link: mount(8) runs helpers with little of an environment, so all is spelt out. */
function installHelper(): Finding {
  if (!isRoot())
    throw new MountError('failed', '--install-mount-helper writes to /sbin: run it as root');
  const program = join(import.meta.dirname, '../../bin/palimpsest.cjs');
  const script = `#!/bin/sh
# Installed by: palimpsest doctor --install-mount-helper
exec ${quote(process.execPath)} ${quote(program)} mount-helper "$@"
`;
  mkdirSync(dirname(HELPER), { recursive: true });
  writeFileSync(HELPER, script);
  chmodSync(HELPER, 0o755);
  return { what: 'mount helper', level: 'ok', text: `installed as ${HELPER}` };
}

function show(finding: Finding): void {
  const colours = { ok: 'green', note: 'yellow', problem: 'red' } as const;
  const level = styled(STDOUT, colours[finding.level], finding.level.padEnd(7));
  print(`${level}  ${finding.what}: ${finding.text}`);
}

export async function doctorCommand(options: {
  json?: boolean;
  installMountHelper?: boolean;
}): Promise<number> {
  const findings = [
    checkKernel(),
    checkDevice(),
    checkUserNamespace(),
    ...checkPrograms(),
    checkState(),
  ];
  findings.push(options.installMountHelper === true ? installHelper() : checkHelper());
  findings.push(...(await cleanLeftovers()));
  const node = {
    what: 'node',
    level: 'ok' as const,
    text: `${process.version} (${process.execPath})`,
  };
  findings.unshift(node);
  const healthy = findings.every((finding) => finding.level !== 'problem');
  if (options.json === true) printJson({ version: 1, healthy, findings });
  else for (const finding of findings) show(finding);
  return healthy ? EXIT_OK : EXIT_OURS;
}
