/** `palimpsest mount`. */
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  MountError,
  parseBranch,
  parseRequest,
  parseSpec,
  isNamelessSpec,
} from '../mount/options.ts';
import type { BranchWords, MountRequest } from '../mount/options.ts';
import { type MountPlan, planMount, realDirectory } from '../mount/plan.ts';
import { daemonArguments, daemonEnvironment, logPath, startDaemon } from '../mount/start.ts';
import { ensurePrivateDirectory, runtimeDirectory } from '../mount/state.ts';
import { EXIT_OK } from './exit.ts';

export interface MountCommandOptions {
  branch?: string[];
  lower?: string[];
  upper?: string;
  work?: string[];
  options?: string[];
  readOnly?: boolean;
  foreground?: boolean;
  debug?: boolean;
}

/** `[SPEC] DIR`: a SPEC is a branch list, or a word that says nothing (`none`, `overlay`). */
export function requestOf(words: readonly string[], given: MountCommandOptions): MountRequest {
  if (words.length > 2) {
    throw new MountError(
      'usage',
      `too many arguments: ${words.join(' ')}; one mount point is wanted`,
    );
  }
  const spec = words.length === 2 ? words[0]! : 'none';
  const branches: BranchWords = {
    branches: (given.branch ?? []).map((text) => parseBranch(text, 'ro')),
    lower: given.lower ?? [],
    upper: given.upper,
    work: given.work ?? [],
  };
  if (!isNamelessSpec(spec)) branches.branches.push(...parseSpec(spec));
  const request = parseRequest(given.options ?? [], branches);
  if (given.readOnly === true) request.readOnly = true;
  return request;
}

export async function mountCommand(words: string[], given: MountCommandOptions): Promise<number> {
  const isBare = words.length === 0 && Object.values(given).every((value) => !hasValue(value));
  if (isBare) return (await import('./list.ts')).listMounts({});
  if (words.length === 0) throw new MountError('usage', 'a mount point is wanted');
  const request = requestOf(words, given);
  const directory = ensurePrivateDirectory(runtimeDirectory());
  const target = realDirectory(resolve(words.at(-1)!), 'mount point');
  const plan = planMount(request, {
    target,
    debug: given.debug === true,
    runtimeDirectory: directory,
    log: logPath(directory, target),
  });
  await recoverBeneath(plan);
  if (given.foreground === true) {
    const argv = [process.execPath, ...daemonArguments(plan)];
    process.execve!(process.execPath, argv, daemonEnvironment() as Record<string, string>);
  }
  await startDaemon(plan);
  return EXIT_OK;
}

/** A commit that was cut short must not show in the view. Loaded only if there is one. */
async function recoverBeneath(plan: MountPlan): Promise<void> {
  const [top, lower, ...more] = plan.branches;
  if (top?.mode !== 'rw' || lower === undefined || more.length > 0) return;
  if (!readdirSync(lower.path).some((name) => name.startsWith('.palimpsest-commit-'))) return;
  const { layerOfPlan } = await import('./subject.ts');
  (await import('./recover.ts')).recoverLayer(layerOfPlan(plan));
}

const hasValue = (value: unknown): boolean =>
  Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false;
