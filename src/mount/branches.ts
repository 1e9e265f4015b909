/** From a planned branch to an open one. */
import { openHostFs } from '../fs/host/host-fs.ts';
import type { BranchSpec } from '../fs/union/branch.ts';
import type { Name } from '../vfs/inode-operations.ts';
import { bytesPath } from './paths.ts';
import type { BranchPlan } from './plan.ts';

export function openBranch(branch: BranchPlan): BranchSpec {
  const fs = openHostFs({ path: bytesPath(branch.path), readOnly: branch.mode === 'ro' });
  const base = { fs, root: fs.root, mode: branch.mode, label: branch.path };
  if (branch.work === undefined) return base;
  const work = fs.openRoot(bytesPath(branch.work));
  if (branch.hidden === undefined) return { ...base, work };
  return { ...base, work, hidden: bytesPath(branch.hidden) as Name };
}
