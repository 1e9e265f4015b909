/**
 * From a request to a plan: real paths, work directories, and every refusal that can be had before
 * anything is mounted. A message says which directory and why.
 *
 * P1. Paths of a plan are absolute and real: no symlink in them at the time of the check. The engine
 *     opens them once; what is renamed or mounted over them later does not matter to it.
 * P2. The mount point is never inside a branch: the engine would find its own mount there and wait
 *     for itself for ever. A branch that lies on the mount point, which would be out of everyone
 *     else's sight, is allowed to `run` alone, which never shows it to anyone.
 */
import { accessSync, constants, mkdirSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { type MountEntry, isInside, mountOf, readMountinfo } from './mountinfo.ts';
import { type BranchRequest, MountError, type MountRequest, specOf } from './options.ts';
import { splitEscaped, unescapePath } from './options.ts';

export interface BranchPlan {
  path: string;
  mode: 'rw' | 'ro';
  /** rw only. */
  work?: string;
  /** The work directory is this entry of the branch's own root, and not part of the tree. */
  hidden?: string;
}

/** All a daemon needs to know: travels as JSON. */
export interface MountPlan {
  target: string;
  source: string;
  branches: BranchPlan[];
  readOnly: boolean;
  allowOther: boolean;
  volatile: boolean;
  metacopy: boolean;
  passthrough: boolean;
  flags: string[];
  debug: boolean;
  runtimeDirectory: string;
  log: string;
  /** It was unmounted by whoever mounts it again, for a commit or discard: no crash came between. */
  resumed?: boolean;
  /** Set for a mount of `run`: it ends with the process that started it, see daemon.ts D5. */
  workspace?: string;
}

/** Kernel overlayfs takes 500; more is a mistake in a script. */
export const BRANCHES_MAX = 500;

interface RealBranch extends BranchRequest {
  /** As it was typed: for messages. */
  typed: string;
  device: number;
  ino: number;
}

const refuse = (message: string): never => {
  throw new MountError('refused', message);
};

/** The real path of an existing directory. `what` begins the message. */
export function realDirectory(path: string, what: string): string {
  let real: string;
  try {
    real = realpathSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return refuse(`${what} ${path} does not exist`);
    if (code === 'ENOTCONN') {
      return refuse(`${what} ${path} is a dead mount: run palimpsest umount ${path} first`);
    }
    if (code === undefined) throw error;
    return refuse(`${what} ${path}: ${code}`);
  }
  if (!statSync(real).isDirectory()) return refuse(`${what} ${path} is not a directory`);
  return real;
}

function openable(path: string, mode: 'rw' | 'ro', what: string): void {
  try {
    accessSync(path, constants.R_OK | constants.X_OK | (mode === 'rw' ? constants.W_OK : 0));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EROFS') refuse(`${what} ${path} is on a read-only filesystem: use it as =ro`);
    if (code === 'EACCES')
      refuse(`${what} ${path}: no permission to ${mode === 'rw' ? 'write' : 'read'} it`);
    throw error;
  }
}

function realBranches(request: MountRequest): RealBranch[] {
  if (request.branches.length > BRANCHES_MAX) {
    refuse(`${request.branches.length} branches, at most ${BRANCHES_MAX} are possible`);
  }
  return request.branches.map((branch) => {
    const path = realDirectory(branch.path, 'branch');
    const mode = request.readOnly ? 'ro' : branch.mode;
    openable(path, mode, 'branch');
    const { dev, ino } = statSync(path);
    return { ...branch, mode, path, typed: branch.path, device: dev, ino };
  });
}

function refuseOverlaps(branches: readonly RealBranch[]): void {
  for (const [index, a] of branches.entries()) {
    for (const b of branches.slice(0, index)) {
      if (a.path === b.path || (a.device === b.device && a.ino === b.ino)) {
        refuse(`${a.typed} is given twice: each branch must be another directory than ${b.typed}`);
      }
      const inner = isInside(a.path, b.path) ? a : b;
      const outer = inner === a ? b : a;
      if (isInside(inner.path, outer.path)) {
        refuse(
          `branches overlap: ${inner.typed} lies inside ${outer.typed}, and would be seen twice`,
        );
      }
    }
  }
}

function refuseLoops(target: string, branches: readonly RealBranch[], covers: boolean): void {
  for (const branch of branches) {
    if (target !== branch.path && isInside(target, branch.path)) {
      refuse(
        `the mount point ${target} lies inside the branch ${branch.typed}: ` +
          'the view would contain itself',
      );
    }
    if (isInside(branch.path, target) && !(covers && branch.mode === 'ro')) {
      refuse(
        `the branch ${branch.typed} lies on the mount point ${target}: ` +
          'nobody could reach it while it is mounted. Choose another mount point, ' +
          'or use palimpsest run to see a tree at its own path',
      );
    }
  }
}

/** An upper or work directory of a kernel overlayfs that is mounted: two writers would tear it. */
function refuseKernelUse(paths: readonly string[], entries: readonly MountEntry[]): void {
  for (const entry of entries) {
    if (entry.fsType !== 'overlay') continue;
    for (const option of splitEscaped(entry.superOptions, ',')) {
      const match = /^(upperdir|workdir)=(.*)$/s.exec(option);
      if (match === null) continue;
      const used = unescapePath(match[2]!);
      const path = paths.find(
        (candidate) => isInside(candidate, used) || isInside(used, candidate),
      );
      if (path === undefined) continue;
      refuse(`${path} is in use: it is the ${match[1]} of the overlay mounted at ${entry.target}`);
    }
  }
}

function sameMount(entries: readonly MountEntry[], a: string, b: string): boolean {
  return mountOf(entries, a)?.id === mountOf(entries, b)?.id;
}

const isWritable = (path: string): boolean => {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return false;
  }
};

/** A work directory next to the branch where a rename can reach it, else hidden in the branch. */
function defaultWork(path: string, entries: readonly MountEntry[]): BranchPlan {
  const parent = dirname(path);
  if (path !== '/' && isWritable(parent) && sameMount(entries, path, parent)) {
    const work = join(parent, `.${basename(path)}.palimpsest-work`);
    mkdirSync(work, { recursive: true, mode: 0o700 });
    return { path, mode: 'rw', work };
  }
  const hidden = '.palimpsest-work';
  mkdirSync(join(path, hidden), { recursive: true, mode: 0o700 });
  return { path, mode: 'rw', work: join(path, hidden), hidden };
}

function givenWork(
  branch: RealBranch,
  all: readonly RealBranch[],
  entries: MountEntry[],
): BranchPlan {
  const work = realDirectory(branch.work!, 'work directory');
  openable(work, 'rw', 'work directory');
  for (const other of all) {
    if (isInside(work, other.path) || isInside(other.path, work)) {
      refuse(`the work directory ${branch.work} and the branch ${other.typed} overlap`);
    }
  }
  if (!sameMount(entries, work, branch.path)) {
    refuse(
      `the work directory ${branch.work} must be on the same mount as the branch ${branch.typed}: ` +
        'files are moved between them by rename',
    );
  }
  return { path: branch.path, mode: 'rw', work };
}

export interface PlanPlace {
  target: string;
  debug: boolean;
  runtimeDirectory: string;
  log: string;
  /** `run`: the workspace; the lower may be what the mount covers (P2). */
  workspace?: string;
}

/** Errors: MountError `refused`. Makes default work directories; changes nothing else. */
export function planMount(
  request: MountRequest,
  place: PlanPlace,
  entries: MountEntry[] = readMountinfo(),
): MountPlan {
  const target = realDirectory(resolve(place.target), 'mount point');
  if (target === '/') refuse('the mount point cannot be /');
  const branches = realBranches(request);
  refuseOverlaps(branches);
  refuseLoops(target, branches, place.workspace !== undefined);
  const plans = branches.map((branch): BranchPlan => {
    if (branch.mode === 'ro') return { path: branch.path, mode: 'ro' };
    if (branch.work === undefined) return defaultWork(branch.path, entries);
    return givenWork(branch, branches, entries);
  });
  const written = plans.flatMap((plan) => (plan.mode === 'rw' ? [plan.path, plan.work!] : []));
  refuseKernelUse(written, entries);
  refuseSharedWork(plans, target);
  return {
    target,
    source: specOf(plans),
    branches: plans,
    readOnly: request.readOnly || !plans.some((plan) => plan.mode === 'rw'),
    allowOther: request.allowOther,
    volatile: request.volatile,
    metacopy: request.metacopy,
    passthrough: request.passthrough,
    flags: request.flags,
    debug: place.debug,
    runtimeDirectory: place.runtimeDirectory,
    log: place.log,
    ...(place.workspace === undefined ? {} : { workspace: place.workspace }),
  };
}

function refuseSharedWork(plans: readonly BranchPlan[], target: string): void {
  const seen = new Map<string, string>();
  for (const plan of plans) {
    if (plan.work === undefined) continue;
    const other = seen.get(plan.work);
    if (other !== undefined) {
      refuse(`the work directory ${plan.work} is given for both ${other} and ${plan.path}`);
    }
    if (plan.hidden === undefined && isInside(plan.work, target)) {
      refuse(`the work directory ${plan.work} lies on the mount point ${target}`);
    }
    seen.set(plan.work, plan.path);
  }
}
