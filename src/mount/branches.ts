/** From a planned branch to an open one. */
import { openHostFs } from '../fs/host/host-fs.ts';
import type { BranchSpec } from '../fs/union/branch.ts';
import type { Name } from '../vfs/inode-operations.ts';
import { bytesPath } from './paths.ts';
import type { BranchPlan, MountPlan } from './plan.ts';

export function openBranch(branch: BranchPlan, { volatile, resumed }: MountPlan): BranchSpec {
  const readOnly = branch.mode === 'ro';
  const fs = openHostFs({ path: bytesPath(branch.path), readOnly, volatile });
  const described = { mode: branch.mode, label: branch.path };
  if (branch.work === undefined) return { fs, root: fs.root, ...described };
  const work = fs.openRoot(bytesPath(branch.work));
  const base = { fs, root: fs.root, ...described, work, workLabel: branch.work, resumed: resumed ?? false };
  if (branch.hidden === undefined) return base;
  return { ...base, hidden: bytesPath(branch.hidden) as Name };
}
