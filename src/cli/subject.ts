/**
 * What diff, commit and discard are about: a workspace's layers, or the topmost branch of a mount.
 *
 * A mount that serves is flushed before anyone looks at its upper. To change its upper or what is
 * beneath, it is unmounted meanwhile: its caches would not know, and programs would see halves.
 */
import { resolve } from 'node:path';
import { openHostFs, type HostFs } from '../fs/host/host-fs.ts';
import { errnoName } from '../abi/errno.ts';
import { errnoOf } from '../kernel/error.ts';
import { runSync } from '../kernel/task.ts';
import type { Baseline, LayerSet } from '../layers/types.ts';
import { BranchLocks } from '../mount/lock.ts';
import { ControlClient } from '../mount/control.ts';
import { isInside } from '../mount/mountinfo.ts';
import { MountError } from '../mount/options.ts';
import { bytesPath } from '../mount/paths.ts';
import type { MountPlan } from '../mount/plan.ts';
import { startDaemon } from '../mount/start.ts';
import { type MountRecord, isAlive, readRecords } from '../mount/state.ts';
import { realTarget, recordOfTarget, unmount } from '../mount/stop.ts';
import type { Name } from '../vfs/inode-operations.ts';
import { type Workspace, findWorkspace } from './workspace.ts';

/** One upper over its lowers, as paths of the host. */
export interface SubjectLayer {
  /** Where the view is seen, and paths given by the user are resolved. */
  view: string;
  upper: string;
  work: string;
  /** The upper's own entry that is its work directory. */
  hidden?: string;
  /** Topmost first. */
  lowers: string[];
  baseline?: Baseline;
}

export interface Subject {
  name: string;
  layers: SubjectLayer[];
  workspace?: Workspace;
  /** The daemons that serve it now. */
  records: MountRecord[];
}

export function layerOfPlan(plan: MountPlan): SubjectLayer {
  const [top, ...lowers] = plan.branches;
  if (top?.mode !== 'rw') {
    throw new MountError(
      'refused',
      `${plan.target}: its topmost branch is read-only, nothing changes there`,
    );
  }
  return {
    view: plan.target,
    upper: top.path,
    work: top.work!,
    lowers: lowers.map((branch) => branch.path),
    ...(top.hidden === undefined ? {} : { hidden: top.hidden }),
  };
}

export function layersOfWorkspace(workspace: Workspace): SubjectLayer[] {
  return workspace.layers.map(({ base, upper, work, createdSec, createdNsec }) => {
    return { view: base, upper, work, lowers: [base], baseline: { createdSec, createdNsec } };
  });
}

/** A name without a slash is a workspace first; anything else is a mount point. */
export function findSubject(name: string): Subject {
  const workspace = findWorkspace(name);
  if (workspace !== undefined) {
    const records = readRecords().filter(
      (record) => record.plan.workspace === workspace.name && isAlive(record),
    );
    return { name, workspace, layers: layersOfWorkspace(workspace), records };
  }
  const record = recordOfMount(name);
  if (record === undefined) {
    throw new MountError('failed', `${name}: no such workspace or mount; palimpsest ls lists them`);
  }
  return { name, layers: [layerOfPlan(record.plan)], records: [record] };
}

function recordOfMount(name: string): MountRecord | undefined {
  let target: string;
  try {
    target = realTarget(name);
  } catch (error) {
    if (error instanceof MountError) return undefined;
    throw error;
  }
  const record = recordOfTarget(target);
  if (record !== undefined && !isAlive(record)) {
    throw new MountError(
      'failed',
      `${target}: its daemon has gone; palimpsest umount cleans it up`,
    );
  }
  return record;
}

/** All that programs have written so far is in the uppers. */
export async function flushSubject(subject: Subject): Promise<void> {
  for (const record of subject.records) {
    const client = await ControlClient.connect(record.socket);
    if (client === undefined) continue; // It has ended since: then everything is flushed.
    try {
      const reply = await client.request('sync');
      if (!reply.ok && isAlive(record)) {
        throw new MountError('failed', `${record.plan.target} cannot be flushed: ${reply.error}`);
      }
    } finally {
      client.close();
    }
  }
}

/** Do something to the layers while nobody serves them; a mount is back afterwards. */
export async function whileUnmounted(subject: Subject, action: () => number): Promise<number> {
  const [record] = subject.records;
  if (record !== undefined && subject.workspace !== undefined) {
    throw new MountError(
      'refused',
      `the workspace ${subject.name} is in use by palimpsest run (process ${record.pid})`,
    );
  }
  if (record === undefined) return withLocks(subject, action);
  const { plan } = record;
  await unmount(plan.target, { lazy: false, force: false, timeoutMs: 0 });
  try {
    return withLocks(subject, action);
  } finally {
    await startDaemon({ ...plan, resumed: true });
  }
}

function withLocks(subject: Subject, action: () => number): number {
  const branches = subject.layers.map((layer) => {
    return { path: layer.upper, mode: 'rw' as const, work: layer.work };
  });
  using _locks = new BranchLocks(branches);
  return action();
}

/** A layer's directories, opened. */
export class OpenLayer implements Disposable {
  readonly layer: SubjectLayer;
  readonly set: LayerSet;
  readonly #open: HostFs[] = [];

  /** `writable`: the upper and the topmost lower are going to be changed. */
  constructor(layer: SubjectLayer, writable: boolean) {
    this.layer = layer;
    const upper = this.#openFs(layer.upper, !writable);
    this.set = {
      upper: upper.root,
      work: upper.openRoot(bytesPath(layer.work)),
      ...(layer.hidden === undefined ? {} : { hidden: bytesPath(layer.hidden) as Name }),
      lowers: layer.lowers.map((path, at) => this.#openFs(path, !(writable && at === 0)).root),
    };
  }

  #openFs(path: string, readOnly: boolean): HostFs {
    try {
      const fs = openHostFs({ path: bytesPath(path), readOnly });
      this.#open.push(fs);
      return fs;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === undefined) throw error;
      throw new MountError('failed', `cannot open ${path}: ${errnoName(errno)}`);
    }
  }

  [Symbol.dispose](): void {
    for (const fs of this.#open) runSync(fs.unmount());
  }
}

/**
 * The user's paths, as paths of each layer. Absolute ones, and relative ones where the working
 * directory is in the view, say where they mean; other relative ones begin at the first layer's root.
 * A layer without an entry has nothing selected; undefined: everything is.
 */
export function pathsByLayer(
  subject: Subject,
  paths: readonly string[],
): Map<SubjectLayer, string[]> | undefined {
  if (paths.length === 0) return undefined;
  const chosen = new Map<SubjectLayer, string[]>();
  const cwd = process.cwd();
  const inView = subject.layers.some((layer) => isInside(cwd, layer.view));
  for (const path of paths) {
    const from = inView ? cwd : subject.layers[0]!.view;
    const absolute = resolve(from, path);
    const layer = subject.layers.find((candidate) => isInside(absolute, candidate.view));
    if (layer === undefined) {
      throw new MountError('usage', `${path} is not in ${subject.name}`);
    }
    const relative = bytesPath(absolute.slice(layer.view.length + 1));
    chosen.set(layer, [...(chosen.get(layer) ?? []), relative]);
  }
  return chosen;
}
